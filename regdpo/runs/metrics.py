"""What a training says while it runs: metrics.jsonl and eval.jsonl, TensorBoard, and a line for people."""

import json
import math
import sys
import time
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from regdpo.config.stage_inputs import TrainStage
from regdpo.core.progress import duration
from regdpo.core.temporaries import atomic
from regdpo.objectives import losses

LINE_EVERY = 10.0  # seconds


def terms(
    stage: TrainStage,
    loss: Tensor,
    e: Tensor,
    r: Tensor | None,
    pairs: int,
    good: Tensor | None = None,
    weight: Tensor | None = None,
    reference_point: Tensor | None = None,
) -> dict[str, Tensor]:
    """What is logged of each pair, or of each sample with a label, detached, shape (B,). docs/reference/metrics.md says
    what each means.

    Args:
        loss: (B,). e, r: (2B,) winners first, or (B,) and None for an objective without losers; of samples (B,).
        good: labels, (B,), if they are samples; their values are for ``of_samples``.
        weight: of the SFT term, (B,). reference_point: (), of objectives that have one.
    """
    if r is None:
        return {"loss": loss, "sft_loss": e[:pairs]}
    gap = e - r
    common = {} if reference_point is None else {"reference_point": reference_point.expand_as(loss)}
    if stage.point_decay is not None:
        common["gain"] = -gap.view(-1, pairs).mean(0)
    if good is not None:
        return common | {
            "loss": loss,
            "good": good.float(),
            "sft_loss": e * good,
            "win_gap": gap * good,
            "lose_gap": gap * ~good,
            "accuracy": torch.where(good, gap < 0, gap > 0).float(),
        }
    (e_w, e_l), (r_w, r_l) = e.split(pairs), r.split(pairs)
    errors = (e_w, e_l, r_w, r_l)
    s = losses.preference_gap(*errors)
    win_gap, lose_gap = gap.split(pairs)
    result = common | {
        "loss": loss,
        "sft_loss": e_w,
        "win_gap": win_gap,
        "lose_gap": lose_gap,
        "accuracy": (s < 0).float(),
        "loser_dominant_ratio": (lose_gap > -win_gap).float(),
    }
    if stage.sft is not None and weight is not None:
        result["r"] = weight
    if stage.beta is None:  # an objective without this slope
        return result
    dgr = losses.dgr(*errors, stage.beta)
    result |= {"dpo_loss": losses.dpo(*errors, stage.beta), "margin": -stage.beta / 2 * s, "dgr": dgr}
    if stage.sft is None:
        terms = (stage.beta, stage.r, stage.r_scale or 1.0)
        result["r"] = losses.sft_weight(*errors, *terms) if stage.r else torch.zeros_like(dgr)
    return result


def of_samples(means: dict[str, float]) -> dict[str, float]:
    """A step's means, where samples have labels: gaps and errors over as many as are good, or bad.

    Args:
        means: over all pairs or samples of the step, as ``terms`` names them.
    """
    share = means.get("good")
    if share is None:
        return means
    shares = {"sft_loss": share, "win_gap": share, "lose_gap": 1 - share}
    means = {name: value for name, value in means.items() if shares.get(name) != 0}
    return {name: value / shares.get(name, 1) for name, value in means.items()}


class Log:
    """The logs of a run folder, written by the first rank. A resumed run drops what lies beyond its checkpoint."""

    def __init__(self, run: Path, start: int, steps: int):
        self.steps, self.start, self.begun, self.said = steps, start, time.monotonic(), 0.0
        self.files: dict[str, IO[str]] = {name: _reopen(run / f"{name}.jsonl", start) for name in ("metrics", "eval")}
        from torch.utils.tensorboard import SummaryWriter  # here: the first rank alone needs it

        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)

    def step(self, row: dict[str, Any]) -> None:
        """Log one optimiser step, flushed at once."""
        self._write("metrics", row)
        now = time.monotonic()
        if now - self.said < LINE_EVERY and row["step"] != self.steps:
            return
        self.said = now
        left = (now - self.begun) / (row["step"] - self.start) * (self.steps - row["step"])
        shown = ("loss", "win_gap", "lose_gap", "accuracy", "dgr", "grad_norm")
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in shown if row.get(name) is not None)
        print(f"step {row['step']}/{self.steps}  {numbers}  {duration(left)} left", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Log one evaluation on the validation split."""
        self._write("eval", row)
        print(f"step {row['step']}/{self.steps}  validation error {row['error']:.4f}", file=sys.stderr, flush=True)

    def close(self) -> None:
        for handle in self.files.values():
            handle.close()
        self.board.close()

    def _write(self, name: str, row: dict[str, Any]) -> None:
        row = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        self.files[name].write(json.dumps(row) + "\n")
        self.files[name].flush()
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                self.board.add_scalar(f"{name}/{key}", value, row["step"])


def logged(run: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a log, ``metrics`` or ``eval``."""
    path = run / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _reopen(path: Path, start: int) -> IO[str]:
    """Open for appending after the rows up to and including step ``start``; a line cut off by a kill is dropped."""
    kept = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= start:
                kept.append(line + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text("".join(kept))
    return path.open("a")
