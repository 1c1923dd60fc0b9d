"""Objectives against formulas written out in plain Python, gradients by hand and by finite differences, in float64."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, tensor

from regdpo.config.training import Arm
from regdpo.core import code_digest
from regdpo.models.errors import mean_squares
from regdpo.objectives import losses
from regdpo.objectives.registry import OBJECTIVES as DECLARED
from regdpo.objectives.registry import configurable
from regdpo.objectives.weights import balanced, weighted
from regdpo.parallel.pair import weigh

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
E_W, E_L, R_W, R_L = ([0.30, 0.52, 0.44], [0.61, 0.40, 0.47], [0.35, 0.50, 0.41], [0.60, 0.45, 0.49])
PAIRS = list(zip(E_W, E_L, R_W, R_L, strict=True))
DOT, NORM2 = [0.8, -0.3, 0.2], [0.5, 0.4, 0.3]
BETA, PENALTY, MU, ALPHA, MIX = 7.0, 3.0, 0.25, 0.6, 0.7
LAMBDA = [0.75 * 0.5 / 0.8, 1.0, 1.0]  # (1 - mu) norm2 / dot is above 1 in the third
DESIRABLE = [True, False, True]
H = BETA / 2


def f64(values: list[float]) -> Tensor:
    return tensor(values, dtype=torch.float64)


def errors(requires_grad: bool = False) -> list[Tensor]:
    return [f64(values).requires_grad_(requires_grad) for values in (E_W, E_L, R_W, R_L)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gap(e_w: float, e_l: float, r_w: float, r_l: float) -> float:
    return e_w - r_w - e_l + r_l


def minus_log_sigmoid(x: float) -> float:
    return -math.log(sigmoid(x))


def dpop_gap(e_w: float, e_l: float, r_w: float, r_l: float) -> float:
    return gap(e_w, e_l, r_w, r_l) + PENALTY * max(0.0, e_w - r_w)


M_W, M_L = [0.31, 0.49, 0.40], [0.58, 0.41, 0.46]


def of_frames(*halves: Tensor) -> list[Tensor]:
    """Errors of one latent frame."""
    return [half[:, None] for half in halves]


ONE = tensor([[1]] * 3), tensor([[0]] * 3)  # a segment in which the winner is better
CALLS = {
    "dpo": lambda *e: losses.dpo(*e, BETA),
    "reg_dpo": lambda *e: losses.reg_dpo(*e, BETA),
    "reg_dpo half": lambda *e: losses.reg_dpo(*e, BETA, "dgr", 0.5),
    "reg_dpo constant": lambda *e: losses.reg_dpo(*e, BETA, 12.5),
    "dpop": lambda *e: losses.dpop(*e, BETA, PENALTY),
    "ipo": lambda *e: losses.ipo(*e, BETA),
    "sdpo": lambda *e: losses.sdpo(*e, BETA, MU, f64(DOT), f64(NORM2)),
    "ddo": lambda *e: losses.ddo_of_pairs(*e, BETA, ALPHA),
    "nft": lambda *e: losses.nft_of_pairs(*e, MIX, f64(M_W), f64(M_L)),
    "dense_dpo": lambda *e: losses.dense_dpo(*of_frames(*e), BETA, *ONE),
}
DGR = [H * sigmoid(H * gap(*pair)) for pair in PAIRS]
DPO = [minus_log_sigmoid(-H * gap(*pair)) for pair in PAIRS]
VALUES = {
    "dpo": DPO,
    "reg_dpo": [dpo + dgr * e_w for dpo, dgr, e_w in zip(DPO, DGR, E_W, strict=True)],
    "reg_dpo half": [dpo + dgr / 2 * e_w for dpo, dgr, e_w in zip(DPO, DGR, E_W, strict=True)],
    "reg_dpo constant": [dpo + 12.5 * e_w for dpo, e_w in zip(DPO, E_W, strict=True)],
    "dpop": [minus_log_sigmoid(-H * dpop_gap(*pair)) for pair in PAIRS],
    # eq. 17 of IPO with log-ratios -k s of any k, times tau^2, where h = k tau: here k = 0.7
    "ipo": [(H / 0.7) ** 2 * (-0.7 * gap(*pair) - 1 / (2 * H / 0.7)) ** 2 for pair in PAIRS],
    "sdpo": DPO,
    # a discriminator's cross entropy, its logit -h (e - r)
    "ddo": [
        minus_log_sigmoid(-H * (e_w - r_w)) - ALPHA * math.log(1 - sigmoid(-H * (e_l - r_l)))
        for e_w, e_l, r_w, r_l in PAIRS
    ],
    "nft": [
        ((1 - MIX) ** 2 * r_w + 2 * MIX * (1 - MIX) * m_w + MIX**2 * e_w) / MIX
        + ((1 + MIX) ** 2 * r_l - 2 * MIX * (1 + MIX) * m_l + MIX**2 * e_l) / MIX
        for (e_w, e_l, r_w, r_l), m_w, m_l in zip(PAIRS, M_W, M_L, strict=True)
    ],
    "dense_dpo": DPO,
}
DPOP_DGR = [H * sigmoid(H * dpop_gap(*pair)) for pair in PAIRS]
SLOPES = {  # of the winner's error and of the loser's
    "dpo": (DGR, DGR),
    "reg_dpo": ([2 * d for d in DGR], DGR),  # eq. 5 of Reg-DPO: DGR + r and DGR
    "reg_dpo half": ([1.5 * d for d in DGR], DGR),
    "reg_dpo constant": ([d + 12.5 for d in DGR], DGR),
    "dpop": ([d * (1 + PENALTY * (p[0] > p[2])) for d, p in zip(DPOP_DGR, PAIRS, strict=True)], DPOP_DGR),
    "ipo": ([2 * H * (H * gap(*p) + 0.5) for p in PAIRS],) * 2,
    "sdpo": (DGR, [scale * d for scale, d in zip(LAMBDA, DGR, strict=True)]),
    "ddo": (
        [H * sigmoid(H * (e_w - r_w)) for e_w, _, r_w, _ in PAIRS],
        [ALPHA * H * sigmoid(-H * (e_l - r_l)) for _, e_l, _, r_l in PAIRS],
    ),
    "nft": ([MIX] * 3, [-MIX] * 3),  # what pushes at the loser is m
    "dense_dpo": (DGR, DGR),
}
NEED = {"rel": 1e-12, "abs": 0}


@pytest.mark.parametrize("name", CALLS)
def test_values_by_hand(name):
    assert CALLS[name](*errors()).tolist() == pytest.approx(VALUES[name], **NEED)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_by_hand(name):
    e_w, e_l, r_w, r_l = errors(requires_grad=True)
    CALLS[name](e_w, e_l, r_w.detach(), r_l.detach()).sum().backward()
    winner, loser = SLOPES[name]
    assert e_w.grad.tolist() == pytest.approx(winner, **NEED)
    assert (-e_l.grad).tolist() == pytest.approx(loser, **NEED)


@pytest.mark.parametrize("name", ["dpo", "reg_dpo constant", "dpop", "ipo", "ddo", "nft", "dense_dpo"])
def test_gradients_by_finite_differences(name):
    assert torch.autograd.gradcheck(CALLS[name], errors(requires_grad=True), eps=1e-6, atol=1e-7)


def test_gradients_by_finite_differences_where_something_is_held_fixed():
    """What is detached (R, lambda, z) is held fixed by hand, so that the difference quotient sees the same function."""
    dgr, scale = f64(DGR), f64(LAMBDA)
    frozen_r = lambda *e: losses.dpo(*e, BETA) + dgr * e[0]  # noqa: E731
    e_w, e_l, r_w, r_l = errors()
    frozen_l = lambda x: losses.dpo(e_w, e_l + scale * (x - e_l), r_w, r_l, BETA)  # noqa: E731
    kto = lambda e: losses.kto(e, r_w, tensor(DESIRABLE), BETA, 0.7, 1.3, 0.02)  # noqa: E731
    assert torch.autograd.gradcheck(frozen_r, errors(requires_grad=True))
    assert torch.autograd.gradcheck(frozen_l, e_l.clone().requires_grad_())
    assert torch.autograd.gradcheck(kto, e_w.clone().requires_grad_())
    for name, frozen, at in (("reg_dpo", frozen_r, (0, 1)), ("sdpo", lambda *e: frozen_l(e[1]), (1,))):
        ours, theirs = errors(requires_grad=True), errors(requires_grad=True)
        CALLS[name](*ours).sum().backward()
        frozen(*theirs).sum().backward()
        for half in at:
            torch.testing.assert_close(ours[half].grad, theirs[half].grad, rtol=1e-12, atol=0)


def test_first_step():
    """The policy is the reference: DPO is ln 2 and its ratio a quarter of beta; IPO's slope is twice that."""
    ones = [1.0] * 3
    for name, value, slope in (("dpo", math.log(2), H / 2), ("dpop", math.log(2), H / 2), ("ipo", 0.25, H)):
        e_w, e_l, _, _ = errors(requires_grad=True)
        loss = CALLS[name](e_w, e_l, e_w.detach(), e_l.detach())
        loss.sum().backward()
        assert loss.tolist() == pytest.approx([value * x for x in ones], **NEED)
        assert e_w.grad.tolist() == pytest.approx([slope * x for x in ones], **NEED)
    e_w, e_l, _, _ = errors()
    assert losses.dgr(e_w, e_l, e_w, e_l, BETA).tolist() == pytest.approx([BETA / 4] * 3, **NEED)
    assert losses.kto(e_w, e_w, tensor(DESIRABLE), BETA).tolist() == pytest.approx([0.5] * 3, **NEED)


def test_swapping_the_halves_flips_the_gap_and_its_gradient():
    straight, swapped = errors(requires_grad=True), errors(requires_grad=True)
    one = losses.preference_gap(*straight)
    e_w, e_l, r_w, r_l = swapped
    other = losses.preference_gap(e_l, e_w, r_l, r_w)
    assert torch.equal(one, -other)
    one.sum().backward()
    other.sum().backward()
    for a, b in zip(straight, swapped, strict=True):
        assert a.grad.abs().min() > 0
        assert torch.equal(a.grad, -b.grad)


def test_no_gradient_goes_through_the_weights():
    for weight in (
        losses.sft_weight(*errors(requires_grad=True), BETA, "dgr"),
        losses.sft_weight(*errors(requires_grad=True), BETA, 12.5),
        losses.dgr(*errors(requires_grad=True), BETA),
        losses.sdpo_scale(f64(DOT).requires_grad_(), f64(NORM2).requires_grad_(), MU),
        losses.kto_reference(*errors(requires_grad=True)[:2]),
    ):
        assert not weight.requires_grad


def test_large_betas_stay_finite_in_fp32():
    """The greatest published beta on errors of another size than expected."""
    far = [tensor([value], requires_grad=True) for value in (9.0, 1.0, 1.0, 9.0)]
    for loss in (losses.dpo(*far, 5000.0), losses.reg_dpo(*far, 5000.0), losses.dpop(*far, 5000.0, 50.0)):
        assert torch.isfinite(loss).all()
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss.sum(), far))


def test_ipo_is_least_at_the_gap_of_one_over_beta():
    at = [f64([0.3]), f64([0.3 + 1 / BETA]), f64([0.3]), f64([0.3])]
    assert losses.ipo(*at, BETA).item() == pytest.approx(0, abs=1e-30)
    for other in (-0.1, 0.1):
        assert losses.ipo(at[0], at[1] + other, at[2], at[3], BETA).item() > 0


def test_dpop_is_dpo_while_the_winner_is_no_worse():
    better = [min(e, r) for e, r in zip(E_W, R_W, strict=True)]
    values = [f64(better), f64(E_L), f64(R_W), f64(R_L)]
    assert torch.equal(losses.dpop(*values, BETA, PENALTY), losses.dpo(*values, BETA))


def test_sdpo_scale_by_hand():
    assert losses.sdpo_scale(f64(DOT), f64(NORM2), MU).tolist() == pytest.approx(LAMBDA, **NEED)
    assert losses.sdpo_scale(f64([0.0, -1.0, 1e-300]), f64([1.0, 0.0, 1.0]), MU).tolist() == [1, 1, 1]
    assert losses.sdpo_scale(f64([0.5]), f64([0.0]), MU).tolist() == [0]
    assert losses.sdpo_scale(f64([0.5]), f64([0.4]), 1.0).tolist() == [0]


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.9])
def test_sdpos_guarantee_on_linear_models(mu):
    """After a small step the winner's error has fallen by at least mu of what its own gradient would have given.

    One input for both halves, so that weights and outputs agree on the guarantee; plain DPO breaks it on many.
    """
    rate, broken = 1e-6, {"dpo": 0, "sdpo": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(5, 4))
        x, y_w = rng.normal(size=4), rng.normal(size=5)
        y_l = y_w + rng.normal(size=5)  # residuals of the halves mostly point the same way
        residual_w, residual_l = matrix @ x - y_w, matrix @ x - y_l
        reference = [f64([float((residual**2).mean()) + rng.normal() / 20]) for residual in (residual_w, residual_l)]
        dot, norm2 = (f64([float(residual_w @ other)]) for other in (residual_l, residual_w))
        for name in broken:
            weights = torch.tensor(matrix, requires_grad=True)
            e_w, e_l = (((weights @ torch.tensor(x) - torch.tensor(y)) ** 2).mean().reshape(1) for y in (y_w, y_l))
            extra = (mu, dot, norm2) if name == "sdpo" else ()
            loss = getattr(losses, name)(e_w, e_l, *reference, BETA, *extra)
            slope = losses.dgr(e_w.detach(), e_l.detach(), *reference, BETA).item()
            (own,) = torch.autograd.grad(e_w, weights, retain_graph=True)
            (step,) = torch.autograd.grad(loss, weights)
            after = float((((matrix - rate * step.numpy()) @ x - y_w) ** 2).mean())
            promised = (mu - 1e-3) * rate * slope * float((own**2).sum())  # 1e-3: what a step has beyond first order
            broken[name] += after > e_w.item() - promised
    assert broken["sdpo"] == 0
    assert broken["dpo"] > 5


def kto_by_hand(e: float, r: float, desirable: bool, z: float) -> float:
    value = sigmoid((1 if desirable else -1) * BETA * (r - e - z))
    return (0.7 if desirable else 1.3) * (1 - value)


@pytest.mark.parametrize("z", [None, 0.04])
def test_kto_by_hand(z):
    """E_L against R_L improves on average by -.02, E_W against R_W by +.006: the reference point is never below 0."""
    for e, r in ((E_W, R_W), (E_L, R_L), (R_W, E_W)):
        point = max(0.0, sum(b - a for a, b in zip(e, r, strict=True)) / 3) if z is None else z
        wanted = [kto_by_hand(*values, point) for values in zip(e, r, DESIRABLE, strict=True)]
        given = losses.kto(f64(e), f64(r), tensor(DESIRABLE), BETA, 0.7, 1.3, z)
        assert given.tolist() == pytest.approx(wanted, **NEED)
    assert losses.kto_reference(f64(R_L), f64(E_L)).item() == 0
    assert losses.kto_reference(f64(E_L), f64(R_L)).item() == pytest.approx((-0.01 + 0.05 + 0.02) / 3)


def test_kto_rises_with_a_desirable_error_and_falls_with_an_undesirable_one():
    e = torch.linspace(-2, 2, 41, dtype=torch.float64)
    for desirable in (True, False):
        loss = losses.kto(e, torch.zeros_like(e), torch.full((41,), desirable), BETA, reference_point=0.3)
        steps = loss.diff()
        assert (steps > 0).all() if desirable else (steps < 0).all()
        at = (e + 0.3).abs().argmin()  # g = z
        assert loss[at].item() == pytest.approx(0.5)


def test_ktos_reference_point_takes_no_gradient():
    for point in (None, f64([0.1]).requires_grad_()):
        e = f64([0.2, 0.5, 0.1]).requires_grad_()
        r = f64([0.4, 0.6, 0.3])
        z = max(0.0, float((r - e.detach()).mean())) if point is None else 0.1
        losses.kto(e, r, tensor(DESIRABLE), BETA, reference_point=point).sum().backward()
        gains = [(1 if d else -1) * BETA * (b - a - z) for a, b, d in zip(e.tolist(), r, DESIRABLE, strict=True)]
        wanted = [
            (1 if d else -1) * BETA * sigmoid(g) * sigmoid(-g)
            for g, d in zip(map(float, gains), DESIRABLE, strict=True)
        ]
        assert e.grad.tolist() == pytest.approx(wanted, rel=1e-12)
        assert point is None or point.grad is None


@pytest.mark.parametrize("objective", ["ddo", "nft", "kto"])
def test_a_pair_is_a_good_and_a_bad_sample(objective):
    """For kto in halves, as a sample of two."""
    terms = {"ddo": (BETA, ALPHA), "nft": (MIX,), "kto": (BETA, 0.7, 1.3, 0.02)}[objective]
    own, of_pair = ([f64(M_W)], [f64(M_L)]) if objective == "nft" else ([], []), (f64(M_W), f64(M_L))
    e_w, e_l, r_w, r_l = errors()
    good, loss = torch.ones(3, dtype=torch.bool), DECLARED[objective].loss(labelled=True)
    alone = loss(e_w, r_w, good, *terms, *own[0]) + loss(e_l, r_l, ~good, *terms, *own[1])
    together = DECLARED[objective].loss()(e_w, e_l, r_w, r_l, *terms, *(of_pair if objective == "nft" else ()))
    torch.testing.assert_close(together, alone / 2 if objective == "kto" else alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mix", [0.3, 1.0, 1.7])
def test_nft_is_the_error_of_an_implicit_policy(mix):
    """Residuals written out: of the implicit answers (1 -+ b) reference +- b policy, with gradients by the policy's."""
    rng = np.random.default_rng(0)
    policy, reference, target = (torch.tensor(rng.normal(size=(2, 3, 5))) for _ in range(3))
    policy.requires_grad_()
    e, r = (((answer - target) ** 2).mean((1, 2)) for answer in (policy, reference))
    m = ((policy - target) * (reference - target)).mean((1, 2))
    good = tensor([True, False])
    signed = f64([mix, -mix])[:, None, None]
    wanted = (((1 - signed) * reference + signed * policy - target) ** 2).mean((1, 2)) / mix
    found = losses.nft(e, r, good, mix, m)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(it.sum(), policy, retain_graph=True)[0] for it in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_nft_starts_as_sft_on_good_samples():
    """At the reference the whole derivative is that of the error, with the sign of the label, for any b."""
    policy = f64([0.4, -0.7]).requires_grad_()
    e, m = policy**2, policy * policy.detach()
    losses.nft(e, e.detach(), tensor([True, False]), 0.3, m).sum().backward()
    assert policy.grad.tolist() == pytest.approx([2 * 0.4, 2 * 0.7], **NEED)


FRAMES = torch.tensor(np.random.default_rng(1).normal(0.5, 0.1, size=(4, 2, 5)))  # e_w, e_l, r_w, r_l of 5 frames
SEGMENT = tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 2]])
PREFERRED = tensor([[1, 1, 1, -1, -1], [1, 0, 0, 0, -1]])


def dense_by_hand(frames: Tensor) -> list[float]:
    found = []
    for pair in range(2):
        total = 0.0
        for segment in set(SEGMENT[pair].tolist()):
            inside = [f for f in range(5) if SEGMENT[pair, f] == segment]
            label = int(PREFERRED[pair, inside[0]])
            errors = [float(half[pair, inside].mean()) for half in frames]
            if label:  # a loser that is better is the winner
                errors = errors if label > 0 else [errors[1], errors[0], errors[3], errors[2]]
                total += len(inside) / 5 * minus_log_sigmoid(-H * gap(*errors))
        found.append(total)
    return found


def test_dense_dpo_is_dpo_of_each_segment():
    found = losses.dense_dpo(*FRAMES, BETA, PREFERRED, SEGMENT)
    assert found.tolist() == pytest.approx(dense_by_hand(FRAMES), rel=1e-12)
    halves = [half.clone().requires_grad_() for half in FRAMES[:2]]
    both = lambda e_w, e_l: losses.dense_dpo(e_w, e_l, *FRAMES[2:], BETA, PREFERRED, SEGMENT)  # noqa: E731
    assert torch.autograd.gradcheck(both, halves)
    both(*halves).sum().backward()
    assert (halves[0].grad[1, 1:4] == 0).all()  # no preference there
    assert (halves[0].grad[0].sign() == PREFERRED[0]).all()


SFT_DGR = {name: [max(0.0, slope) for slope in SLOPES[name][0]] for name in SLOPES}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("r", ["dgr", 12.5])
def test_any_loss_takes_the_sft_term(name, r):
    e_w, e_l, r_w, r_l = errors()
    loss, (slope, _) = weigh(lambda a, b: CALLS[name](a, b, r_w, r_l), e_w, e_l)
    given = None if r == "dgr" else torch.full_like(e_w, r)
    value, slope, weight = losses.regularised(loss, slope, e_w, given)
    wanted = SFT_DGR[name] if r == "dgr" else [12.5] * 3
    assert weight.tolist() == pytest.approx(wanted, **NEED)
    assert value.tolist() == pytest.approx(
        [a + b * c for a, b, c in zip(VALUES[name], wanted, E_W, strict=True)], **NEED
    )
    assert slope.tolist() == pytest.approx([a + b for a, b in zip(SLOPES[name][0], wanted, strict=True)], **NEED)


def test_reg_dpo_is_dpo_with_the_sft_term():
    for r, given in (("dgr", None), (12.5, f64([12.5] * 3))):
        ours, theirs = errors(requires_grad=True), errors()
        losses.reg_dpo(*ours, BETA, r).sum().backward()
        loss, (slope,) = weigh(lambda e_w: losses.dpo(e_w, *theirs[1:], BETA), theirs[0])  # noqa: B023
        value, slope, _ = losses.regularised(loss, slope, theirs[0], given)
        torch.testing.assert_close(value, losses.reg_dpo(*theirs, BETA, r), rtol=1e-14, atol=0)
        torch.testing.assert_close(slope, ours[0].grad, rtol=1e-14, atol=0)


def test_the_sft_term_of_frames_is_that_of_their_mean():
    """Where the loser is better nothing pulls at the winner with `dgr`; a constant is a slope on the clip's error."""
    loss, (slope,) = weigh(lambda e: losses.dense_dpo(e, *FRAMES[1:], BETA, PREFERRED, SEGMENT), FRAMES[0])
    _, total, weight = losses.regularised(loss, slope, FRAMES[0], None)
    assert (total[PREFERRED < 0] == slope[PREFERRED < 0]).all()
    assert weight.tolist() == pytest.approx(slope.clamp(min=0).sum(1).tolist(), rel=1e-12)
    value, total, weight = losses.regularised(loss, slope, FRAMES[0], f64([2.0, 3.0]))
    torch.testing.assert_close(value, loss + f64([2.0, 3.0]) * FRAMES[0].mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(total - slope, f64([[0.4] * 5, [0.6] * 5]), rtol=1e-12, atol=0)
    assert weight.tolist() == pytest.approx([2, 3], rel=1e-12)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("case", ["b1", "b1_dup", "b1_small_beta"])
def test_videodpos_loss_by_its_own_code(case, dtype, near):
    """Its mean over channels, frames and height leaves the width: a logistic term for each latent column. That is our
    `dpo` of columns, weighted; of the whole sample, as we take it, the same code with the usual reduction."""
    golden = load_file(GOLDEN / "videodpo_loss.safetensors")
    wanted = {name: golden[f"ref64.{case}.{name}"].to(dtype) for name in ("loss", "grad_pred", "implicit_acc")}
    target, prediction, reference = (golden[f"in.{case}.{name}"].to(dtype) for name in ("target", "pred", "ref_pred"))
    factor, beta = (golden[f"in.{case}.{name}"].to(dtype) for name in ("dupfactor", "beta_dpo"))
    prediction.requires_grad_()
    residual, other = prediction - target, reference - target
    columns = [*(residual**2).mean((1, 2, 3)), *(other**2).mean((1, 2, 3))]
    loss = weighted(losses.dpo(*columns, float(beta)), factor.expand_as(columns[0])).mean()
    (gradient,) = torch.autograd.grad(loss, prediction, retain_graph=True)
    torch.testing.assert_close(loss[None], wanted["loss"], rtol=near, atol=0)
    torch.testing.assert_close(gradient, wanted["grad_pred"], rtol=near, atol=near * float(gradient.abs().max()))
    policy_w, policy_l, reference_w, reference_l = columns
    assert (policy_w - reference_w < policy_l - reference_l).sum() == wanted["implicit_acc"]  # of columns, so above 1
    whole = [it[None] for it in (*mean_squares(residual), *mean_squares(other))]
    ours = weighted(losses.dpo(*whole, float(beta)), factor)
    usual = golden[f"ref64.{case}.whole_sample_loss_for_comparison"].to(dtype)
    torch.testing.assert_close(ours, usual, rtol=near, atol=0)
    assert f"{loss:.3f} | {ours.item():.3f}" in METHODS


def test_balanced_labels_weigh_alike():
    labels = {"a": "good", "b": "good", "c": "good", "d": "bad"}
    factors = balanced(labels)
    assert sum(factors[it] for it in "abc") == pytest.approx(factors["d"])
    assert sum(factors.values()) == pytest.approx(4)
    assert balanced({"a": "good", "b": "good"}) == {"a": 1, "b": 1}
    assert balanced({}) == {}


ERRORS = {"e_w", "e_l", "r_w", "r_l"}
GIVEN = {
    "products": ("dot", "norm2"),
    "reference_point": ("reference_point",),
    "m": ("m_w", "m_l"),
    "frames": ("preferred", "segment"),
}
OBJECTIVES = configurable()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_terms_of_the_configuration_are_the_functions_terms(objective):
    declared = DECLARED[objective]
    parameters = inspect.signature(declared.loss()).parameters
    given = {name for need in declared.needs for name in GIVEN[need]}
    own = {name: term for name, term in declared.terms.items() if term.of_loss}
    assert set(parameters) - ERRORS - given == set(own)
    assert ("sft" in declared.terms) == (declared.paired and objective != "reg_dpo")
    for name, term in own.items():
        assert term.needed or parameters[name].default is not inspect.Parameter.empty
    assert set(parameters) >= ERRORS if declared.paired else set(parameters) == {"e_w"}


def test_pretraining_is_sft():
    assert DECLARED["pretrain"].loss() is losses.sft
    assert set(DECLARED) == {"pretrain", *OBJECTIVES}


METHODS = (ROOT / "docs/concepts/methods.md").read_text()
LINK = re.compile(r"\[`losses\.(\w+)`\]\((\S+)\)")


def rows() -> dict[str, list[list[str]]]:
    """The cells of the rows of the objectives' table, by objective."""
    table: dict[str, list[list[str]]] = {}
    for line in METHODS.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if LINK.search(line) and line.startswith("|"):
            table.setdefault(cells[0].strip("`"), []).append(cells)
    return table


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_methods_has_a_row_for_every_objective(objective):
    """Paper, a configuration that is one, and a link to a function that is there."""
    for _, formula, paper, example, code in rows()[objective]:
        assert formula
        assert re.search(r"arXiv \d{4}\.\d{5}", paper)
        assert Arm(**yaml.safe_load(example.strip("`"))).objective == objective
        name, path = LINK.search(code).groups()
        if name != "regularised":  # which any has
            assert name == DECLARED[objective].function.partition(":")[2].removesuffix("_of_pairs")
        assert callable(getattr(losses, name))
        assert (ROOT / "docs/concepts" / path).resolve() == Path(losses.__file__).resolve()


def test_methods_has_no_row_for_anything_else():
    assert set(rows()) == set(OBJECTIVES)
    for objective in OBJECTIVES:
        assert f"\n### `{objective}`" in METHODS


def test_names_in_methods_exist():
    assert all(hasattr(losses, name) for name in re.findall(r"losses\.(\w+)`", METHODS))


def test_a_losss_helpers_count_in_its_digest_and_no_other_loss(monkeypatch, tmp_path):
    """A changed helper makes the losses stale that call it, through any number of calls, and no others."""
    module = "regdpo.objectives.losses"
    source = Path(losses.__file__).read_text()
    file = code_digest._file

    def digests(old: str = "", new: str = "") -> dict[str, str]:
        assert old in source
        changed = tmp_path / "losses.py"
        changed.write_text(source.replace(old, new) if old else source)
        monkeypatch.setattr(code_digest, "_file", lambda name: changed if name == module else file(name))
        code_digest.source_of.cache_clear()
        code_digest._tree.cache_clear()
        return {name: code_digest.code_digest(DECLARED[name].function) for name in OBJECTIVES}

    def made_stale(old: str, new: str) -> set[str]:
        after = digests(old, new)
        return {name for name in OBJECTIVES if after[name] != plain[name]}

    plain = digests()
    try:
        assert len(set(plain.values())) == len(OBJECTIVES)
        assert made_stale("(h * torch.sigmoid", "(1.0 * h * torch.sigmoid") == {"reg_dpo"}
        assert made_stale("(1 - mu) * norm2", "1.0 * (1 - mu) * norm2") == {"sdpo"}
        assert made_stale("(r - e).mean()", "1.0 * (r - e).mean()") == {"kto"}
        of_the_gap = made_stale("return (e_w - r_w) - (e_l - r_l)", "return e_w - r_w - e_l + r_l")
        assert of_the_gap >= {"dpo", "reg_dpo", "dpop", "ipo", "sdpo"}
        assert not of_the_gap & {"sft", "kto"}
    finally:
        code_digest.source_of.cache_clear()
        code_digest._tree.cache_clear()
