"""How far a set of samples is from the real clips: Fréchet's distance between Gaussians over features of whole videos.

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

(Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982; over a network's features
it is FID, Heusel et al., arXiv 1706.08500, and FVD, Unterthiner et al., arXiv 1812.01717.) The features are declared:
those of a VideoMAE whose weights are there, or of a fixed random network, which knows nothing of what videos show.

Of n clips the distance is too great, by about 1/n (Chong and Forsyth, Effectively unbiased FID, arXiv 1911.07023). The
jackknife takes that out (Quenouille, Notes on bias in estimation, 1956), and it gives every clip a number of its own:
n d - (n - 1) d', where d' is the distance without the clip. The clips' mean is the distance without the bias, and
intervals over clips are what they are for every other metric.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regdpo.config.evaluation import Frechet
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.errors import UserError, first_line
from regdpo.core.progress import track
from regdpo.core.rows import REAL, ScoreRow
from regdpo.data.video import read_stored
from regdpo.evaluate.measures import Given
from regdpo.evaluate.proxies import row
from regdpo.models.device import pick
from regdpo.runtime.hub import BROKEN, folder_of

LEAST = 3
"""Clips: of two, without one, there is no covariance."""
WIDTHS = (16, 32)
"""Channels of the random network's layers; twice the last are its features, means and standard deviations."""
SIDE = 64
"""Pixels of a side of what the random network sees."""


def measure(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``: of every clip its share of the distance, and what the bias takes of that."""
    stage: JudgeStage = given.stage
    settings = stage.scores.frechet
    assert settings is not None
    encode = features(settings, pick(given.device))
    ours: dict[str, list[NDArray[np.float64]]] = {}
    real: dict[str, NDArray[np.float64]] = {}
    for sample in track(given.samples, "features", len(given.samples)):
        if sample.model == REAL:
            return []
        if sample.clip_id not in real:
            real[sample.clip_id] = encode(read_stored(given.store, sample.real, sample.real_sha256))
        ours.setdefault(sample.clip_id, []).append(encode(read_stored(given.store, sample.path, sample.sha256)))
    if not given.samples:
        return []
    model, clips = given.samples[0].model, sorted(ours)
    if len(clips) < LEAST:
        why = f"{len(clips)} clips, of which no distance between sets can be told; {LEAST} are needed"
        return [
            ScoreRow(score_id=f"{model}|{key}|{clip}|-1", model=model, metric=key, clip_id=clip, missing=why)
            for clip in clips
            for key in ("frechet", "frechet_bias")
        ]
    whole, shares = jackknife([np.stack(ours[clip]) for clip in clips], [real[clip][None] for clip in clips])
    values = [("frechet", shares), ("frechet_bias", whole - shares)]
    return [row(model, key, clip, -1, value) for key, found in values for clip, value in zip(clips, found, strict=True)]


def jackknife(
    ours: Sequence[NDArray[np.float64]], real: Sequence[NDArray[np.float64]]
) -> tuple[float, NDArray[np.float64]]:
    """The distance of all clips, and of each clip n d - (n - 1) d'.

    Args:
        ours: of each clip the features of its samples, (samples, D). real: of the same clips, of their footage.
    """
    every = range(len(ours))
    whole = distance(np.concatenate(ours), np.concatenate(real))
    without = [
        distance(
            np.concatenate([ours[other] for other in every if other != left]),
            np.concatenate([real[other] for other in every if other != left]),
        )
        for left in track(every, "distances", len(ours))
    ]
    return whole, len(ours) * whole - (len(ours) - 1) * np.array(without)


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Fréchet's distance, squared, of the Gaussians that fit two sets of features, (n, D) and (m, D).

    With A and B centred and divided by the root of n - 1, tr (S1 S2)^(1/2) is the sum of the singular values of A B^T,
    which has no more rows and columns than there are features or videos.
    """
    (mean_a, root_a), (mean_b, root_b) = (_moments(each) for each in (a, b))
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * cross
    return float(np.square(mean_a - mean_b).sum() + spread)


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, and a root of the covariance: R with R^T R = S, of at most D rows."""
    mean = values.mean(axis=0)
    root = (values - mean) / np.sqrt(len(values) - 1)
    if len(root) > root.shape[1]:
        root = np.linalg.qr(root).R
    return mean, root


def features(settings: Frechet, device: torch.device) -> Any:
    """What gives of a video, uint8 RGB (F, H, W, 3), its features, float64 (D,)."""
    if settings.features == "random":
        return lambda video: _pooled(random_network(), as_input(video, SIDE))
    model = video_mae(settings, device)
    frames, size = model.config.num_frames, model.config.image_size

    def encode(video: NDArray[np.uint8]) -> NDArray[np.float64]:
        shown = video[np.linspace(0, len(video) - 1, frames).round().astype(int)]
        seen = as_input(shown, size)
        mean, std = (torch.tensor(it).view(1, 3, 1, 1, 1) for it in (IMAGENET_MEAN, IMAGENET_STD))
        seen = ((seen + 1) / 2 - mean) / std
        with torch.inference_mode():
            states = model(pixel_values=seen.transpose(1, 2).to(device)).last_hidden_state
        found: NDArray[np.float64] = states[0].mean(dim=0).double().cpu().numpy()
        return found

    return encode


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of what VideoMAE was trained on: its checkpoints' preprocessor_config.json."""


def as_input(video: NDArray[np.uint8], side: int) -> Tensor:
    """A video, (F, H, W, 3), as float32 in [-1, 1], (1, 3, F, side, side); its sides are scaled each for itself."""
    values = torch.from_numpy(video).permute(0, 3, 1, 2).float()
    values = nn.functional.interpolate(values, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return (values / 127.5 - 1).permute(1, 0, 2, 3)[None]


@cache
def random_network() -> nn.Module:
    """Two layers of convolutions over space and time with weights of a fixed seed; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in zip((3, *WIDTHS), WIDTHS, strict=False):
        layer = nn.Conv3d(inside, outside, 3, stride=(1, 2, 2), padding=1)
        for parameter in layer.parameters():
            scale = (2 / (inside * 27)) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@torch.inference_mode()
def _pooled(network: nn.Module, video: Tensor) -> NDArray[np.float64]:
    """Mean and standard deviation of each channel over space and time."""
    found = network(video)[0].flatten(1).double()
    return torch.cat([found.mean(dim=1), found.std(dim=1)]).numpy()


def video_mae(settings: Frechet, device: torch.device) -> Any:
    """The encoder of a VideoMAE checkpoint.

    Raises:
        UserError: it cannot be loaded, or is none.
    """
    from transformers import VideoMAEModel

    key = "scores.frechet.model"
    model: Any = VideoMAEModel
    try:
        found, told = model.from_pretrained(
            folder_of(key, str(settings.model), settings.revision),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except BROKEN as error:
        raise UserError(f"{key}: {settings.model} cannot be loaded ({first_line(error)})") from None
    if lacking := sorted(told["missing_keys"]):
        raise UserError(f"{key}: {settings.model} lacks {len(lacking)} tensors of a VideoMAE, such as {lacking[0]}")
    return found.eval().to(device)
