"""The scores stage: one measure of one model's samples, of its weights, or of real footage."""

from regdpo.core.errors import UserError
from regdpo.core.rows import ScoreRow
from regdpo.evaluate.measures import MEASURES, Given


def score(name: str, given: Given) -> list[ScoreRow]:
    """The rows of a measure.

    Raises:
        UserError: there is no such measure; it makes a metric that it does not declare, which no page would show.
    """
    if name not in MEASURES:
        raise UserError(f"{name}: there is no such measure; there are {', '.join(MEASURES)}")
    measure = MEASURES[name]
    rows = measure.call()(given)
    declared = {metric.key for metric in measure.metrics}
    if strange := {row.metric for row in rows} - declared:
        raise UserError(
            f"measure {name}: makes {', '.join(sorted(strange))}, and declares {', '.join(sorted(declared))}"
        )
    return rows
