"""The denoiser of MUG-V 10B (arXiv 2510.17519), by its published weights' names and shapes.

Full attention over the video's tokens with cross-attention to the text, modulated by the timestep and the frame rate.
Frames may be given clean: their tokens take the modulation of t = 0, as do always the two learned tokens that stand
before and after the video's. The text's tokens that are padding are masked, which comes to the same as the published
code's packing of all samples' tokens into one row.

One thing is other than in the published code, which rounds the timestep to the weights' type first: in bf16 that leaves
8 bits of it. Here it stays as it is given.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import SeqAllToAllDim, dispatch_attention_fn
from torch import Tensor, nn

EPS = 1e-6
FREQUENCIES = 256
"""Width of the sinusoids of timesteps and frame rates."""
POSITIONS = (384, 480)
"""That the rotary tables know, in space and in time; a later time is taken for the last."""


class MLP(nn.Module):
    """Two layers with a GELU by tanh between them."""

    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


class RMSNorm(nn.Module):
    """In fp32, of one head's channels."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype) * self.weight


class ScalarEmbedder(nn.Module):
    """Numbers (B,) -> (B, C) by their sinusoids, cosines first."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        steps = torch.arange(half, device=values.device).float()
        angles = values.float().unsqueeze(1) * torch.exp(-math.log(10000) / half * steps)
        y: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], 1).to(next(self.parameters()).dtype))
        return y


class PatchEmbedder(nn.Module):
    """Latents (B, C, F, H, W), filled up by zeros to whole patches -> tokens (B, S, width), frame by frame."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int, int]):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        lacking = [-length % side for length, side in zip(x.shape[2:], self.patch, strict=True)]
        x = F.pad(x, [it for short in reversed(lacking) for it in (0, short)])
        y: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return y


class TextEmbedder(nn.Module):
    """Text (B, L, D) -> (B, L, width)."""

    def __init__(self, text: int, width: int):
        super().__init__()
        self.y_proj = MLP(text, width, width)

    def forward(self, text: Tensor) -> Tensor:
        return norm(self.y_proj(norm(text)))


class Sequence(nn.Module):
    """A video's tokens between the two that stand before and after it, filled up by zeros for ranks that share them.

    Attributes:
        ranks: that split its blocks' matrices, and the tokens between these.
    """

    ranks = 1

    def forward(
        self, x: Tensor, start: Tensor, end: Tensor, noisy: Tensor, rotary: Tensor, context: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, which of them are noisy, and their angles, for the blocks; a rank gets its part of all three.

        Args:
            x: (B, S, C). start, end: (C,). noisy: (B, S). rotary: (B, S + 2, 1, d/2, 2).
            context: ranks that split the sequence, each of them ``ranks``.
        """
        start, end = (token.expand(len(x), 1, -1) for token in (start, end))
        filling = -rotary.shape[1] % (context * self.ranks)
        x = F.pad(torch.cat([start, x, end], 1), (0, 0, 0, filling))
        rotary = F.pad(rotary, (0, 0, 0, 0, 0, 0, 0, filling))
        return x, F.pad(noisy, (1, 1 + filling)).unsqueeze(2), rotary


class _Processor:
    """What diffusers sets an attention's backend on, and the ranks that share its sequence."""

    _attention_backend: Any = None
    _parallel_config: Any = None


class SelfAttention(nn.Module, AttentionModuleMixin):  # so diffusers finds it
    """Of all tokens to all."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.processor: Any = _Processor()

    def forward(self, x: Tensor, rotary: Tensor, length: int) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)  # each (B, S, heads, d)
        query, key = rotated(self.q_norm(query), rotary), rotated(self.k_norm(key), rotary)
        y: Tensor = self.proj(self._attended(query, key, value, length).flatten(2))
        return y

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
        """By Ulysses where ranks share the sequence: of all tokens some heads, those that fill up left out."""
        backend, shared = self.processor._attention_backend, self.processor._parallel_config
        group = None if shared is None else shared.context_parallel_config._ulysses_mesh.get_group()
        if group is not None:
            query, key, value = (SeqAllToAllDim.apply(group, it) for it in (query, key, value))
        filling = max(0, query.shape[1] - length)  # a plan exchanges nothing, and sees one rank's tokens here
        query, key, value = (it[:, :length] for it in (query, key, value))
        out: Tensor = dispatch_attention_fn(query, key, value, backend=backend)
        if filling:
            out = F.pad(out, (0, 0, 0, 0, 0, filling))
        return out if group is None else SeqAllToAllDim.apply(group, out, 1, 2)


class CrossAttention(nn.Module):
    """Of all tokens to the text of their sample."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_linear, self.kv_linear = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        query = self.q_norm(self.q_linear(x).unflatten(2, (self.heads, -1)))
        key, value = self.kv_linear(text).unflatten(2, (2, self.heads, -1)).unbind(2)
        query, key, value = (it.transpose(1, 2) for it in (query, self.k_norm(key), value))
        shown = None if mask is None else mask[:, None, None]
        out = F.scaled_dot_product_attention(query, key, value, shown)
        y: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return y


class MugVBlock(nn.Module):
    """Self-attention and MLP, modulated and gated, with cross-attention between them."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / math.sqrt(width))
        self.attn, self.cross_attn = SelfAttention(width, heads), CrossAttention(width, heads)
        self.cross_attn_norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, hidden, width)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        text_mask: Tensor | None,
        times: Tensor,
        noisy: Tensor,
        rotary: Tensor,
        length: int,
    ) -> Tensor:
        """Tokens (B, S, C) of a block.

        Args:
            text: (B, L, C). text_mask: bool (B, L), True where there is a token; None where all are.
            times: (2, B, 6, C), what the table is shifted by: at the timestep and at 0. noisy: bool (B, S, 1), who
                takes the first. rotary: (B, S, 1, d/2, 2), cosines and sines.
            length: tokens of the whole sequence that are none that fill it up, on all ranks that share it.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + times).unbind(2)
        a = self.attn(modulated(norm(x), shift, scale, noisy), rotary, length)
        x = x + chosen(gate, noisy) * a
        x = x + self.cross_attn(self.cross_attn_norm(x), text, text_mask)
        return x + chosen(gate_mlp, noisy) * self.mlp(modulated(norm(x), shift_mlp, scale_mlp, noisy))


class FinalLayer(nn.Module):
    """Tokens -> what a patch is answered with; its modulation is by the embeddings themselves."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / math.sqrt(width))
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, embedded: Tensor, noisy: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedded.unsqueeze(2)).unbind(2)
        y: Tensor = self.linear(modulated(norm(x), shift, scale, noisy))
        return y


class MugVTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Velocities of noised latents, ``x0 - noise``: the opposite of what diffusers' flows answer.

    Args:
        in_channels: of the latents. It answers with twice as many, of which the second half means nothing.
        text_dim: width of the text encoder's states.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["MugVBlock"]  # noqa: RUF012 - diffusers' names
    _repeated_blocks = ["MugVBlock"]  # noqa: RUF012
    _cp_plan = {  # noqa: RUF012
        "sequence": {part: ContextParallelInput(split_dim=1, split_output=True) for part in range(3)},
        "final_layer": ContextParallelOutput(gather_dim=1),
    }

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 24,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 48,
        attention_head_dim: int = 72,
        num_layers: int = 56,
        mlp_ratio: float = 4.0,
        text_dim: int = 4096,
    ):
        super().__init__()
        width = num_attention_heads * attention_head_dim
        self.x_embedder = PatchEmbedder(in_channels, width, tuple(patch_size))  # type: ignore[arg-type]
        self.t_embedder, self.fps_embedder = ScalarEmbedder(width), ScalarEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = TextEmbedder(text_dim, width)
        self.start_token = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.end_token = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.sequence, self.noisy = Sequence(), nn.Identity()
        self.blocks = nn.ModuleList(
            MugVBlock(width, num_attention_heads, int(mlp_ratio * width)) for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(width, math.prod(patch_size) * 2 * in_channels)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        frame_rate: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        noisy_frames: Tensor | None = None,
        frame_indices: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Answers (B, 2 C, F, H, W), fp32.

        Args:
            hidden_states: (B, C, F, H, W). timestep: (B,) in [0, 1000].
            frame_rate: frames a second, (B,) or (1,). encoder_hidden_states: text (B, L, D).
            encoder_attention_mask: (B, L), 0 for padding; None where there is none.
            noisy_frames: bool (B, F), False for frames that are given clean; None where there are none.
            frame_indices: (B or 1, F + 2), positions in time of the token before the video, of its frames, and of the
                token after it; None for 0, 1, 2...
        """
        batch, channels, frames, *_ = hidden_states.shape
        device, dtype = hidden_states.device, self.x_embedder.proj.weight.dtype
        embedded = torch.stack([self.t_embedder(timestep), self.t_embedder(torch.zeros_like(timestep))])
        embedded = embedded + self.fps_embedder(frame_rate)  # (2, B, C)
        times = self.t_block(embedded).unflatten(2, (6, -1))
        text = self.y_embedder(encoder_hidden_states.to(dtype))
        text_mask = None if encoder_attention_mask is None else encoder_attention_mask != 0

        long, high, wide = self.x_embedder.patch
        grid = [-(-length // side) for length, side in zip(hidden_states.shape[2:], (long, high, wide), strict=True)]
        x = self.x_embedder(hidden_states.to(dtype))
        if noisy_frames is None:
            noisy_frames = torch.ones(batch, frames, dtype=torch.bool, device=device)
        noisy = noisy_frames[:, ::long].repeat_interleave(grid[1] * grid[2], 1)
        if frame_indices is None:
            frame_indices = torch.arange(frames + 2, device=device).unsqueeze(0)
        table = rotary(positions(frame_indices, grid), self.config["attention_head_dim"])
        shared: Any = self._parallel_config
        context = 1 if shared is None else shared.context_parallel_config.ulysses_degree
        video, length = x.shape[1], table.shape[1]
        x, noisy, table = self.sequence(x, self.start_token, self.end_token, noisy, table, context)
        noisy = self.noisy(noisy)  # of a rank's own tokens, as x will be, where ranks split blocks

        for block in self.blocks:
            given = (x, text, text_mask, times, noisy, table, length)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, *given)
            else:
                x = block(*given)
        x = self.final_layer(x, embedded, noisy)[:, 1 : 1 + video]
        x = x.unflatten(2, (long, high, wide, 2 * channels)).unflatten(1, grid)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        cropped = x[:, :, : hidden_states.shape[2], : hidden_states.shape[3], : hidden_states.shape[4]]
        return (cropped.float(),)


def norm(x: Tensor) -> Tensor:
    """Layer norm without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def chosen(pair: Tensor, noisy: Tensor) -> Tensor:
    """(2, B, C), for noisy tokens and for clean ones -> (B, S, C)."""
    return torch.where(noisy, pair[0].unsqueeze(1), pair[1].unsqueeze(1))


def modulated(x: Tensor, shift: Tensor, scale: Tensor, noisy: Tensor) -> Tensor:
    """``x (1 + scale) + shift``, each of them (2, B, C) as for ``chosen``."""
    return x * (1 + chosen(scale, noisy)) + chosen(shift, noisy)


def positions(frame_indices: Tensor, grid: list[int]) -> Tensor:
    """(height, width, time) of every token, (B, S, 3); the token before the video is at the first place of its own
    time, the one after it at the last.

    Args:
        frame_indices: (B, F + 2). grid: tokens in time, height and width.
    """
    _, high, wide = grid
    times = frame_indices.clamp(0, POSITIONS[1] - 1)
    inner = times[:, 1:-1].repeat_interleave(high * wide, 1)
    place = torch.arange(high * wide, device=times.device).repeat(times.shape[1] - 2)
    rows, columns = (it.expand(len(times), -1) for it in (place // wide, place % wide))
    video = torch.stack([rows, columns, inner], 2)
    start, end = (torch.zeros_like(video[:, :1]) for _ in range(2))
    start[:, 0, 2] = times[:, 0]
    end[:, 0, 0], end[:, 0, 1], end[:, 0, 2] = high - 1, wide - 1, times[:, -1]
    return torch.cat([start, video, end], 1)


def rotary(places: Tensor, head: int) -> Tensor:
    """Cosines and sines (B, S, 1, d/2, 2) of places (B, S, 3): d/6 frequencies of each axis, the same for all."""
    steps = torch.arange(head // 6, device=places.device).float()
    angles = (places.float().unsqueeze(3) * 10000 ** (-6 * steps / head)).flatten(2)
    return torch.stack([angles.cos(), angles.sin()], -1).unsqueeze(2)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Queries or keys (B, S, heads, d), each pair of neighbouring channels turned by its angle, in fp32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = table.unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1)
    return turned.flatten(-2).to(x.dtype)
