"""A critic of videos, small patch by small patch: the discriminator of pix2pix (arXiv 1611.07004) with a third
dimension, against which an autoencoder is trained."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
"""Slope below zero, as there."""


class PatchCritic(nn.Module):
    """Videos (B, 3, F, H, W) -> answers (B, 1, F', H', W'), each about a patch: larger for what seems real.

    The first layer halves height and width alone, those after it time too; a single frame is a video as well. Group
    norms stand where pix2pix has batch norms, so that an answer depends on no other video of the batch.

    Args:
        width: channels of the first layer, which double with each that follows. layers: that halve.
    """

    def __init__(self, width: int = 32, layers: int = 3):
        super().__init__()
        widths = [3, *(width * 2**number for number in range(layers))]
        self.halving = nn.ModuleList(
            nn.Conv3d(given, made, (3, 4, 4), (1 if number == 0 else 2, 2, 2), 1)
            for number, (given, made) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList([nn.Identity(), *(nn.GroupNorm(8, made) for made in widths[2:])])
        self.last = nn.Conv3d(widths[-1], 1, 3, 1, 1)

    def forward(self, video: Tensor) -> Tensor:
        for convolution, norm in zip(self.halving, self.norms, strict=True):
            video = F.leaky_relu(norm(convolution(video)), LEAK)
        answers: Tensor = self.last(video)
        return answers
