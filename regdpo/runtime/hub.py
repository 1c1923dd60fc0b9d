"""Checkpoints of the hub as folders of its cache, so that who loads one asks no network."""

import socket
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError

from regdpo.core.errors import UserError, first_line

FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What is taken of a checkpoint: no pickles, no code."""

BROKEN = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
"""What the libraries raise over a checkpoint whose files are damaged or do not fit each other."""


def download(key: str, name: str, revision: str | None) -> Path:
    """The folder of a checkpoint, downloaded if it is not there. For one that is, by its commit, nothing is asked.

    Args:
        key: of the configuration, for the reader.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"{key}: {name} at {revision} cannot be had ({first_line(error)})") from None


def listed(key: str, name: str, revision: str | None, wanted: Sequence[str]) -> set[str]:
    """Those of some files that a checkpoint of the hub has; nothing is downloaded, and nothing asked where all are in
    the cache.

    Args:
        key: of the configuration, for the reader.

    Raises:
        UserError: it cannot be asked.
    """
    if all(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in wanted):
        return set(wanted)
    try:
        return set(HfApi().list_repo_files(name, revision=revision)) & set(wanted)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"{key}: {name} at {revision} cannot be had ({first_line(error)})") from None


def folder_of(key: str, name: str, revision: str | None) -> Path:
    """That of a local checkpoint, or of one of the hub.

    Raises:
        UserError: it cannot be had.
    """
    return Path(name) if Path(name).is_dir() else download(key, name, revision)


def cached(key: str, name: str, revision: str | None) -> Path:
    """The folder of a checkpoint that was downloaded before.

    Raises:
        UserError: it was not, or not to where this machine looks.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{key}: {name} at {revision} is not, or not whole, in the hub's cache of {socket.gethostname()} "
            f"({constants.HF_HUB_CACHE}); set HF_HOME to a folder that the nodes share and, where there is a network, "
            f"run: hf download {name} --revision {revision}"
        ) from None
