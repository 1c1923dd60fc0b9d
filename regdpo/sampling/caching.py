"""diffusers' caches in our loop: what of earlier steps is used again in the place of computing it.

A cache lives as long as one group is denoised, so that a video never depends on what was rendered before, and keeps the
two passes of guidance apart.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from regdpo.config.schema import Cache

During = Callable[[str, Tensor], AbstractContextManager[Any]]
"""Of a pass's name and its timestep (0..1000)."""


def transformers(denoiser: nn.Module) -> list[Any]:
    """diffusers' models in a denoiser: itself, or both experts."""
    return [part for part in denoiser.modules() if isinstance(part, CacheMixin)]


@contextmanager
def cached(denoiser: nn.Module, cache: Cache) -> Iterator[During]:
    """Have a cache in the denoiser, or in both experts, and nothing of it afterwards; in between, every pass of the
    denoiser runs in what this yields."""
    if cache.kind == "off":
        yield lambda name, timestep: nullcontext()
        return
    parts = transformers(denoiser)
    now = [0.0]
    try:
        for part in parts:
            part.enable_cache(_config(cache, lambda: now[0]))
        yield lambda name, timestep: _in_pass(parts, name, now, timestep)
    finally:
        for part in parts:
            if part.is_cache_enabled:
                part.disable_cache()


@contextmanager
def _in_pass(parts: list[Any], name: str, now: list[float], timestep: Tensor) -> Iterator[None]:
    now[0] = float(timestep)
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(part.cache_context(name))
        yield


def _config(cache: Cache, timestep: Callable[[], float]) -> Any:
    if cache.kind == "first_block":
        return FirstBlockCacheConfig(threshold=cache.threshold)
    if cache.kind == "taylorseer":
        # `use_lite_mode`: blocks are left out whole and their last projection is extrapolated. The other mode looks for
        # attention by names that are not those of Wan, LTX-Video and CogVideoX, and would change nothing there.
        return TaylorSeerCacheConfig(
            cache_interval=cache.interval,
            disable_cache_before_step=cache.warmup,
            max_order=cache.order,
            taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
        )
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=cache.interval, current_timestep_callback=timestep
    )
