"""The objectives: pure functions of four errors.

Inputs ``e_w, e_l, r_w, r_l``: shape (B,), fp32 element-mean squared errors of policy (e) and reference (r) on winner
and loser. Each function returns the loss per pair, shape (B,). With ``s = (e_w - r_w) - (e_l - r_l)`` and
``h = beta / 2``.

A beta means nothing without its reduction. Here it is a slope on MEAN errors, for all objectives alike: published
values go from 1 to 5000, and a beta for errors summed over N elements is N times smaller. The factor 1/2 is that of
Diffusion-DPO's code; ``kto`` alone has none, as its source. docs/concepts/methods.md has the gradients side by side.

``kto``, ``ddo`` and ``nft`` need no pairs: each is a loss of samples with a label of their own, ``(e, r, good, ...)``,
each (B,), and one of pairs, made of that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def preference_gap(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor) -> Tensor:
    """``s``: win gap less lose gap. Negative where the policy prefers the winner more than the reference does."""
    return (e_w - r_w) - (e_l - r_l)


def dgr(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float) -> Tensor:
    """The DPO gradient ratio ``h * sigmoid(h s)`` of each pair, detached (arXiv 2511.01450, eq. 4, with h for beta)."""
    h = beta / 2
    return (h * torch.sigmoid(h * preference_gap(e_w, e_l, r_w, r_l))).detach()


def sft(e_w: Tensor) -> Tensor:
    """The winner's own error: flow matching (arXiv 2210.02747, eq. 9) or denoising on real clips, element mean."""
    return e_w


def dpo(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float) -> Tensor:
    """``-log sigmoid(-h s)``: Diffusion-DPO (arXiv 2311.12908, eq. 14; its code has the factor 1/2) on mean errors."""
    return F.softplus(beta / 2 * preference_gap(e_w, e_l, r_w, r_l))


def sft_weight(
    e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float, r: str | float, r_scale: float = 1.0
) -> Tensor:
    """``R``, the weight of Reg-DPO's SFT term: the constant ``r``, or ``r_scale`` times the pair's own DGR."""
    return r_scale * dgr(e_w, e_l, r_w, r_l, beta) if r == "dgr" else torch.full_like(e_w, float(r)).detach()


def reg_dpo(
    e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float, r: str | float = "dgr", r_scale: float = 1.0
) -> Tensor:
    """``dpo + R * e_w`` (arXiv 2511.01450, eq. 6) with ``R`` detached: eq. 5 follows from eq. 6 only so.

    ``r`` multiplies the winner's MEAN error; the paper's figures fit a mean, and beta / 2 where it writes beta.
    """
    return dpo(e_w, e_l, r_w, r_l, beta) + sft_weight(e_w, e_l, r_w, r_l, beta, r, r_scale) * e_w


def regularised(loss: Tensor, slope: Tensor, e_w: Tensor, r: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Any loss with Reg-DPO's SFT term: ``loss + R * e_w`` with ``R`` detached (arXiv 2511.01450, eq. 6).

    Args:
        loss: (B,), without graph, as all that follows. slope: its derivative by ``e_w``, of the shape of ``e_w``.
        e_w: winners' errors, (B,), or (B, F) of each frame.
        r: ``R``, (B,), a slope on the mean over frames; None: the loss's own slope where it is above 0. Of ``dpo``
            that is its DGR, as in eq. 5.

    Returns:
        The loss, its derivative by ``e_w``, and ``R`` (B,).
    """
    weight = (
        slope.clamp_min(0) if r is None else (r / e_w[0].numel()).reshape(-1, *[1] * (e_w.dim() - 1)).expand_as(e_w)
    )
    whole = lambda it: it.reshape(len(it), -1).sum(1)  # noqa: E731
    return loss + whole(weight * e_w), slope + weight, whole(weight)


def dpop(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float, penalty: float) -> Tensor:
    """``softplus(h (s + penalty * max(0, e_w - r_w)))``: DPO-Positive (arXiv 2402.13228) on mean errors.

    The paper takes ``lambda * max(0, log(pi_ref / pi))`` of the winner off the difference of log-ratios that beta
    multiplies in the sigmoid. Diffusion-DPO puts ``h (e_w - r_w)`` for beta times that logarithm, so ``penalty`` is the
    paper's lambda, without a unit.
    """
    return F.softplus(beta / 2 * (preference_gap(e_w, e_l, r_w, r_l) + penalty * F.relu(e_w - r_w)))


def ipo(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float) -> Tensor:
    """``(h s + 1/2)^2``: IPO (arXiv 2310.12036, eq. 17) with tau = beta, on mean errors.

    Eq. 17 is ``(rho - 1 / (2 tau))^2`` with ``rho`` the difference of the log-ratios. Diffusion-DPO bounds ``rho``
    by ``-k s`` with a constant k (timesteps, weighting, elements) that nobody knows and that its beta swallows:
    ``h = k * beta_of_the_paper``. The same h for tau gives ``tau^2 (rho - 1/(2 tau))^2 = (tau rho - 1/2)^2 =
    (h s + 1/2)^2``: no k is left, so beta is in the units of ``dpo``'s. The constant factor ``tau^2`` moves no optimum.
    Without it gradients would be 1/beta^2 as large and drown in Adam's epsilon.

    The loss is 1/4 at step 1, with the slope h in s (``dpo``: h/2), and 0 at ``s = -1/beta``: beyond that gap of mean
    errors it pulls back. TRL's ``ipo`` takes the log-likelihoods' mean over tokens, as here over elements.
    """
    return (beta / 2 * preference_gap(e_w, e_l, r_w, r_l) + 0.5).square()


def sdpo_scale(dot: Tensor, norm2: Tensor, mu: float) -> Tensor:
    """``lambda``, the factor on the loser's gradient of each pair, shape (B,), detached.

    ``clamp((1 - mu) * norm2 / dot, 0, 1)`` where ``dot > 0``, else 1: the largest with which
    ``(g_w - lambda g_l) . g_w >= mu |g_w|^2`` (if below 1), where g is the gradient of an error. So a step keeps at
    least the share mu of the winner's own first-order fall, and at mu = 0 does not raise its error.

    Args:
        dot: ``g_w . g_l`` of each pair; a common factor of dot and norm2 cancels.
        norm2: ``|g_w|^2``.
        mu: in [0, 1]. 1 takes the loser away wherever it hurts the winner.
    """
    return torch.where(dot > 0, (1 - mu) * norm2 / dot, torch.ones_like(dot)).clamp(0, 1).detach()


def sdpo(
    e_w: Tensor,
    e_l: Tensor,
    r_w: Tensor,
    r_l: Tensor,
    beta: float,
    mu: float,
    dot: Tensor,
    norm2: Tensor,
) -> Tensor:
    """``dpo`` with the loser's gradient scaled by ``lambda``: Diffusion-SDPO (arXiv 2511.03317) on mean errors.

    In s the loser's error becomes ``sg(e_l) + lambda (e_l - sg(e_l))``: the value is that of ``dpo``, its gradient is
    not. ``dot`` and ``norm2``, shape (B,), are taken in output space, as in the paper's code, where the gradient of an
    error is its residual (prediction less target) times a constant. There the guarantee of ``sdpo_scale`` is exact
    for the outputs; for the weights it holds as far as both halves move through one Jacobian. The code has
    one lambda a local batch; here each pair has its own.
    """
    scaled = e_l.detach() + sdpo_scale(dot, norm2, mu) * (e_l - e_l.detach())
    return dpo(e_w, scaled, r_w, r_l, beta)


def kto_reference(e: Tensor, r: Tensor) -> Tensor:
    """``max(0, mean(r - e))``, shape (), detached: how much better than the reference the policy is on average."""
    return (r - e).mean().clamp(min=0).detach()


def kto(
    e: Tensor,
    r: Tensor,
    desirable: Tensor,
    beta: float,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
    reference_point: Tensor | float | None = None,
) -> Tensor:
    """``w * (1 - sigmoid(+-beta (g - z)))`` with ``g = r - e``: Diffusion-KTO (arXiv 2404.04465) on mean errors.

    + where a sample is desirable. One label a sample, no pairs: winners and losers are passed one after the other.
    beta is whole, not halved, as in the paper's code (where g is a difference of element means): at ``g = z`` the
    slope in e is ``w beta / 4``, which is ``dpo``'s at step 1 for the same beta.

    Args:
        e, r: errors of policy and reference, shape (B,).
        desirable: bool, shape (B,).
        reference_point: ``z``, a constant to the gradient. None: ``kto_reference`` of what is passed.
    """
    z = kto_reference(e, r) if reference_point is None else reference_point
    gain = beta * (r - e - torch.as_tensor(z, dtype=e.dtype, device=e.device).detach())
    weight = torch.where(desirable, torch.full_like(e, weight_desirable), torch.full_like(e, weight_undesirable))
    return weight.detach() * torch.sigmoid(torch.where(desirable, -gain, gain))


def kto_of_pairs(
    e_w: Tensor,
    e_l: Tensor,
    r_w: Tensor,
    r_l: Tensor,
    beta: float,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
    reference_point: Tensor | float | None = None,
) -> Tensor:
    """``kto`` of a pair as one desirable and one undesirable sample, (B,): the mean of the two.

    Args:
        reference_point: as in ``kto``; None: of the winners and losers that are passed.
    """
    z = kto_reference(torch.cat([e_w, e_l]), torch.cat([r_w, r_l])) if reference_point is None else reference_point
    terms = (beta, weight_desirable, weight_undesirable, z)
    desirable = torch.ones_like(e_w, dtype=torch.bool)
    return (kto(e_w, r_w, desirable, *terms) + kto(e_l, r_l, ~desirable, *terms)) / 2


def ddo(e: Tensor, r: Tensor, good: Tensor, beta: float, alpha: float) -> Tensor:
    """``softplus(h (e - r))`` of a real sample, ``alpha * softplus(-h (e - r))`` of a generated one.

    Direct Discriminative Optimization (arXiv 2503.01103): the likelihood ratio of policy and reference is the logit of
    a discriminator, ``-log sigmoid(l)`` its loss on what is real and ``-log sigmoid(-l)`` on what is not. Diffusion-DPO
    puts ``-h (e - r)`` for the log-ratio that beta multiplies.

    Args:
        e, r: errors of policy and reference, shape (B,).
        good: bool, shape (B,): whether a sample is real.
        alpha: weight of generated samples.
    """
    logit = beta / 2 * (r - e)
    return torch.where(good, F.softplus(-logit), alpha * F.softplus(logit))


def ddo_of_pairs(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float, alpha: float) -> Tensor:
    """``ddo`` of a real and a generated sample, (B,): their sum."""
    real = torch.ones_like(e_w, dtype=torch.bool)
    return ddo(e_w, r_w, real, beta, alpha) + ddo(e_l, r_l, ~real, beta, alpha)


def nft(e: Tensor, r: Tensor, good: Tensor, mix: float, m: Tensor) -> Tensor:
    """The error of an implicit policy, over ``mix``: negative-aware fine-tuning (DiffusionNFT, arXiv 2509.16117).

    With b for ``mix``, good samples are fitted by ``(1 - b) reference + b policy``, the others by ``(1 + b) reference
    - b policy``. Either answer's coefficients sum to 1, so its residual is the same sum of residuals, and its
    element-mean square ``(1 - b)^2 r + 2 b (1 - b) m + b^2 e`` or ``(1 + b)^2 r - 2 b (1 + b) m + b^2 e``. The paper's
    weighting by an error of x0 is left out.

    Args:
        e, r: errors of policy and reference, shape (B,).
        good: bool, shape (B,).
        mix: the paper's beta.
        m: element mean of the policy's residual times the reference's, shape (B,), with its gradient.
    """
    b = mix
    positive = (1 - b) ** 2 * r + 2 * b * (1 - b) * m + b**2 * e
    negative = (1 + b) ** 2 * r - 2 * b * (1 + b) * m + b**2 * e
    return torch.where(good, positive, negative) / b


def nft_of_pairs(e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, mix: float, m_w: Tensor, m_l: Tensor) -> Tensor:
    """``nft`` of a good and a bad sample, (B,): their sum."""
    good = torch.ones_like(e_w, dtype=torch.bool)
    return nft(e_w, r_w, good, mix, m_w) + nft(e_l, r_l, ~good, mix, m_l)


def dense_dpo(
    e_w: Tensor, e_l: Tensor, r_w: Tensor, r_l: Tensor, beta: float, preferred: Tensor, segment: Tensor
) -> Tensor:
    """The mean over time of ``|p| softplus(h p s)``, s of each segment: DenseDPO (arXiv 2506.03517) on mean errors.

    A segment counts by its length, and one without preference not at all. With one segment it is ``dpo``.

    Args:
        e_w, e_l, r_w, r_l: errors of each latent frame, shape (B, F).
        preferred: ``p`` of each frame's segment, shape (B, F): 1 where the winner is better, -1 the loser, else 0.
        segment: the number of each frame's segment, shape (B, F).
    """
    same = (segment[:, :, None] == segment[:, None, :]).to(e_w)
    gap = (same * preference_gap(e_w, e_l, r_w, r_l)[:, None, :]).sum(2) / same.sum(2)
    return (preferred.abs() * F.softplus(beta / 2 * preferred * gap)).mean(1)
