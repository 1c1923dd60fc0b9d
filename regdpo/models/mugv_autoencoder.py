"""The video autoencoder of MUG-V (arXiv 2510.17519), by its published weights' names and shapes.

A picture autoencoder, cut where its own latents would be, makes features of every frame; a second one over time makes
one latent frame of each eight frames, which are encoded without their neighbours. So a clip of 8k + 1 frames has k + 1
latent frames, the first of them for the first frame, repeated eight times.

Kept of the published code, since the weights are used to it: features are multiplied by 0.18215, although the picture
autoencoder is SDXL's; convolutions over time look as far ahead as back, whatever they are called there; the weights
that the cut leaves without use are read and written. Two things are ours. Training and conditions take the posterior's
mode, not a draw. And ``decode`` makes the first frame of the first latent alone and the others of the rest, where the
published pipeline drops that latent and shows its picture instead; ``decode_frames`` is the published decoder, which
expects what lacks to whole groups of eight in front of the last group, where ``encode`` does not put it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, DecoderOutput, DiagonalGaussianDistribution, Encoder
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TEMPORAL = 8
"""Frames of a latent."""
LATENTS_MEAN = (
    -0.0194091796875, 0.09619140625, -0.796875, 0.1591796875, -0.2578125, 0.359375, -0.3203125, -0.287109375,
    -0.0069580078125, 0.3046875, 0.310546875, -0.451171875, -0.1728515625, 0.369140625, 0.2177734375,
    -3.075599670410156e-05, 0.1630859375, -0.267578125, -0.1962890625, -0.1298828125, -0.28515625, -0.515625,
    0.5859375, -0.34375,
)  # fmt: skip
LATENTS_STD = (
    0.8817, 0.6523, 0.9152, 1.2117, 3.3516, 0.7528, 0.8177, 0.8637, 0.9075, 2.8875, 0.8980, 1.1202, 1.0003, 2.5163,
    0.6652, 1.2573, 0.7279, 1.0777, 1.5159, 0.8680, 1.1859, 1.0484, 2.4750, 1.5881,
)  # fmt: skip
"""What the published latents are shifted and divided by; they are in the weights too."""


class Conv(nn.Module):
    """A convolution over time and space whose padding in time is shared out before and after."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = True):
        super().__init__()
        lacking = kernel - stride
        self.padding = (lacking // 2, lacking - lacking // 2)
        side = kernel // 2
        self.conv = nn.Conv3d(inputs, outputs, kernel, (stride, 1, 1), (0, side, side), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (0, 0, 0, 0, *self.padding)))
        return y


class ResBlock(nn.Module):
    """Two convolutions, each after a group norm over all frames it is given."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv1, self.conv2 = Conv(inputs, outputs, bias=False), Conv(outputs, outputs, bias=False)
        if inputs != outputs:
            self.conv3 = Conv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.conv3(x) if hasattr(self, "conv3") else x)


def levels(widths: list[int], inputs: int, count: int, groups: int) -> list[nn.Sequential]:
    """Residual blocks of each level, from ``inputs`` channels on."""
    made = []
    for width in widths:
        made.append(nn.Sequential(*(ResBlock(inputs if i == 0 else width, width, groups) for i in range(count))))
        inputs = width
    return made


class TemporalEncoder(nn.Module):
    """Features (B, D, 8k, H, W) -> (B, 2 C, k, H, W)."""

    def __init__(self, features: int, latents: int, filters: int, multipliers: list[int], count: int, groups: int):
        super().__init__()
        widths = [filters * it for it in multipliers]
        self.conv_in = Conv(features, filters, bias=False)
        self.block_res_blocks = nn.ModuleList(levels(widths, filters, count, groups))
        self.conv_blocks = nn.ModuleList(Conv(width, width, stride=2) for width in widths[:-1])
        self.res_blocks = nn.ModuleList(ResBlock(widths[-1], widths[-1], groups) for _ in range(count))
        self.norm1 = nn.GroupNorm(groups, widths[-1])
        self.conv2 = Conv(widths[-1], 2 * latents, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for number, blocks in enumerate(self.block_res_blocks):
            x = blocks(x)
            if number < len(self.conv_blocks):
                x = self.conv_blocks[number](x)
        for block in self.res_blocks:
            x = block(x)
        y: Tensor = self.conv2(F.silu(self.norm1(x)))
        return y


class TemporalDecoder(nn.Module):
    """Latents (B, C, k, H, W) -> features (B, D, 8k, H, W)."""

    def __init__(self, features: int, latents: int, filters: int, multipliers: list[int], count: int, groups: int):
        super().__init__()
        widths = [filters * it for it in multipliers]
        self.conv1 = Conv(latents, widths[-1])
        self.res_blocks = nn.ModuleList(ResBlock(widths[-1], widths[-1], groups) for _ in range(count))
        self.upsample_block = ResBlock(widths[-1], widths[-1], groups)
        self.block_res_blocks = nn.ModuleList(reversed(levels(widths[::-1], widths[-1], count, groups)))
        self.conv_blocks = nn.ModuleList([nn.Identity(), *(Conv(width, 2 * width) for width in widths[2:])])
        self.norm1 = nn.GroupNorm(groups, filters * multipliers[0])
        self.conv_out = Conv(filters * multipliers[0], features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.res_blocks:
            x = block(x)
        x = self.upsample_block(x.repeat_interleave(2, 2))
        for number in reversed(range(len(self.block_res_blocks))):
            x = self.block_res_blocks[number](x)
            if number > 1:  # the doubling that would be the last was done before the first
                wide = self.conv_blocks[number - 1](x)  # of each channel two frames
                x = wide.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2, 3)
        y: Tensor = self.conv_out(F.silu(self.norm1(x)))
        return y


class Spatial(nn.Module):
    """The picture autoencoder's two halves, from pictures (B, 3, H, W) to features (B, D, H/8, W/8) and back."""

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        self.module = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def encode(self, x: Tensor) -> Tensor:
        """As far as the middle block; the convolution to latents is left out."""
        encoder: Any = self.module["encoder"]
        x = encoder.conv_in(x)
        for block in encoder.down_blocks:
            x = block(x)
        y: Tensor = encoder.mid_block(x)
        return y

    def decode(self, x: Tensor) -> Tensor:
        """From the middle block on; the convolution from latents is left out."""
        decoder: Any = self.module["decoder"]
        x = decoder.mid_block(x)
        for block in decoder.up_blocks:
            x = block(x)
        y: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return y


class Temporal(nn.Module):
    """The autoencoder over time."""

    def __init__(self, features: int, latents: int, filters: int, multipliers: list[int], count: int, groups: int):
        super().__init__()
        self.encoder = TemporalEncoder(features, latents, filters, multipliers, count, groups)
        self.quant_conv = Conv(2 * latents, 2 * latents, 1)
        self.post_quant_conv = Conv(latents, latents, 1)
        self.decoder = TemporalDecoder(features, latents, filters, multipliers, count, groups)


class AutoencoderMugV(ModelMixin, ConfigMixin):
    """Pixels (B, 3, 8k + 1, H, W) in [-1, 1] <-> latents (B, C, k + 1, H/8, W/8) before they are normalised.

    Args:
        block_out_channels, layers_per_block, spatial_latent_channels, norm_num_groups: of the picture autoencoder.
        temporal_filters, temporal_multipliers, temporal_layers, temporal_norm_num_groups: of the one over time.
        scaling_factor: of the features between the two.
        micro_frames: that are decoded together, and encoded one eight after another.
        micro_pictures: that go through the picture autoencoder at once; they do not see each other.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 24,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        spatial_latent_channels: int = 4,
        norm_num_groups: int = 32,
        temporal_filters: int = 128,
        temporal_multipliers: tuple[int, ...] = (1, 2, 2, 4),
        temporal_layers: int = 4,
        temporal_norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
        micro_frames: int = 48,
        micro_pictures: int = 4,
        latents_mean: tuple[float, ...] = LATENTS_MEAN,
        latents_std: tuple[float, ...] = LATENTS_STD,
    ):
        super().__init__()
        count, blocks, groups = len(block_out_channels), tuple(block_out_channels), norm_num_groups
        encoder = Encoder(3, spatial_latent_channels, ("DownEncoderBlock2D",) * count, blocks, layers_per_block, groups)
        decoder = Decoder(spatial_latent_channels, 3, ("UpDecoderBlock2D",) * count, blocks, layers_per_block, groups)
        self.spatial_vae = Spatial(encoder, decoder)
        self.temporal_vae = Temporal(
            blocks[-1],
            latent_channels,
            temporal_filters,
            list(temporal_multipliers),
            temporal_layers,
            temporal_norm_num_groups,
        )
        self.logvar = nn.Parameter(torch.zeros(()))  # of its training, without use here
        self.register_buffer("scale", torch.tensor(latents_std).view(1, -1, 1, 1, 1))
        self.register_buffer("shift", torch.tensor(latents_mean).view(1, -1, 1, 1, 1))

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The posterior of so many frames as there are.

        A single frame more than a multiple of eight is one before its time: the first is repeated. Else what lacks to
        whole groups of eight stands before each stretch of ``micro_frames`` as features of 0.
        """
        repeated = TEMPORAL - 1 if x.shape[2] % TEMPORAL == 1 else 0
        left, parts, first = x, [], repeated
        while left.shape[2]:
            here = self.config["micro_frames"] - first
            features = self._features(left[:, :, :here])
            features = torch.cat([features[:, :, :1].expand(-1, -1, first, -1, -1), features], 2)
            lacking = -features.shape[2] % TEMPORAL
            features = F.pad(features, (0, 0, 0, 0, lacking, 0))
            parts += [self.temporal_vae.encoder(eight) for eight in features.split(TEMPORAL, 2)]
            left, first = left[:, :, here:], 0
        posterior = DiagonalGaussianDistribution(self.temporal_vae.quant_conv(torch.cat(parts, 2)))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """All 8k + 1 frames of k + 1 latents."""
        parts = [self.decode_frames(z[:, :, :1], 1)]
        if z.shape[2] > 1:
            parts.append(self.decode_frames(z[:, :, 1:], TEMPORAL * (z.shape[2] - 1)))
        sample = torch.cat(parts, 2)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def decode_frames(self, z: Tensor, frames: int, together: int | None = None) -> Tensor:
        """Pixels (B, 3, frames, H, W); of each group of latents that is decoded together the first frames are dropped
        that are more than a multiple of eight would leave.

        Args:
            z: (B, C, ceil(frames / 8), H', W').
            together: frames of a group, a multiple of eight; those of the configuration if not given.
        """
        together = together or self.config["micro_frames"]
        parts = []
        for group in z.split(together // TEMPORAL, 2):
            wanted = min(together, frames)
            features = self.temporal_vae.decoder(self.temporal_vae.post_quant_conv(group))
            parts.append(self._pictures(features[:, :, -wanted % TEMPORAL :]))
            frames -= wanted
        return torch.cat(parts, 2)

    def enable_tiling(self) -> None:
        """Nothing: its group norms span a picture, and it works in short stretches of time as it is."""

    def disable_tiling(self) -> None:
        """Nothing, either."""

    def _features(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, F, H, W) -> features (B, D, F, H/8, W/8)."""
        some = _pictures(x).split(self.config["micro_pictures"])
        made = [_recomputed(self.spatial_vae.encode, it) for it in some]
        return _videos(torch.cat(made) * self.config["scaling_factor"], x.shape[2])

    def _pictures(self, features: Tensor) -> Tensor:
        """Features back to pixels."""
        some = (_pictures(features) / self.config["scaling_factor"]).split(self.config["micro_pictures"])
        return _videos(torch.cat([_recomputed(self.spatial_vae.decode, it) for it in some]), features.shape[2])


def _recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """In training of pictures nothing is kept but these: what is computed of them is most of what a window needs."""
    if not torch.is_grad_enabled():
        return function(x)
    y: Tensor = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
    return y


def _pictures(x: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def _videos(x: Tensor, frames: int) -> Tensor:
    """Back."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)
