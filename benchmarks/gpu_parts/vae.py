"""Wan's autoencoder, its real architecture with random weights: encoding and decoding 81 frames."""

from functools import partial
from typing import Any

import rig
import torch
from diffusers import AutoencoderKLWan

from gpu_parts.bench import Bench

FRAMES = 81
SMALL = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
TILES = {"tile_sample_min_height": 32, "tile_sample_min_width": 32} | {
    "tile_sample_stride_height": 24,
    "tile_sample_stride_width": 24,
}
WAYS = [
    (480, 832, "bf16", False),
    (480, 832, "fp32", False),
    (480, 832, "fp32 without TF32", False),
    (720, 1280, "bf16", False),
    (480, 832, "bf16", True),
    (720, 1280, "fp32", True),
    (720, 1280, "bf16", True),
    (720, 1280, "fp32", False),
    (480, 832, "fp32", True),
]
"""Height, width, precision, tiled; the most valuable first."""


def measure(bench: Bench) -> None:
    ways = [(32, 64, *way[2:]) for way in WAYS[:1] + WAYS[-1:]] if bench.dry else WAYS
    with torch.device(bench.device):
        vae = AutoencoderKLWan(**SMALL if bench.dry else {}).eval().requires_grad_(False)
    for height, width, precision, tiled in ways:
        torch.backends.cudnn.allow_tf32 = "without" not in precision
        vae.to(torch.bfloat16 if precision == "bf16" else torch.float32)
        vae.disable_tiling()
        if tiled:
            vae.enable_tiling(**TILES if bench.dry else {})
        for what in ("encode", "decode"):
            about = {"what": what, "size": f"{height}x{width}", "precision": precision, "tiled": tiled}
            bench.row(partial(_one, bench, vae, what, height, width), needs=0 if bench.dry else 8, **about)


@torch.no_grad()
def _one(bench: Bench, vae: Any, what: str, height: int, width: int) -> dict[str, Any]:
    frames = 5 if bench.dry else FRAMES
    source = torch.Generator(bench.device).manual_seed(0)
    latent = (1, vae.config.z_dim, (frames - 1) // 4 + 1, height // 8, width // 8)
    shape = (1, 3, frames, height, width) if what == "encode" else latent

    def run(length: int) -> Any:
        given = torch.randn(*shape[:2], length, *shape[3:], generator=source, device=bench.device, dtype=vae.dtype)
        return vae.encode(given).latent_dist.mode() if what == "encode" else vae.decode(given, return_dict=False)[0]

    run(5 if what == "encode" else 2)  # warm
    meter = rig.Memory(bench.device)
    held = meter.held
    took = rig.seconds(lambda: run(shape[2]), bench.device)
    memory = {"peak, GiB": meter.peak / 2**30, "of it weights, GiB": held / 2**30}
    return {"seconds": took, "frames a second": frames / took, **memory}
