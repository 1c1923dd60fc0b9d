"""A checkpoint that somebody else wrote, or that a disk has changed."""

import io
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path, PosixPath

import pytest
import tiny
import torch
from test_trainer import alone, opened  # noqa: F401
from torch.distributed.checkpoint import FileSystemReader

from regdpo.core.errors import UserError
from regdpo.train.checkpoint_files import DIGEST, METADATA, MOST_ITEM, Reader, _sign

NESTED = b")" + b"\x85" * 500_000
"""A pickle's half a million tuples within each other."""
BROAD = b")\x94" + b"".join(b"0(" + bytes([ord("h"), level]) * 8 + b"t\x94" for level in range(20))
"""Twenty, each of the one before eight times over."""


class Evil:
    """What runs when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory, alone):  # noqa: F811
    """Two checkpoints, of steps 2 and 4, and the best of 4."""
    run = tmp_path_factory.mktemp("run")
    trainer = opened(tiny.job(world, run, objective="sft", export="best", eval_every=4))
    trainer.train()
    return trainer


@pytest.fixture
def trainer(trained, tmp_path, monkeypatch):
    """With checkpoints that a test may harm."""
    folder = shutil.copytree(trained.checkpoints.folder, tmp_path / "checkpoints")
    monkeypatch.setattr(trained.checkpoints, "folder", folder)
    return trained


def test_a_strangers_metadata_runs_nothing(trainer, tmp_path):
    path = trainer.checkpoints.folder / "step_0000004" / METADATA
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    _sign(path)
    with pytest.raises(UserError, match=rf"^{path}: is not what a training of ours writes \(names posix.mkdir\); "):
        trainer.checkpoints.load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", [b"", b"\x80\x04]\x94.", b"(", b"ctorch\nfloat32\n.", b"\x80\x04K\x01a."])
def test_a_metadata_that_is_none(trainer, text):
    path = trainer.checkpoints.folder / "step_0000004" / METADATA
    path.write_bytes(text)
    _sign(path)
    with pytest.raises(UserError, match="is not what a training of ours writes"):
        trainer.checkpoints.load()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\x80\x02cpathlib\nPosixPath\nN}X\x04\x00\x00\x00nameX\x04\x00\x00\x00evils\x86b.", id="a class"),
        pytest.param(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".", id="4 EiB"),
        pytest.param(b"\x80\x04\x8d" + (2**63).to_bytes(8, "little") + b".", id="more than there is"),
        pytest.param(b"\x80\x04}" + NESTED + b"K\x01s.", id="a key that is nested deeply"),
        pytest.param(b"\x80\x04}" + BROAD + b"K\x01s.", id="a key that is met a billion times"),
        pytest.param(b"\x80\x04ctorch.serialization\n_get_layout\n" + NESTED + b"\x85R.", id="asked for by such a key"),
    ],
)
def test_a_metadata_that_harms_without_code(tmp_path, text):
    """It sets an attribute of a class that it may name, says that it holds more than memory does, or has Python end at
    the bottom of its stack."""
    (tmp_path / METADATA).write_bytes(text)
    with pytest.raises(UserError, match="is not what a training of ours writes"):
        Reader(tmp_path).read_metadata()
    assert PosixPath("there").name == "there"


def test_a_metadata_that_names_files_elsewhere(trainer):
    folder = trainer.checkpoints.folder / "step_0000004"
    metadata = FileSystemReader(folder).read_metadata()
    for item in metadata.storage_data.values():
        item.relative_path = "../step_0000002/__0_0.distcp"
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    _sign(folder / METADATA)
    with pytest.raises(UserError, match=r"names the file \.\./step_0000002"):
        trainer.checkpoints.load()


@pytest.mark.parametrize("kind", ["code", "nested", "large"])
def test_a_strangers_item_harms_nothing(trainer, tmp_path, kind):
    """Torch loads what is no tensor, such as the optimiser's rate, from a pickle of its own."""
    folder = trainer.checkpoints.folder / "step_0000004"
    shard = folder / "__0_0.distcp"
    metadata = FileSystemReader(folder).read_metadata()
    index = next(index for index in metadata.storage_data if index.fqn.endswith(".betas"))
    item = metadata.storage_data[index]
    item.offset = shard.stat().st_size
    saved = io.BytesIO()
    torch.save(Evil(tmp_path / "ran") if kind == "code" else "x" * MOST_ITEM, saved)
    with shard.open("ab") as file:
        file.write(saved.getvalue() if kind != "nested" else with_pickle(saved, b"\x80\x02}" + NESTED + b"K\x01s."))
        item.length = file.tell() - item.offset
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    _sign(shard)
    _sign(folder / METADATA)
    with pytest.raises(UserError, match=rf"^{folder}: holds more than a training of ours writes; "):
        trainer.checkpoints.load()
    assert not (tmp_path / "ran").exists()


def with_pickle(saved: io.BytesIO, text: bytes) -> bytes:
    """What ``torch.save`` wrote, with another pickle in it."""
    changed = io.BytesIO()
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, text if name.endswith("data.pkl") else old.read(name))
    return changed.getvalue()


@pytest.mark.parametrize("name", ["__0_0.distcp", METADATA, f"__0_0.distcp{DIGEST}"])
def test_a_damaged_checkpoint_is_put_aside(trainer, capsys, name):
    """The training goes on from the one before."""
    folder = trainer.checkpoints.folder
    path = folder / "step_0000004" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    shutil.copytree(folder / "step_0000002", folder / ".step_0000006")  # was being written when it was killed
    assert trainer.checkpoints.load() == 2
    told = str(path.with_name(name.removesuffix(DIGEST)))
    assert f"{told} is not as it was written; step_0000004 is put aside, the one before it" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["damaged_step_0000004", "step_0000002"]
    (folder / "step_0000002" / "__0_0.distcp").unlink()
    assert trainer.checkpoints.load() == 0
    assert "__0_0.distcp is missing" in capsys.readouterr().err


def test_damaged_best_weights_are_not_exported(trainer):
    path = trainer.checkpoints.folder / "best_0000004" / "__0_0.distcp"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))} is not as it was written; .*export: last"):
        trainer.checkpoints.load_best()
