"""The denoiser of VideoCrafter2 and T2V-Turbo: a UNet over frames whose levels alternate convolutions, attention within
a frame and attention along time (arXiv 2401.09047; 2405.18750).

Parameters have the names of the published weights, one misspelling among them. What those weights need and a reader
would not expect:

- nothing tells attention the order of the frames: only the convolutions along time know it;
- both attentions of a block along time are self-attentions, and the text enters within frames alone;
- the first attention along time has 8 heads whatever the width, and its ends are convolutions;
- every normalisation has 32 groups. Those of convolutions and of attention along time take all frames of a video
  together, the others one frame at a time;
- T2V-Turbo's guidance is added to the sinusoids of the timestep, before the layers that embed them.

The original drops a tenth of what the convolutions along time compute, in training. Nothing is dropped here: a policy
and its reference would differ by what was drawn.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn

GROUPS = 32
FIRST_HEADS = 8
"""Of the attention along time that follows the first convolution."""


def sinusoids(values: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(B,) -> (B, width): cosines, then sines, of ``v 10000^(-2k / width)``; computed in fp32, or in fp64 if wanted."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    half = width // 2
    steps = torch.arange(half, device=values.device, dtype=exact)
    angles = values.to(exact)[:, None] * torch.exp(-math.log(10000) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width), fp64: sines, then cosines, of ``1000 w 10000^(-k / (width / 2 - 1))``, w the scale itself.

    The phases go beyond 10,000, where the original's fp32 leaves the third digit to the processor's exponential. Of its
    roundings the one that is the same everywhere is kept, that of the exponent's factor.
    """
    half = width // 2
    rate = float(np.float32(math.log(10000) / (half - 1)))
    frequencies = torch.exp(-rate * torch.arange(half, dtype=torch.float64, device=scale.device))
    angles = 1000 * scale.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _video(x: Tensor, frames: int) -> Tensor:
    """(B F, C, H, W) -> (B, C, F, H, W)."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def _frames(x: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


class _TimeConvolutions(nn.Module):
    """Four convolutions along time; each of the last three leaves a place for the original's dropout."""

    def __init__(self, channels: int):
        super().__init__()
        for number in range(1, 5):
            parts: list[nn.Module] = [nn.GroupNorm(GROUPS, channels), nn.SiLU()]
            parts += [nn.Identity()] if number > 1 else []
            parts.append(nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0)))
            self.add_module(f"conv{number}", nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for part in self.children():
            h = part(h)
        return x + h


class _Residual(nn.Module):
    def __init__(self, channels: int, embedding: int, out: int):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        self.temopral_conv = _TimeConvolutions(out)  # so spelt in the weights

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor, frames: int) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding).repeat_interleave(frames, 0)[:, :, None, None]
        h = self.skip_connection(x) + self.out_layers(h)
        return _frames(self.temopral_conv(_video(h, frames)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, given: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(given, width, bias=False), nn.Linear(given, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Identity())

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        q, k, v = (
            layer(value).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.to_q, x), (self.to_k, given), (self.to_v, given))
        )
        answer: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return answer


class _Gated(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class _FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(_Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, given: int):
        super().__init__()
        self.attn1 = _Attention(width, heads, width)
        self.ff = _FeedForward(width)
        self.attn2 = _Attention(width, heads, given)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        h = self.norm2(x)
        x = x + self.attn2(h, h if given is None else given)
        return x + self.ff(self.norm3(x))


class _Transformer(nn.Module):
    """Attention within frames, to the text too; or along time.

    Args:
        text: its width; None for attention along time. convolved: the ends are convolutions of one token.
    """

    def __init__(self, channels: int, heads: int, head: int, text: int | None, convolved: bool = False):
        super().__init__()
        width, self.along_time = heads * head, text is None
        end: Any = _Pointwise if convolved else nn.Linear
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = end(channels, width)
        self.transformer_blocks = nn.ModuleList([_Block(width, heads, width if text is None else text)])
        self.proj_out = end(width, channels)

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor, frames: int) -> Tensor:
        (block,), size = self.transformer_blocks, x.shape[2:]
        if self.along_time:
            h = self.norm(_video(x, frames)).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B H W, F, C)
            h = self.proj_out(block(self.proj_in(h), None))
            return x + h.unflatten(0, (-1, *size)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B F, H W, C)
        h = self.proj_out(block(self.proj_in(h), text.repeat_interleave(frames, 0)))
        return x + h.transpose(1, 2).unflatten(2, size)


class _Pointwise(nn.Conv1d):
    """A linear layer that is stored as a convolution of one token."""

    def __init__(self, width: int, out: int):
        super().__init__(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Convolution(nn.Conv2d):
    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return super().forward(x)


class _Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        answer: Tensor = self.op(x)
        return answer


class _Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        answer: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return answer


class Stage(nn.ModuleList):
    """One after another of what follows in the UNet, the unit of sharding and recomputation.

    Args:
        channels: that it takes, with those of ``skip``. scale: pixels of the latents a pixel of its input, each way.
    """

    def __init__(self, channels: int, scale: int, *parts: nn.Module):
        super().__init__(parts)
        self.channels, self.scale = channels, scale

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor, frames: int, skip: Tensor | None = None) -> Tensor:
        """Frames (B F, C, H, W), embedding (B, E) and text (B, L, D) -> frames."""
        h = x if skip is None else torch.cat([x, skip], dim=1)
        for part in self:
            h = part(h, embedding, text, frames)
        return h


class VideoUNet(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Noised latents, timestep, text and frame rate -> the noise.

    Args:
        attention_resolutions: factors of downsampling whose levels have attention; the middle always has.
        time_cond_proj_dim: numbers that embed the guidance scale, if it is an input. motion_cond_proj_dim: the same of
            T2V-Turbo-v2's motion guidance.
    """

    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        model_channels: int = 320,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (1, 2, 4),
        num_head_channels: int = 64,
        context_dim: int = 1024,
        time_cond_proj_dim: int | None = None,
        motion_cond_proj_dim: int | None = None,
    ):
        super().__init__()
        self.gradient_checkpointing = False
        base, head, embedding = model_channels, num_head_channels, 4 * model_channels
        self.time_embed, self.fps_embedding = (
            nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding)) for _ in range(2)
        )
        for name, width in (
            ("time_cond_proj", time_cond_proj_dim),
            ("motion_cond_proj", motion_cond_proj_dim),
            ("combine_proj", motion_cond_proj_dim and 2 * base),
        ):
            if width:
                self.add_module(name, nn.Linear(width, base, bias=False))

        def level(channels: int, out: int, scale: int) -> list[nn.Module]:
            parts: list[nn.Module] = [_Residual(channels, embedding, out)]
            if scale in attention_resolutions:
                parts += [_Transformer(out, out // head, head, text) for text in (context_dim, None)]
            return parts

        width, scale = base * channel_mult[0], 1
        stages, skips = [Stage(in_channels, 1, _Convolution(in_channels, base, 3, padding=1))], [base]
        channels = base
        for number, factor in enumerate(channel_mult):
            width = factor * base
            for _ in range(num_res_blocks):
                stages.append(Stage(channels, scale, *level(channels, width, scale)))
                channels = width
                skips.append(channels)
            if number < len(channel_mult) - 1:
                stages.append(Stage(channels, scale, _Down(channels)))
                skips.append(channels)
                scale *= 2
        self.input_blocks = nn.ModuleList(stages)
        self.init_attn = Stage(base, 1, _Transformer(base, FIRST_HEADS, head, None, convolved=True))
        self.middle_block = Stage(
            channels,
            scale,
            _Residual(channels, embedding, channels),
            *(_Transformer(channels, channels // head, head, text) for text in (context_dim, None)),
            _Residual(channels, embedding, channels),
        )
        stages = []
        for number, factor in reversed(list(enumerate(channel_mult))):
            width = factor * base
            for last in (*[False] * num_res_blocks, True):
                channels += skips.pop()
                parts = level(channels, width, scale)
                if last and number:
                    parts.append(_Up(width))
                stages.append(Stage(channels, scale, *parts))
                channels = width
            scale //= 2
        self.output_blocks = nn.ModuleList(stages)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )

    def stages(self) -> list[Stage]:
        """In the order in which they are run."""
        first, *others = self.input_blocks
        return [first, self.init_attn, *others, self.middle_block, *self.output_blocks]

    def embedding(self, timesteps: Tensor, fps: Tensor, guidance: Tensor | None, motion: Tensor | None) -> Tensor:
        """(B, 4 M) of timesteps and frames a second (B,), and of ``guidance_embedding``s (B, E)."""
        dtype, width = next(self.time_embed.parameters()).dtype, self.config["model_channels"]
        time = sinusoids(timesteps, width, dtype)
        if guidance is not None:
            condition = self.time_cond_proj(guidance.to(dtype))
            if motion is not None:
                condition = self.combine_proj(torch.cat([condition, self.motion_cond_proj(motion.to(dtype))], dim=1))
            time = time + condition
        answer: Tensor = self.time_embed(time) + self.fps_embedding(sinusoids(fps, width, dtype))
        return answer

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        fps: Tensor,
        guidance: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """The noise in ``x``.

        Args:
            x: (B, C, F, H, W), H and W multiples of what the levels divide them by. timesteps, fps: (B,).
            text: (B, L, D). guidance, motion: embedded scales (B, E).
        """
        frames, embedding = x.shape[2], self.embedding(timesteps, fps, guidance, motion)
        first, *others = self.input_blocks
        h, skips = self._run(first, _frames(x), embedding, text, frames), []
        h = self._run(self.init_attn, h, embedding, text, frames)
        skips.append(h)
        for stage in others:
            h = self._run(stage, h, embedding, text, frames)
            skips.append(h)
        h = self._run(self.middle_block, h, embedding, text, frames)
        for stage in self.output_blocks:
            h = self._run(stage, h, embedding, text, frames, skips.pop())
        return self.ended(h, frames)

    def ended(self, h: Tensor, frames: int) -> Tensor:
        """The last stage's frames -> the answer."""
        return _video(self.out(h), frames)

    def _run(self, stage: nn.Module, *given: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            answer: Tensor = self._gradient_checkpointing_func(stage, *given)
        else:
            answer = stage(*given)
        return answer
