"""The attention backend, among those that can train on this device: the fastest that was measured on such a GPU."""

import json
import os
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from regdpo.core.errors import UserError

FLASH = ("flash", "_flash_3_hub", "_native_flash", "_native_cudnn", "native")
"""diffusers' names, in the order they are tried on CUDA in half precision: the flash-attn package, FlashAttention-3 in
the build that has a backward pass, torch's flash and cuDNN kernels, torch's own choice. Backends without a backward
pass (sage, `_flash_3`) are not among them."""
IN_NO_ORDER = ("flash", "_flash_3_hub", "_native_cudnn")
"""Those whose backward pass adds up in no fixed order."""
TOKENS, HEADS, REPEATS = 8192, 16, 10
"""What is timed. Longer sequences take the same kernels."""
ALIKE = 0.97
"""A later backend is taken only if it needs less than this share of an earlier one's time."""


def choose(
    model: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    wanted: str = "auto",
    flash: bool = True,
    deterministic: bool = False,
) -> str:
    """Set the model's attention backend and return its name, the same on all ranks.

    Args:
        wanted: a backend of ``FLASH``, or ``auto`` for the fastest that is there; without CUDA or in full precision
            that is torch's scaled dot product attention.
        flash: whether the model can be given any but that: one that masks its attention, or calls it directly, cannot.
        deterministic: leave out those whose backward pass adds up in no fixed order, and take the first of the others,
            whichever is the fastest.

    Raises:
        UserError: the wanted one is not to be had here.
    """
    if not flash:
        if wanted not in ("auto", "native"):
            raise UserError(f"train.settings.parallel.attention: this model takes `native` alone, not {wanted}")
        return "native"
    half = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if wanted != "auto":
        asked: tuple[str, ...] = (wanted,)
    elif half:  # FlashAttention-3 is fetched from a hub: only who asks for it gets it
        asked = tuple(name for name in FLASH if name != "_flash_3_hub")
    else:
        asked = ("native",)
    reason, there = "", []
    for backend in asked:
        if deterministic and backend in IN_NO_ORDER:
            reason = "its backward pass is not deterministic"
            continue
        try:
            model.set_attention_backend(backend)  # type: ignore[operator]
        except (RuntimeError, ImportError, ValueError) as error:  # diffusers' ways of saying that it is not there
            reason = str(error).strip().splitlines()[0]
            continue
        there.append(backend)
    if not there:
        raise UserError(f"train.settings.parallel.attention: {wanted} is not to be had here ({reason}); take `auto`")
    taken = there[0]
    if len(there) > 1 and not deterministic:
        config: Any = model.config
        head_dim = config.attention_head_dim
        timer = partial(seconds, device=device, dtype=dtype, head_dim=head_dim)
        taken = agreed(lambda: fastest(there, _circumstances(device, dtype, head_dim), timer, remembered()))
    model.set_attention_backend(taken)  # type: ignore[operator]
    return taken


def fastest(backends: list[str], circumstances: str, timer: Callable[[str], float], file: Path) -> str:
    """The backend of the least time for a forward and a backward pass; measured once and then read from a file.

    Args:
        backends: the one before wins unless a later one is clearly faster. circumstances: what the times depend on.
        timer: seconds of a backend; RuntimeError if it cannot run after all.
    """
    known: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError, AttributeError):  # nothing was measured, or it is not ours
        known = dict(json.loads(file.read_text()).items())
    times = known.get(circumstances)
    if not isinstance(times, dict) or not set(backends) <= times.keys():
        times = {}
        for backend in backends:
            times[backend] = float("inf")
            with suppress(RuntimeError):
                times[backend] = timer(backend)
        with suppress(OSError):  # a read-only home measures again the next time
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{file.name}.{os.getpid()}")
            temporary.write_text(json.dumps(known | {circumstances: times}, indent=2))
            os.replace(temporary, file)
    best = backends[0]
    for backend in backends[1:]:
        if times[backend] < ALIKE * times[best]:
            best = backend
    return best


def agreed(decide: Callable[[], str]) -> str:
    """What the first rank decides, on all ranks; they may have GPUs of different speed."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return decide()
    shared = [decide() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(shared, 0)
    return shared[0]


def remembered() -> Path:
    """Where the times are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regdpo" / "attention.json"


def seconds(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> float:
    """Median of a forward and backward pass of self-attention on a CUDA device."""
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    shape = (1, TOKENS, HEADS, head_dim)
    query, key, value = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape, device=device, dtype=dtype)
    times = []
    for turn in range(REPEATS + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        dispatch_attention_fn(query, key, value, backend=AttentionBackendName(backend)).backward(gradient)
        end.record()
        end.synchronize()
        if turn >= 3:  # the first choose and compile kernels
            times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def _circumstances(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    packages = dict.fromkeys(("torch", "diffusers", "flash-attn"), "none")
    for name in packages:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    what = [torch.cuda.get_device_name(device), str(dtype), f"heads of {head_dim}"]
    return ", ".join([*what, *(f"{name} {number}" for name, number in packages.items())])
