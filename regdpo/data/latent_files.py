"""Reading what data/latents.py wrote; apart from it, so that a change of the encoding is none of the training."""

from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store

DRAWS = ".draws"
"""Ends the name of a tensor (n, ...) that training chooses from in the place of the one that is named."""


def read_latents(row: LatentRow, store: Store) -> dict[str, Tensor]:
    """The tensors of an encoded pair, of the bytes that the manifest names.

    Raises:
        UserError: the file is missing or damaged; the pair is named.
    """
    return _read(row, row.path, row.sha256, store)


def read_empty_caption(row: LatentRow, store: Store) -> dict[str, Tensor]:
    """What the denoiser is given of an empty caption.

    Raises:
        UserError: as above.
    """
    return _read(row, row.empty, row.empty_sha256, store)


def latent_shapes(row: LatentRow, store: Store) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of an encoded pair, from the file's header; a file that was cut off is found by it.

    Raises:
        UserError: as above.
    """
    try:
        with safe_open(_path(row, row.path, store), "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(row, row.path, store, str(error)) from None


def _read(row: LatentRow, path: str, digest: str, store: Store) -> dict[str, Tensor]:
    try:
        data = _path(row, path, store).read_bytes()
        if (found := sha256(data).hexdigest()) != digest:
            raise _damaged(row, path, store, f"sha256 {found[:12]}, its manifest says {digest[:12]}")
        return load(data)
    except (OSError, SafetensorError) as error:
        raise _damaged(row, path, store, str(error)) from None


def _path(row: LatentRow, path: str, store: Store) -> Path:
    try:
        return store.existing(path)
    except UserError as error:
        raise UserError(f"pair {row.pair_id}: {error}") from None


def _damaged(row: LatentRow, path: str, store: Store, reason: str) -> UserError:
    return UserError(f"pair {row.pair_id}: {store.damaged(path, reason)}")
