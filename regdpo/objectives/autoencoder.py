"""Losses of a video autoencoder: pure functions of videos (B, C, F, H, W), posteriors and a critic's answers.

MUG-V (arXiv 2510.17519) trains on reconstruction, in which L1 is weighted by how the image's Laplacian changes in time,
a KL term, and an adversarial term at the end. It gives neither the form of that weight nor the factors: what is said
below of them is ours.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from regdpo.config.autoencoder import AutoencoderLoss


def laplacian(video: Tensor) -> Tensor:
    """``left + right + above + below - 4 x`` of each pixel; beyond an edge the edge goes on. Shape as given."""
    frames = video.flatten(0, 2)[:, None]
    x = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    around = x[..., 1:-1, :-2] + x[..., 1:-1, 2:] + x[..., :-2, 1:-1] + x[..., 2:, 1:-1]
    return (around - 4 * frames)[:, 0].view_as(video)


def detail_change(video: Tensor) -> Tensor:
    """``|L(x_t) - L(x_t-1)|``, with L the ``laplacian``, mean over channels: (B, 1, F, H, W). The first frame has that
    of the second, and a single frame none."""
    if video.shape[2] == 1:
        return torch.zeros_like(video[:, :1])
    change = laplacian(video).diff(dim=2).abs().mean(1, keepdim=True)
    return torch.cat([change[:, :, :1], change], dim=2)


def weighted_l1(made: Tensor, real: Tensor, strength: float) -> Tensor:
    """Mean of ``w |made - real|`` of each video, (B,), with ``w = (1 + strength m / mean(m)) / (1 + strength)`` and
    ``m = detail_change(real)``. The weights of a video have a mean of one, so that the loss stays on the scale of L1;
    where nothing changes, and with strength 0, it is L1."""
    change = detail_change(real.detach())
    mean = change.mean((1, 2, 3, 4), keepdim=True)
    relative = torch.where(mean > 0, change / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    weight = (1 + strength * relative) / (1 + strength)
    return (weight * (made - real).abs()).mean((1, 2, 3, 4))


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``(mean^2 + variance - 1 - log variance) / 2``: the divergence of the posterior from a standard normal
    (arXiv 1312.6114, appendix B), mean over a video's latents, (B,)."""
    each = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    return each.flatten(1).mean(1)


def terms(
    made: Tensor,
    real: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    loss: AutoencoderLoss,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """All but the adversarial one, by their names in ``loss``, each () and without its factor.

    Args:
        perceptual: distance of pictures (N, 3, H, W) -> (N,), if it is asked for.
    """
    found = {
        "mse": F.mse_loss(made, real),
        "l1": weighted_l1(made, real, loss.detail).mean(),
        "kl": kl(mean, log_variance).mean(),
    }
    if perceptual:
        found["perceptual"] = perceptual(*(it.transpose(1, 2).flatten(0, 1) for it in (made, real))).mean()
    return found


def total(terms: Mapping[str, Tensor], loss: AutoencoderLoss) -> Tensor:
    """Their sum with their factors, ()."""
    return torch.stack([getattr(loss, name) * value for name, value in terms.items()]).sum()


def adversarial(made: Tensor) -> Tensor:
    """``-D(made)`` of what the autoencoder made (hinge, arXiv 1705.02894), mean over a video's answers, (B,)."""
    return -made.flatten(1).mean(1)


def critic(real: Tensor, made: Tensor) -> Tensor:
    """``(max(0, 1 - D(real)) + max(0, 1 + D(made))) / 2`` of the critic itself (the same), mean over answers, (B,)."""
    return (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + made).flatten(1).mean(1)) / 2


def adversarial_weight(step: int, begins: int, weight: float) -> float:
    """What the adversarial term counts at a step, from 0: nothing before it begins, since against blurred pictures a
    critic wins at once and says little."""
    return weight if step >= begins else 0.0
