"""Reading what data/latents.py wrote; apart from it, so that a change of the encoding is none of the training."""

from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from regdpo.errors import UserError
from regdpo.store import Store
from regdpo.tables import LatentRow


def read_latents(row: LatentRow, store: Store) -> dict[str, Tensor]:
    """The tensors of an encoded pair, of the bytes that the manifest names.

    Raises:
        UserError: the file is missing or damaged; the pair is named.
    """
    try:
        data = _path(row, store).read_bytes()
        if (found := sha256(data).hexdigest()) != row.sha256:
            raise _damaged(row, store, f"sha256 {found[:12]}, its manifest says {row.sha256[:12]}")
        return load(data)
    except (OSError, SafetensorError) as error:
        raise _damaged(row, store, str(error)) from None


def latent_shapes(row: LatentRow, store: Store) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of an encoded pair, from the file's header; a file that was cut off is found by it.

    Raises:
        UserError: as above.
    """
    try:
        with safe_open(_path(row, store), "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(row, store, str(error)) from None


def _path(row: LatentRow, store: Store) -> Path:
    try:
        return store.existing(row.path)
    except UserError as error:
        raise UserError(f"pair {row.pair_id}: {error}") from None


def _damaged(row: LatentRow, store: Store, reason: str) -> UserError:
    return UserError(f"pair {row.pair_id}: {store.damaged(row.path, reason)}")
