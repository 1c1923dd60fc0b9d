"""The device of a stage that runs in one process, and the types it computes in."""

import warnings
from contextlib import ExitStack
from functools import cache

import numpy as np
import torch

from regdpo.core import portable
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
    return cpu()


def cpu() -> torch.device:
    """The CPU, with one thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # preference gradients underflow, and denormals are slow
    if portable.active():
        _exact_roots()
    return torch.device("cpu")


def hardware(device: torch.device) -> str:
    """The GPU or processor that numbers made on a device hold for; empty: they are portable."""
    return "" if device.type == "cpu" and portable.active() else machine(device)


def machine(device: torch.device) -> str:
    """The GPU or processor that a device is, by its maker's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else portable.processor()


@cache
def _exact_roots() -> torch.library.Library:
    """Have torch take square roots by the processor's own instruction, whose result IEEE 754 fixes. MKL's, which it
    takes else, begin from an estimate (``rsqrtps``) that each maker's processors round otherwise."""

    def root(x: torch.Tensor) -> torch.Tensor:
        exact = x.detach().to(torch.float32 if x.dtype.itemsize < 4 else x.dtype).numpy()
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return torch.from_numpy(np.asarray(np.sqrt(exact))).to(dtype)

    def root_(x: torch.Tensor) -> torch.Tensor:
        return x.copy_(root(x))

    def root_out(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        return out.resize_(x.shape).copy_(root(x))

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators")  # that it replaces one
        for name, function in {"sqrt": root, "sqrt_": root_, "sqrt.out": root_out}.items():
            library.impl(name, function, "CPU", allow_override=True)
    return library


def compute_dtype(device: torch.device) -> torch.dtype:
    """What models that are not trained run in: bf16 on a GPU, fp32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
