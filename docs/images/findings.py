"""Make findings.svg and the tables of docs/findings.md from a finished run of config/experiments/beyond_sft.yaml.

    snakemake --cores 2 report --configfile config/experiments/beyond_sft.yaml
    .venv/bin/python docs/images/findings.py --config config/experiments/beyond_sft.yaml

Differences, intervals and corrections are those of the report's page (regdpo/evaluate/stats.py), over the arms that the
protocol names. Prints the tables as Markdown.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from regdpo.config import schema  # noqa: E402
from regdpo.core import manifests  # noqa: E402
from regdpo.core.model_names import ModelName  # noqa: E402
from regdpo.core.rows import REAL, ClipRow, ScoreRow  # noqa: E402
from regdpo.evaluate import stats  # noqa: E402
from regdpo.evaluate.measures import metrics  # noqa: E402

YARDSTICK = "sft_on"
ERROR = "held_out_error"
SHOWN = ("ssim", "psnr", "sharpness", "motion")


@dataclass(frozen=True)
class Line:
    """An arm against the yardstick."""

    arm: str
    mean: float  # of the primary measure
    primary: stats.Interval
    corrected: float | None  # p after Holm
    error: stats.Interval
    by_base: list[float]  # differences of the primary measure


class Experiment:
    """Scores of a run, as the page pairs them."""

    def __init__(self, config: schema.Config, results: Path):
        self.config = config
        rows = manifests.read(results / "scores.parquet", ScoreRow)
        clips = {row.clip_id: row for row in manifests.read(results / "clips.parquet", ClipRow)}
        self.places = stats.places(clips[name] for name in {row.clip_id for row in rows})
        self.looks: dict[tuple[str, str], list[stats.Look]] = {}
        for row in rows:
            if row.value is not None:
                name = ModelName.parse(row.model)
                look = stats.Look(name.of, name.seed, row.seed, row.clip_id, row.value)
                self.looks.setdefault((name.arm, row.metric), []).append(look)
        self.bases = list(config.base.folders)

    def mean(self, arm: str, metric: str, base: str | None = None) -> float:
        """Of each clip's mean; of one base model, or of all."""
        looks = [look for look in self.looks[arm, metric] if base is None or look.base == base]
        means = stats.clip_means(looks).values()
        return sum(means) / len(means)

    def delta(self, arm: str, metric: str) -> stats.Interval:
        """Against the yardstick, paired by base model, training seed and clip."""
        bootstrap = self.config.scores.bootstrap
        return stats.delta(self.looks[arm, metric], self.looks[YARDSTICK, metric], self.places, bootstrap)

    def lines(self) -> list[Line]:
        """Every arm that the protocol holds against the yardstick."""
        primary = self.config.scores.primary
        arms = [arm for arm in self.config.train.arms if arm not in ("sft", YARDSTICK)]
        deltas = [self.delta(arm, primary) for arm in arms]
        corrected = stats.holm([1.0 if delta.p is None else delta.p for delta in deltas])
        return [
            Line(
                arm,
                self.mean(arm, primary),
                delta,
                p,
                self.delta(arm, ERROR),
                [self.mean(arm, primary, base) - self.mean(YARDSTICK, primary, base) for base in self.bases],
            )
            for arm, delta, p in zip(arms, deltas, corrected, strict=True)
        ]


def detectable(delta: stats.Interval, confidence: float, bases: int, arms: int) -> float:
    """The least difference of this spread that would have been told, had its p been the smallest of all arms'."""
    from scipy.special import stdtrit

    assert delta.high is not None
    error = (delta.high - delta.mean) / stdtrit(bases - 1, (1 + confidence) / 2)
    return float(stdtrit(bases - 1, 1 - (1 - confidence) / (2 * arms)) * error)


def spread(delta: stats.Interval, decimals: int) -> str:
    """A difference with its interval."""
    if delta.low is None:
        return f"{delta.mean:+.{decimals}f}"
    return f"{delta.mean:+.{decimals}f} [{delta.low:+.{decimals}f}, {delta.high:+.{decimals}f}]"


def shown(p: float | None) -> str:
    """A p as the table has it."""
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"


def told(experiment: Experiment, lines: list[Line]) -> str:
    """The table that decides."""
    primary = experiment.config.scores.primary
    confidence = experiment.config.scores.bootstrap.confidence
    found = [
        "| arm | spectral distance, dB (lower) | to `sft_on` | p | after Holm | least that would be told "
        "| held-out error, to `sft_on` | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in ("base", "sft", YARDSTICK):
        beside = "" if arm == "base" else f"{experiment.mean(arm, ERROR):.3f} itself"
        found.append(f"| `{arm}` | {experiment.mean(arm, primary):.2f} | | | | | {beside} | |")
    for line in lines:
        least = detectable(line.primary, confidence, len(experiment.bases), len(lines))
        found.append(
            f"| `{line.arm}` | {line.mean:.2f} | {spread(line.primary, 2)} | {shown(line.primary.p)} "
            f"| {shown(line.corrected)} | {least:.2f} | {spread(line.error, 4)} | {shown(line.error.p)} |"
        )
    return "\n".join(found)


def beside(experiment: Experiment, metric: str, decimals: int) -> str:
    """A metric base model by base model: what it is of the yardstick, and every arm's difference."""
    seeds = list(experiment.config.base.seeds)
    real = f"; real clips {experiment.mean(REAL, metric):.{decimals}f}" if (REAL, metric) in experiment.looks else ""
    label = metrics()[metric].label
    found = [
        f"| {label}{real} | {' | '.join(f'base {seed}' for seed in seeds)} | mean |",
        "|---|" + "---|" * (len(seeds) + 1),
    ]
    for arm in ("sft", YARDSTICK, *(arm for arm in experiment.config.train.arms if arm not in ("sft", YARDSTICK))):
        sign = "" if arm in ("sft", YARDSTICK) else "+"
        values = [experiment.mean(arm, metric, base) for base in experiment.bases]
        if sign:
            values = [
                value - experiment.mean(YARDSTICK, metric, base)
                for value, base in zip(values, experiment.bases, strict=True)
            ]
        cells = " | ".join(f"{value:{sign}.{decimals}f}" for value in (*values, sum(values) / len(values)))
        found.append(f"| `{arm}` | {cells} |")
    return "\n".join(found)


def draw(experiment: Experiment, lines: list[Line], out: Path) -> None:
    """Every arm's difference with its interval, and a point for each base model."""
    style: Any = {"font.size": 8.5, "svg.hashsalt": "regdpo", "svg.fonttype": "none", "font.family": "sans-serif"}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.6, 0.34 * len(lines) + 1.1), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        places = range(len(lines), 0, -1)
        for place, line in zip(places, lines, strict=True):
            for axes, delta in ((left, line.primary), (right, line.error)):
                if delta.low is not None and delta.high is not None:
                    axes.plot([delta.low, delta.high], [place, place], color="#444444", linewidth=1.2)
                axes.plot(delta.mean, place, "o", color="#000000", markersize=5)
            left.plot(line.by_base, [place] * len(line.by_base), "|", color="#0072b2", markersize=9)
        for axes in (left, right):
            axes.axvline(0, color="#999999", linewidth=0.8, linestyle=(0, (4, 2)))
        left.set_yticks(list(places), [line.arm for line in lines])
        left.set_xlabel("spectral distance less that of sft_on, dB: lower is better")
        right.set_xlabel("held-out error less that of sft_on")
        figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("findings.svg"))
    args = parser.parse_args()
    config = schema.check(yaml.safe_load(args.config.read_text()))
    experiment = Experiment(config, args.results)
    lines = experiment.lines()
    draw(experiment, lines, args.out)
    print(told(experiment, lines))
    for metric in (config.scores.primary, ERROR, *SHOWN):
        print(f"\n{beside(experiment, metric, metrics()[metric].decimals)}")


if __name__ == "__main__":
    main()
