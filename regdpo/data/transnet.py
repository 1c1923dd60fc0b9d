"""Transitions between shots by TransNetV2 (arXiv 2008.04838, https://github.com/soCzech/TransNetV2): for each frame
whether a transition has its middle there, and whether it is part of one.

The network has the tensors' names of its authors' PyTorch version, so their weights and those converted from them fit.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from regdpo.core.errors import UserError, first_line
from regdpo.data.weight_files import tensors

if TYPE_CHECKING:
    import torch

KEY = "clips.shots.weights"

THRESHOLD = 0.5
"""Probability from which on a frame is a transition: its authors'."""

WIDTH, HEIGHT = 48, 27
"""Of the frames that it sees, ..."""

WINDOW, STEP = 100, 50
"""... so many at a time, of which those in the middle are told."""

BEFORE = (WINDOW - STEP) // 2
WINDOWS = 4
"""That are looked at together."""

DILATIONS, BLOCKS, LAYERS, REACH = (1, 2, 4, 8), 3, 2, 50
"""Of its convolutions in time; stacks, convolutions of each; frames before and after to which a frame is likened."""


class TransNet:
    """Sees one video, frame for frame.

    Args:
        path: the weights, safetensors or torch's.
    """

    def __init__(self, path: Path):
        self.path = path
        self._held: list[np.ndarray] = []
        self._told: list[np.ndarray] = []
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 BGR (H, W, 3).

        Raises:
            UserError: the weights cannot be read, or are another network's.
        """
        small = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
        self._held += [small] * (1 if self._count else 1 + BEFORE)
        self._count += 1
        if len(self._held) == STEP * WINDOWS + WINDOW - STEP:
            self._see(WINDOWS)

    def probabilities(self) -> np.ndarray:
        """Of all frames, float32 (N, 2): of the middle of a transition, and of a part of one. Raises as ``add``."""
        left = self._count - sum(map(len, self._told))
        if left > 0:
            windows = -(-left // STEP)
            self._held += [self._held[-1]] * (STEP * windows + WINDOW - STEP - len(self._held))
            self._see(windows)
        return np.concatenate(self._told)[: self._count]

    def transitions(self, threshold: float | None, gradual: bool) -> list[tuple[int, int]]:
        """Frames [start, end) of each: of no frame where it is a cut before frame ``start``.

        Args:
            threshold: probability; None: the authors'.
            gradual: whether transitions of several frames are more than cuts.
        """
        middle, part = (self.probabilities() > (threshold or THRESHOLD)).T
        found = []
        for start, end in _runs(middle | part if gradual else middle):
            if not middle[start:end].any():
                continue
            # A cut is told at the last frame before it, and as a part at both frames beside it.
            long = gradual and end - start > 2
            cut = int(np.flatnonzero(middle[start:end])[0]) + start + 1
            found.append((start, end) if long else (cut, cut))
        return found

    def _see(self, windows: int) -> None:
        import torch

        frames = np.stack(self._held[: STEP * windows + WINDOW - STEP])
        self._held = self._held[STEP * windows :]
        batch = np.stack([frames[STEP * n : STEP * n + WINDOW] for n in range(windows)])
        try:
            with torch.inference_mode():
                seen = torch.from_numpy(batch).to(next(iter(self._weights.values())).device)
                told = logits(self._weights, seen)[:, BEFORE : BEFORE + STEP].sigmoid()
        except (KeyError, RuntimeError) as error:
            line = f"{KEY}: {self.path} holds no TransNetV2 ({type(error).__name__}: {first_line(error)})"
            raise UserError(line) from None
        self._told.append(told.reshape(-1, 2).cpu().numpy())

    @cached_property
    def _weights(self) -> "dict[str, torch.Tensor]":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return {name: it.to(device) for name, it in tensors(KEY, self.path).items()} or {"": torch.zeros(1)}


def logits(weights: "dict[str, torch.Tensor]", frames: "torch.Tensor") -> "torch.Tensor":
    """Of the network.

    Args:
        weights: by name. frames: uint8 RGB (B, T, 27, 48, 3).

    Returns:
        float32 (B, T, 2): of the middle of a transition, and of a part of one.
    """
    import torch
    from torch.nn import functional as fn

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return fn.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = frames.permute(0, 4, 1, 2, 3).float() / 255
    means = []
    for block in range(BLOCKS):
        first = None
        for layer in range(LAYERS):
            name = f"SDDCNN.{block}.DDCNN.{layer}"
            parts = []
            for far in DILATIONS:
                space, time = (weights[f"{name}.Conv3D_{far}.layers.{n}.weight"] for n in (0, 1))
                y = fn.conv3d(x, space, padding=(0, 1, 1))
                parts.append(fn.conv3d(y, time, padding=(far, 0, 0), dilation=(far, 1, 1)))
            norm = ("running_mean", "running_var", "weight", "bias")
            mean, variance, scale, shift = (weights[f"{name}.bn.{it}"] for it in norm)
            x = fn.batch_norm(torch.cat(parts, 1), mean, variance, scale, shift, eps=1e-3).relu_()
            first = x if first is None else first
        assert first is not None
        x = fn.avg_pool3d(x + first, (1, 2, 2))
        means.append(x.mean((3, 4)))
    looks = fn.normalize(linear(torch.cat(means, 1).transpose(1, 2), "frame_sim_layer.projection"), dim=2)
    seen = [
        linear(_likeness(_colours(frames)), "color_hist_layer.fc").relu(),
        linear(_likeness(looks), "frame_sim_layer.fc").relu(),
        x.permute(0, 2, 3, 4, 1).flatten(2),
    ]
    x = linear(torch.cat(seen, 2), "fc1").relu()
    return torch.cat([linear(x, "cls_layer1"), linear(x, "cls_layer2")], 2)


def _likeness(looks: "torch.Tensor") -> "torch.Tensor":
    """Of frames (B, T, width), each with those up to ``REACH`` before and after it: (B, T, 2 REACH + 1), 0 beyond."""
    import torch

    count = looks.shape[1]
    products = torch.nn.functional.pad(looks @ looks.transpose(1, 2), (REACH, REACH))
    places = torch.arange(count)[:, None] + torch.arange(2 * REACH + 1)
    return products.gather(2, places.to(looks.device).expand(len(looks), -1, -1))


def _colours(frames: "torch.Tensor") -> "torch.Tensor":
    """How often each of 8 x 8 x 8 colours occurs, of length 1: uint8 (B, T, H, W, 3) to (B, T, 512)."""
    import torch

    steps = (frames >> 5).long()
    colours = (steps[..., 0] * 64 + steps[..., 1] * 8 + steps[..., 2]).flatten(2)
    counts = torch.zeros(*colours.shape[:2], 512, device=frames.device)
    counts.scatter_add_(2, colours, torch.ones_like(colours, dtype=counts.dtype))
    return torch.nn.functional.normalize(counts, dim=2)


def _runs(true: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last of each run."""
    edges = np.flatnonzero(np.diff(true.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
