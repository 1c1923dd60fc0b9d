"""Memory of the training of an autoencoder: forward and backward of one window on the meta device, where every
allocation is counted. A rank holds all of the weights, and has one window at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regdpo.config.autoencoder import AutoencoderTraining
from regdpo.models.critic import PatchCritic
from regdpo.models.family import Family
from regdpo.models.live import Live, Need
from regdpo.models.lpips import Distance, empty
from regdpo.models.windows import window_sides
from regdpo.objectives import autoencoder as losses
from regdpo.plan.memory import Size

ADAMW = 4 * 4
"""Bytes a parameter that is trained: itself, its gradient and two moments, all fp32."""
FP32 = 4
UNDER_AUTOCAST = {
    "conv2d": torch.bfloat16,
    "conv3d": torch.bfloat16,
    "linear": torch.bfloat16,
    "scaled_dot_product_attention": torch.bfloat16,
    "group_norm": torch.float32,
    "layer_norm": torch.float32,
    "normalize": torch.float32,
    "mse_loss": torch.float32,
}
"""What torch's autocast computes in which precision on a GPU, of what autoencoders have. The meta device has none."""


def need(family: Family, settings: AutoencoderTraining, sizes: Sequence[Size]) -> Need:
    """Of the largest window: weights with gradients, moments and averages; and what is kept and computed of it.

    Args:
        sizes: frames, height and width that clips have.

    Raises:
        UserError: the autoencoder is not one that is trained here.
    """
    from diffusers.models.modeling_utils import no_init_weights  # here, since it loads diffusers

    sides = {window_sides(*size[1:], settings.crop, family.compression[1]) for size in sizes}
    loss, window = settings.loss, (family.window_frames(max(settings.windows)), *max(sides, key=math.prod))
    with no_init_weights(), torch.device("meta"):
        model = family.autoencoder_to_train(fresh=True, decoder=settings.part == "decoder")
        critic = PatchCritic() if loss.gan else None
        perceptual = Distance(*empty()) if loss.perceptual else None
        real = torch.empty(1, 3, *window)
    parts = nn.ModuleList(filter(None, [model, critic, perceptual]))
    trained = [it for it in parts.parameters() if it.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
    with ExitStack() as stack:
        live = stack.enter_context(Live([*parts.parameters(), *parts.buffers(), real]))
        if settings.precision == "bf16":
            stack.enter_context(_autocast())
        made, mean, log_variance = (it.float() for it in family.reconstruct(model, real, _drawn))
        terms = losses.terms(made, real, mean, log_variance, loss, perceptual)
        total = losses.total(terms, loss)
        if critic:
            critic.requires_grad_(False)
            total = total + losses.adversarial(critic(made).float()).mean()
            critic.requires_grad_(True)
        total.backward()
        if critic:
            losses.critic(*(critic(it).float() for it in (real, made.detach()))).mean().backward()
    average = FP32 * sum(it.numel() for it in model.parameters() if it.requires_grad) if settings.ema else 0
    weights = sum(ADAMW * it.numel() if it.requires_grad else it.nbytes for it in parts.parameters())
    return Need(weights + average, real.nbytes + live.peak)


def _drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
    return mean.float() + (log_variance.float() / 2).exp() * torch.empty_like(mean, dtype=torch.float32)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


@contextmanager
def _autocast() -> Iterator[None]:
    """Precisions as under torch's autocast, which casts a parameter once."""
    once: dict[int, Tensor] = {}

    def under(dtype: torch.dtype, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def cast(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
                return value
            if not isinstance(value, nn.Parameter):
                return value.to(dtype)
            return once.setdefault(id(value), value.to(dtype))

        return lambda *args, **kwargs: function(*map(cast, args), **{name: cast(it) for name, it in kwargs.items()})

    with ExitStack() as stack:
        for name, dtype in UNDER_AUTOCAST.items():
            stack.enter_context(patch.object(F, name, under(dtype, getattr(F, name))))
        yield
