"""The laws that sigma and noise follow.

Every draw derives from (seed, step, pair), not from a stream of random numbers: the same pair gets the same noise on
every rank layout and after every resume. Both halves of a pair share a draw by being drawn for the same; a half of its
own draw adds its name to what the draw is for.
"""

import torch
from torch import Tensor

from regdpo.config.training import Timesteps
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError

EVERYWHERE = (0.0, 1.0)
REDRAWS = 10_000
EVAL_PAIRS = 32  # of the validation split, evenly chosen, that a training evaluates
EVAL_SIGMAS = 4  # at so many sigmas each
NEAREST = 1e-4  # to pure data and pure noise


def generator(*what: object) -> torch.Generator:
    """A CPU generator seeded by what the draw is for."""
    return torch.Generator().manual_seed(int(text_digest(*map(str, what))[:15], 16))


def draw_sigma(law: Timesteps, generator: torch.Generator, within: tuple[float, float] = EVERYWHERE) -> Tensor:
    """One sigma in (0, 1), 1 = noise; shape (), fp32.

    The law, shifted, is restricted to ``within`` = [low, high) by drawing again: one expert's part of the sigmas.
    ``low_half`` is uniform over the half with less noise (RealDPO's code, github.com/Vchitect/RealDPO).

    Raises:
        UserError: if the law has next to nothing in the interval.
    """
    low, high = within
    assert not isinstance(law.shift, str), "its number is asked of the family"
    for _ in range(REDRAWS):
        sigma = _shifted(_unshifted(law, generator), law.shift).clamp(NEAREST, 1 - NEAREST)
        if low <= float(sigma) < high:
            return sigma
    raise UserError(
        f"train.settings.timesteps: {law.law} with shift {law.shift:g} gave no sigma in [{low:g}, {high:g}), the part "
        f"that is trained, in {REDRAWS} draws; take a law or a shift that reaches it"
    )


def _unshifted(law: Timesteps, generator: torch.Generator) -> Tensor:
    if law.law == "logit_normal":
        return torch.sigmoid(law.mean + law.std * torch.randn((), generator=generator))
    uniform = torch.rand((), generator=generator)
    return uniform / 2 if law.law == "low_half" else uniform


def _shifted(sigma: Tensor, shift: float) -> Tensor:
    return shift * sigma / (1 + (shift - 1) * sigma)


def draw(
    law: Timesteps, shape: tuple[int, ...], *what: object, within: tuple[float, float] = EVERYWHERE
) -> tuple[Tensor, Tensor]:
    """Sigma in ``within``, shape (), and standard normal noise of the given shape, both fp32."""
    source = generator(*what)
    return draw_sigma(law, source, within), torch.randn(shape, generator=source)


def fixed_sigmas(count: int, within: tuple[float, float] = EVERYWHERE) -> Tensor:
    """Sigmas for evaluation, at the middles of ``count`` equal parts of ``within``; shape (count,), fp32."""
    low, high = within
    return low + (high - low) * (torch.arange(count) + 0.5) / count
