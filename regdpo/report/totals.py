"""All measures at a glance: normalised scores and the total of ranks, of base and arms."""

from regdpo.core.model_names import BASE
from regdpo.core.rows import REAL
from regdpo.evaluate.measures import VBENCH
from regdpo.evaluate.ranks import rank_total
from regdpo.evaluate.vbench import I2V_CONDITION, T2V_QUALITY, T2V_SEMANTIC
from regdpo.report.parts import part
from regdpo.report.results import Cell

SCALES = {f"{VBENCH}{name}": scale for name, scale in {**T2V_QUALITY, **T2V_SEMANTIC, **I2V_CONDITION}.items()}
"""VBench's own, by metric."""


@part
class Standing:
    """Where a model stands among those that are compared."""

    points: dict[str, int]
    """Metric -> points: the best of n models gets n, the worst 1, tied ones the higher."""
    total: int
    """Sum of the points."""
    normalised: dict[str, float]
    """Metric -> score: of VBench's dimensions on VBench's scale, of others from 0 (the worst of these models) to 1 (the
    best)."""


@part
class Totals:
    """Base and arms over all measures that all of them have."""

    metrics: list[str]
    """Those that count."""
    left_out: dict[str, str]
    """Metric -> why it does not."""
    rows: dict[str, Standing]
    """Base and arms; empty where no measure counts."""


def totals(table: dict[str, dict[str, Cell]]) -> Totals:
    """Of a table as ``results.table`` makes it. A metric without direction counts by the distance to real footage."""
    models = [name for name in table if name != REAL]
    scores: dict[str, dict[str, float]] = {}
    left_out = {}
    for key in table[BASE]:
        found = {name: _score(table[name][key], name) for name in models}
        known = {name: value for name, value in found.items() if value is not None}
        if len(known) == len(models):
            scores[key] = known
        else:
            measured = all(table[name][key].mean for name in models)
            lacking = ", ".join(name for name in models if name not in known)
            left_out[key] = "no real footage to be near to" if measured else f"missing for {lacking}"
    of = {name: {key: scores[key][name] for key in scores} for name in models}
    total = rank_total(of)
    rows = {
        name: Standing(
            {key: rank_total({other: {key: value} for other, value in scores[key].items()})[name] for key in scores},
            total[name],
            {key: _normalised(table[name][key], scores[key], name) for key in scores},
        )
        for name in models
    }
    return Totals(list(scores), left_out, rows if scores else {})


def _score(cell: Cell, name: str) -> float | None:
    """Higher is better."""
    if cell.mean is None:
        return None
    if cell.metric.better:
        return cell.metric.better * cell.mean.mean
    if name == BASE:
        return 0.0  # others are told by how much further from real they are
    return -cell.distance.mean if cell.distance else None


def _normalised(cell: Cell, scores: dict[str, float], name: str) -> float:
    if cell.metric.key in SCALES and cell.mean:
        return SCALES[cell.metric.key].normalised(cell.mean.mean)
    low, high = min(scores.values()), max(scores.values())
    return (scores[name] - low) / (high - low) if high > low else 1.0
