"""The device of a stage that runs in one process, and the types it computes in."""

from contextlib import ExitStack

import torch

from regdpo.runtime.gpus import gpus_work, taken

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By their names in the configuration."""
_TO_THE_END = ExitStack()
"""Of the process."""


def pick(asked: str) -> torch.device:
    """A GPU of its own where there are any and ``launch.device`` allows it, else the CPU with one thread, whose results
    do not depend on how many cores a machine has.

    Args:
        asked: ``launch.device``.
    """
    if asked != "cpu" and gpus_work():
        (number,) = _TO_THE_END.enter_context(taken(1))
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return torch.device("cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """What models that are not trained run in: bf16 on a GPU, fp32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
