"""ONNX files of the user's, run by onnxruntime: they are graphs of known operators, not programs."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regdpo.core import portable
from regdpo.core.errors import UserError, first_line

CUDA = "CUDAExecutionProvider"


def errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; the kinds have no parent of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(it for it in vars(state).values() if isinstance(it, type) and issubclass(it, Exception))


def runtime(key: str) -> None:
    """Refuse what cannot be run here.

    Raises:
        UserError: onnxruntime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise UserError(f"{key}: onnxruntime is not installed here; run `make filters`")


def load(key: str, path: Path, inputs: Sequence[int]) -> Any:
    """An ``onnxruntime.InferenceSession``, on a GPU if the installed onnxruntime is built for one that is here.

    Args:
        key: of the configuration, for the reader. path: the file. inputs: number of axes of each of its inputs.

    Raises:
        UserError: it is no ONNX file, or one of a model with other inputs.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if portable.active() else len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other jobs use the same CPUs
    options.log_severity_level = 4
    here = [name for name in (CUDA, "CPUExecutionProvider") if name in ort.get_available_providers()]
    try:
        session = ort.InferenceSession(path, options, providers=here)
    except errors() as error:
        raise UserError(f"{key}: {path} cannot be loaded ({first_line(error)})") from None
    found = [len(it.shape) for it in session.get_inputs()]
    if found != list(inputs):
        shown = ", ".join(f"{it.name} {it.shape}" for it in session.get_inputs())
        raise UserError(f"{key}: {path} is another model: its inputs are {shown}")
    return session
