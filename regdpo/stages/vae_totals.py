"""The vae_totals stage: what autoencoders lose, as means with intervals, by resolution and frames."""

from collections import defaultdict
from collections.abc import Sequence

from regdpo.config.stage_inputs import VaeTotalsStage
from regdpo.core.rows import ClipRow, ReconstructionRow
from regdpo.evaluate import stats
from regdpo.evaluate.reconstruction import METRICS
from regdpo.evaluate.stats import Look, Places
from regdpo.report.vae import Lost, Reconstruction, Setting


def totals(stage: VaeTotalsStage, rows: Sequence[ReconstructionRow], clips: Sequence[ClipRow]) -> Reconstruction:
    """By model in the order of the rows, resolution and frames.

    Args:
        clips: with all that the rows are about.
    """
    measured = {row.clip_id for row in rows}
    places = stats.places(clip for clip in clips if clip.clip_id in measured)
    models = list(dict.fromkeys(row.model for row in rows))
    by_setting: dict[tuple[str, int, int], list[ReconstructionRow]] = defaultdict(list)
    for row in rows:
        by_setting[row.model, row.resolution, row.frames].append(row)
    settings = [
        Setting(
            model=model,
            resolution=resolution,
            frames=frames,
            sizes=sorted({f"{row.width}x{row.height}" for row in those if row.width}),
            clips=len({row.clip_id for row in those}),
            cells={key: _lost(stage, [row for row in those if row.metric == key], places) for key in METRICS},
        )
        for (model, resolution, frames), those in sorted(
            by_setting.items(), key=lambda item: (models.index(item[0][0]), *item[0][1:])
        )
    ]
    return Reconstruction(metrics=METRICS, settings=settings)


def _lost(stage: VaeTotalsStage, rows: list[ReconstructionRow], places: Places) -> Lost:
    looks = [Look("", None, 0, row.clip_id, row.value) for row in rows if row.value is not None]
    reasons = sorted({row.missing for row in rows if row.value is None})
    return Lost(stats.interval(looks, places, stage.bootstrap) if looks else None, "; ".join(reasons))


def text(found: Reconstruction) -> str:
    """A table for the log: settings in rows, metrics in columns."""
    table = [["", "clips", *(metric.label for metric in found.metrics.values())]]
    for it in found.settings:
        name = f"{it.model} {it.resolution}p {it.frames} frames"
        table.append(
            [name, str(it.clips), *(_cell(it.cells[key], metric.decimals) for key, metric in found.metrics.items())]
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, *found.notes])


def _cell(cell: Lost, decimals: int) -> str:
    if cell.mean is None:
        return "missing"
    mean = f"{cell.mean.mean:.{decimals}f}"
    if cell.mean.low is None or cell.mean.high is None:
        return mean
    return f"{mean} [{cell.mean.low:.{decimals}f}, {cell.mean.high:.{decimals}f}]"
