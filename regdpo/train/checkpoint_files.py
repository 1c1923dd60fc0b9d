"""A checkpoint's files as torch's distributed checkpoints write them, held against damage and against strangers.

Beside each file lies its digest, by which a flipped bit is found before anything of it is used. Torch's reader
unpickles ``.metadata`` and small items as they are, which lets whoever wrote them run code; here they can name nothing
but what a checkpoint of ours consists of.
"""

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, SavePlan, SavePlanner
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError, first_line

METADATA = ".metadata"
DIGEST = ".sha256"
_PLAIN = {
    "pathlib": {"Path", "PosixPath"},
    "torch": {"Size"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}
"""Module -> what a ``.metadata`` names of it, beside torch's element types. All of it only holds values."""

_FILLED = ("torch.distributed.checkpoint.filesystem", "torch.distributed.checkpoint.metadata")
"""Modules of those whose instances get their values after they are made."""

MOST_NESTED = 32
"""Tuples within tuples: to hash deeper ones, as a dictionary does, would end the process, whose stack is bounded."""

MOST_HELD = 10_000
"""Items that a tuple holds with all that the tuples in it hold, as often as each is met: hashing meets them all."""

MOST_ITEM = 2**20
"""Bytes of the pickle of what is no tensor, such as the optimiser's rate."""

MALFORMED = (
    *(pickle.UnpicklingError, AttributeError, EOFError, LookupError, OSError, TypeError, ValueError),
    *(MemoryError, OverflowError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError),
)
"""What comes of a pickle that is none, or makes something else of plain classes."""

DISTRUST = (
    "nothing of it was run. If you do not know where it is from, distrust the whole store; else remove the checkpoint"
)


class Damaged(Exception):
    """A file is not as it was written; its name and why."""


class Writer(FileSystemWriter):
    """Torch's, which also leaves each file's digest; in the background, as torch writes."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        written = super().write_data(plan, planner)
        for name in sorted({result.storage_data.relative_path for result in written.value()}):
            _sign(Path(self.path, name))
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        _sign(Path(self.path, METADATA))


class Reader(FileSystemReader):
    """Torch's, of what nobody vouches for."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """As torch's.

        Raises:
            UserError: it is no checkpoint of ours.
        """
        path = Path(self.path, METADATA)
        try:
            with path.open("rb") as file:
                metadata = _Unpickler(file).load()
            if not isinstance(metadata, Metadata):
                raise pickle.UnpicklingError(f"holds a {type(metadata).__name__}")
            for shard in {item.relative_path for item in metadata.storage_data.values()}:
                if Path(shard).name != shard:
                    raise pickle.UnpicklingError(f"names the file {shard}")
            metadata.storage_meta = metadata.storage_meta or StorageMeta()
            metadata.storage_meta.load_id = self.load_id
        except MALFORMED as error:
            reason = first_line(error)
            raise UserError(f"{path}: is not what a training of ours writes ({reason}); {DISTRUST}") from None
        return metadata


class Planner(DefaultLoadPlanner):
    """Torch's, which unpickles no more than values of what is no tensor."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        plain = io.BytesIO()
        try:
            torch.save(_Unpickler(_pickle_of(value)).load(), plain)
        except MALFORMED as error:
            raise pickle.UnpicklingError(first_line(error)) from None
        plain.seek(0)
        super().load_bytes(read_item, plain)


def _pickle_of(saved: io.BytesIO) -> io.BytesIO:
    """What ``torch.save`` has written of a value without tensors."""
    with zipfile.ZipFile(saved) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "data.pkl")
        with archive.open(name) as file:
            found = file.read(MOST_ITEM + 1)
    if len(found) > MOST_ITEM:
        raise pickle.UnpicklingError(f"takes more than {MOST_ITEM} bytes")
    return io.BytesIO(found)


def _shallow(make: Callable[[Any], None]) -> Callable[[Any], None]:
    """An unpickler's opcode that makes a tuple, which must not lie too deep."""

    def load(self: Any) -> None:
        make(self)
        made = self.stack[-1]
        inside = [self.tuples[id(it)] for it in made if id(it) in self.tuples]
        depth = 1 + max((it[0] for it in inside), default=0)
        held = len(made) + sum(it[1] for it in inside)
        if depth > MOST_NESTED or held > MOST_HELD:
            raise pickle.UnpicklingError(f"holds {depth} tuples within each other, of {held} items")
        self.tuples[id(made)] = depth, held, made  # and keeps it, so that no other gets its id

    return load


_TUPLES = [code[0] for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)]


class _Unpickler(pickle._Unpickler):
    """The one in Python, since the one in C lets a pickle set attributes of what it names: of ``Path``, for all."""

    def _fill(self: Any) -> None:
        if isinstance(filled := self.stack[-2], type) or type(filled).__module__ not in _FILLED:
            raise pickle.UnpicklingError(f"changes {filled!r}")
        pickle._Unpickler.dispatch[pickle.BUILD[0]](self)

    def __init__(self, file: Any):
        super().__init__(file)
        self.tuples: dict[int, tuple[int, int, Any]] = {}
        """Id of a tuple -> how many lie within each other, items that they hold, itself."""

    dispatch = (
        pickle._Unpickler.dispatch
        | {code: _shallow(pickle._Unpickler.dispatch[code]) for code in _TUPLES}
        | {pickle.BUILD[0]: _fill}
    )

    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"names {module}.{name}")


def verify(folder: Path, rank: int, ranks: int) -> None:
    """Hold a rank's share of a checkpoint's files against their digests.

    Raises:
        Damaged: one is other than it was written, or is not there.
    """
    names = sorted({path.name.removesuffix(DIGEST) for path in folder.iterdir()} | {METADATA})
    for name in names[rank::ranks]:
        path = folder / name
        try:
            written = path.with_name(name + DIGEST).read_bytes().decode(errors="replace")
            found = file_digest(path)
        except FileNotFoundError as error:
            raise Damaged(f"{error.filename} is missing") from None
        if written != found:
            raise Damaged(f"{path} is not as it was written")


def _sign(path: Path) -> None:
    with path.with_name(path.name + DIGEST).open("w") as file:
        file.write(file_digest(path))
        file.flush()
        os.fsync(file.fileno())
