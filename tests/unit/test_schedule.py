"""The laws of sigma and noise, against their distribution functions."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from regdpo.config.training import Timesteps
from regdpo.core.errors import UserError
from regdpo.objectives.schedule import EVERYWHERE, draw, draw_sigma, fixed_sigmas, generator

DRAWS = 800


def sigmas(law: Timesteps, within: tuple[float, float] = EVERYWHERE) -> np.ndarray:
    return np.array([float(draw_sigma(law, generator("test", number), within)) for number in range(DRAWS)])


def cdf(law: Timesteps, within: tuple[float, float] = EVERYWHERE) -> Callable[[np.ndarray], np.ndarray]:
    """The law's distribution function: the shift undone, then uniform or normal; cut off at an interval."""

    def whole(x: np.ndarray) -> np.ndarray:
        x = np.clip(x, 1e-12, 1 - 1e-12)
        x = x / (law.shift - (law.shift - 1) * x)
        if law.law == "logit_normal":
            return stats.norm.cdf(np.log(x / (1 - x)), law.mean, law.std)
        return np.minimum(x * (2 if law.law == "low_half" else 1), 1)

    low, high = whole(np.array(within))
    return lambda x: (np.clip(whole(x), low, high) - low) / (high - low)


LAWS = [
    Timesteps(),
    Timesteps(shift=5.0),
    Timesteps(law="logit_normal", mean=0.5, std=0.7),
    Timesteps(law="logit_normal", mean=-0.5, shift=3.0),
    Timesteps(law="low_half"),
    Timesteps(law="low_half", shift=3.0),
]


INTERVALS = [EVERYWHERE, (0.0, 0.4), (0.6, 0.9)]
REACHED = [(law, within) for law in LAWS for within in INTERVALS if not (law == LAWS[4] and within[0] > 0.5)]


@pytest.mark.parametrize(("law", "within"), REACHED)
def test_laws(law, within):
    drawn = sigmas(law, within)
    assert drawn.min() >= within[0]
    assert drawn.max() < within[1]
    assert stats.kstest(drawn, cdf(law, within)).pvalue > 1e-3  # one of many such tests


def test_the_laws_differ():
    """The test above can fail: no law passes for another."""
    for law in LAWS:
        drawn = sigmas(law)
        for other in LAWS:
            assert other == law or stats.kstest(drawn, cdf(other)).pvalue < 1e-4


def test_low_half_is_the_half_with_less_noise():
    assert sigmas(Timesteps(law="low_half")).max() < 0.5
    shifted = sigmas(Timesteps(law="low_half", shift=3.0)).max()
    assert 0.7 < shifted < 3 * 0.5 / (1 + 2 * 0.5)


def test_draws_everywhere_are_the_first_of_their_generator():
    """Restricting to everything changes no draw: neither sigma nor the noise after it."""
    for number in range(50):
        source = generator(3, number)
        uniform, noise = torch.rand((), generator=source), torch.randn((4,), generator=source)
        drawn = draw(Timesteps(shift=3.0), (4,), 3, number)
        assert torch.equal(drawn[0], (3.0 * uniform / (1 + 2.0 * uniform)).clamp(1e-4, 1 - 1e-4))
        assert torch.equal(drawn[1], noise)
        source = generator(3, number)
        normal = torch.randn((), generator=source)
        drawn = draw(Timesteps(law="logit_normal", mean=0.5, std=0.7), (4,), 3, number)
        assert torch.equal(drawn[0], torch.sigmoid(0.5 + 0.7 * normal).clamp(1e-4, 1 - 1e-4))
        assert torch.equal(drawn[1], torch.randn((4,), generator=source))


def test_an_interval_is_drawn_again_the_same():
    for number in range(20):
        first, second = (draw(Timesteps(), (4,), "pair", number, within=(0.9, 1.0)) for _ in range(2))
        assert 0.9 <= float(first[0]) < 1
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def test_both_experts_share_what_one_would_have_drawn():
    """A draw that falls into the interval at once is the unrestricted one."""
    for number in range(50):
        sigma, noise = draw(Timesteps(), (4,), number)
        within = (0.9, 1.0) if float(sigma) >= 0.9 else (0.0, 0.9)
        again = draw(Timesteps(), (4,), number, within=within)
        assert torch.equal(sigma, again[0])
        assert torch.equal(noise, again[1])


@pytest.mark.parametrize(
    ("law", "within"),
    [
        (Timesteps(law="low_half"), (0.9, 1.0)),
        (Timesteps(law="low_half", shift=5.0), (0.9, 1.0)),
        (LAWS[0], (0.5, 0.5)),
    ],
)
def test_an_interval_that_the_law_does_not_reach(law, within):
    with pytest.raises(UserError, match=r"^train\.settings\.timesteps: ") as error:
        draw(law, (2,), 0, within=within)
    assert f"[{within[0]:g}, {within[1]:g})" in str(error.value)


def test_extremes_are_cut():
    assert sigmas(Timesteps(law="logit_normal", mean=20.0)).max() == pytest.approx(1 - 1e-4)
    assert sigmas(Timesteps(law="logit_normal", mean=-20.0)).min() == pytest.approx(1e-4)


def test_noise_is_standard_normal():
    _, noise = draw(Timesteps(), (20000,), 0)
    assert noise.dtype == torch.float32
    assert stats.kstest(noise.numpy(), "norm").pvalue > 0.01


def test_shift_moves_the_median_as_its_formula_says():
    assert np.median(sigmas(Timesteps(shift=3.0))) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.05)


def test_a_draw_depends_on_what_it_is_for_and_nothing_else():
    first = draw(Timesteps(), (4,), 1, 7, "pair")
    torch.rand(5)
    assert torch.equal(first[1], draw(Timesteps(), (4,), 1, 7, "pair")[1])
    for other in ((2, 7, "pair"), (1, 8, "pair"), (1, 7, "other"), (17, "pair"), (1, 7, "pair", "loser")):
        assert not torch.equal(first[1], draw(Timesteps(), (4,), *other)[1])


def test_fixed_sigmas_are_the_middles():
    assert fixed_sigmas(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert math.isclose(float(fixed_sigmas(7).mean()), 0.5, rel_tol=1e-6)
    assert fixed_sigmas(2, (0.5, 1.0)).tolist() == [0.625, 0.875]
    assert fixed_sigmas(3).dtype == torch.float32
