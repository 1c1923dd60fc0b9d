"""The answers stage: what people said, as far as it is about the samples that there are, without the raters' names."""

import sys
from pathlib import Path

from regdpo.config.stage_inputs import AnswersStage
from regdpo.core.rows import AnswerRow, SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.evaluate.measures import MEASURES, Given
from regdpo.rate.answers import stored
from regdpo.stages.scores import score


def about(stage: AnswersStage, samples: list[SampleRow]) -> list[AnswerRow]:
    """The answers about these videos, and the gold pairs of those who gave them. Raters are numbered by their first
    answer.

    Raises:
        UserError: the answers cannot be read.
    """
    every = sorted(stored(Path(stage.ratings)), key=lambda row: (row.when, row.key))
    there = {(row.model, row.clip_id, row.sha256) for row in samples}

    def holds(row: AnswerRow) -> bool:
        sides = [(row.model_a, row.prompt_id, row.sha256_a), (row.model_b, row.prompt_id, row.sha256_b)]
        return all(side in there for side in sides if side[0])

    raters = list(dict.fromkeys(row.rater for row in every if holds(row) and not row.gold))
    found = [row for row in every if row.rater in raters and (row.gold or holds(row))]
    if left := len([row for row in every if not row.gold]) - len([row for row in found if not row.gold]):
        print(f"{left} answers are about samples that there are no more; they do not count", file=sys.stderr)
    return [_unnamed(row, f"rater {raters.index(row.rater) + 1}") for row in found]


def scores(stage: AnswersStage, samples: list[SampleRow], rows: list[AnswerRow], store: Store) -> list[ScoreRow]:
    """The rows of all measures of answers."""
    given = Given(store, "cpu", stage, samples=tuple(samples), answers=tuple(rows))
    return [row for name, it in MEASURES.items() if it.reads == "answers" for row in score(name, given)]


def _unnamed(row: AnswerRow, rater: str) -> AnswerRow:
    """When it was given is left out too: it is another answer when it says something else."""
    answer_id = "|".join([rater, *row.answer_id.rsplit("|", 2)[1:]])
    return row.model_copy(update={"rater": rater, "answer_id": answer_id, "when": ""})
