"""What this machine makes of small computations of every kind that results are made of, as digests: two machines whose
results differ are compared by these first.

Inputs are made of integers alone, so that a difference is the computation's own.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import fft, special
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from regdpo.config.schema import Encode
from regdpo.core.digests import file_digest
from regdpo.core.temporaries import scratch
from regdpo.data.video import read_frames, write_frames
from regdpo.models import device

Kernels = dict[str, Callable[[], Any]]


def digests() -> dict[str, str]:
    """Name of a computation -> digest of what came out. The CPU computes."""
    device.cpu()
    return {name: _digest(kernel()) for name, kernel in (_torch() | _numpy() | _pictures()).items()}


def array(*shape: int, seed: int = 1) -> np.ndarray:
    """Numbers in [-2, 2) that look drawn, the same everywhere: float64, of ``shape``."""
    count = math.prod(shape)
    drawn = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435761 * seed)) % np.uint64(2**32)
    mixed = ((drawn ^ (drawn >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(2**32)
    return (mixed.astype(np.float64) / 2**30 - 2).reshape(shape)


def tensor(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same as a tensor."""
    return torch.from_numpy(array(*shape, seed=seed)).to(dtype)


def _digest(found: Any) -> str:
    parts = found if isinstance(found, tuple | list) else [found]
    arrays = [part.detach().float().numpy() if isinstance(part, Tensor) else np.asarray(part) for part in parts]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in arrays)).hexdigest()[:16]


def _torch() -> Kernels:
    a, b, positive = tensor(64, 96), tensor(96, 48, seed=3), tensor(1000).abs() + 0.001
    q, k, v = (tensor(2, 2, 40, 16, seed=seed) for seed in (5, 7, 11))
    found: Kernels = {
        "randn": lambda: torch.randn(1000, generator=torch.Generator().manual_seed(0)),
        "mm": lambda: a @ b,
        "mm, float64": lambda: (a.double() @ b.double()).numpy(),
        "mm, large": lambda: tensor(300, 500) @ tensor(500, 200, seed=3),
        "mm, bf16": lambda: a.bfloat16() @ b.bfloat16(),
        "bmm": lambda: q @ k.mT,
        "linear": lambda: F.linear(a, b.T, b[0]),
        "sum": lambda: tensor(100_000).sum(),
        "mean and variance": lambda: (a.mean(1), a.var(1), a.norm()),
        "softmax": lambda: a.softmax(-1),
        "layer norm": lambda: F.layer_norm(a, (96,)),
        "gelu, silu": lambda: (F.gelu(a), F.gelu(a, approximate="tanh"), F.silu(a)),
        "exp, log": lambda: (a.exp(), positive.log(), a.double().exp().numpy()),
        "sin, cos, tanh": lambda: (a.sin(), a.cos(), a.tanh()),
        "sqrt": lambda: (positive.sqrt(), positive.rsqrt(), positive.double().sqrt().numpy()),
        "pow": lambda: positive**1.7,
        "attention": lambda: _backward(F.scaled_dot_product_attention, q, k, v),
        "attention, bf16": lambda: F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16()),
        "conv3d": lambda: _backward(
            lambda x, w: F.conv3d(x, w, stride=(1, 2, 2)), tensor(2, 3, 5, 16, 16), tensor(8, 3, 1, 2, 2, seed=3)
        ),
        "conv3d, padded": lambda: _backward(
            lambda x, w: F.conv3d(x, w, padding=1), tensor(2, 4, 5, 8, 8), tensor(8, 4, 3, 3, 3, seed=3)
        ),
        "fft": lambda: torch.view_as_real(torch.fft.rfft2(tensor(4, 16, 16))),
        "eigh": lambda: [part.numpy() for part in torch.linalg.eigh(a.double().T @ a.double())],
        "three steps of AdamW": _three_steps,
    }
    return found


def _backward(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of the inputs."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    out = function(*leaves)
    return [out, *torch.autograd.grad(out.square().mean(), leaves)]


def _three_steps() -> list[Tensor]:
    net = nn.Sequential(nn.Linear(96, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 8))
    with torch.no_grad():
        for number, one in enumerate(net.parameters(), start=1):
            one.copy_(tensor(*one.shape, seed=2 * number + 1) / 8)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        net(tensor(64, 96)).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    return list(net.parameters())


def _numpy() -> Kernels:
    a, positive = array(120, 90), np.abs(array(1000)) + 0.001
    return {
        "numpy: product": lambda: [a @ a.T, a.astype(np.float32) @ a.T.astype(np.float32)],
        "numpy: sum": lambda: [a.sum(), a.mean(0), a.std(1), a.astype(np.float32).sum()],
        "numpy: exp, log": lambda: [np.exp(a), np.log(positive), np.log10(positive), np.exp(a.astype(np.float32))],
        "numpy: sin, tanh": lambda: [np.sin(a), np.cos(a), np.tanh(a), np.sin(a.astype(np.float32))],
        "numpy: svd": lambda: np.linalg.svd(a)[1],
        "scipy: fft": lambda: fft.rfftn(array(9, 16, 16).astype(np.float32)),
        "scipy: Student's t": lambda: special.stdtrit(7, np.linspace(0.01, 0.99, 50)),
        "math": lambda: [[math.exp(x), math.sin(x), math.log(abs(x) + 1), abs(x) ** 1.7] for x in a[0]],
    }


def _pictures() -> Kernels:
    frames = ((array(9, 48, 64, 3) + 2) * 63).astype(np.uint8)
    frames = np.stack([cv2.blur(frame, (9, 9)) for frame in frames])
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    small = (40, 30)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return {
        "OpenCV: gray": lambda: gray,
        "OpenCV: resize": lambda: (
            [cv2.resize(gray[0].astype(np.float32), small, interpolation=cv2.INTER_AREA)]
            + [cv2.resize(frames[0], small, interpolation=how) for how in (cv2.INTER_AREA, cv2.INTER_CUBIC)]
        ),
        "OpenCV: Laplacian": lambda: [cv2.Laplacian(gray[0], cv2.CV_64F), *cv2.meanStdDev(gray[0])],
        "OpenCV: flow": lambda: flow.calc(gray[0], np.roll(gray[0], 2, 1), np.zeros((48, 64, 2), np.float32)),
        "scikit-image: SSIM": lambda: structural_similarity(frames[0], frames[1], channel_axis=2),
        "ffmpeg: clip": lambda: _clip(frames),
    }


def _clip(frames: np.ndarray) -> list[np.ndarray]:
    """The file's bytes, and its pictures."""
    with scratch() as folder:
        path = Path(folder, "clip.mp4")
        write_frames(path, frames, 25, Encode())
        return [np.frombuffer(file_digest(path).encode(), np.uint8), read_frames(path)]
