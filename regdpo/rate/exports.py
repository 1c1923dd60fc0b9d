"""What people answered, for others to use: pairs to train on, and labels of single clips.

Only what counts is in them: no gold pairs, no repeats, and no answer of a rater who failed the gold pairs.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from regdpo.core.rows import AnswerRow, LabelRow
from regdpo.core.temporaries import atomic
from regdpo.evaluate.people import AXES, WORTH

COLUMNS = ("winner", "loser", "caption", "group", *(f"{axis}_votes" for axis in AXES))


def pairs(rows: Iterable[AnswerRow]) -> list[dict[str, str | int]]:
    """Two videos of one prompt each, of which people prefer one: by the votes of one axis at least, and by those of no
    axis the other. Votes are those for the winner less those against it.

    Args:
        rows: those that count.
    """
    votes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    about: dict[tuple[str, str], AnswerRow] = {}
    for row in rows:
        if row.form == "pair":
            turned = row.path_b < row.path_a
            both = (row.path_b, row.path_a) if turned else (row.path_a, row.path_b)
            votes[both][row.axis] += WORTH[row.answer] * (-1 if turned else 1)
            about[both] = row
    found: list[dict[str, str | int]] = []
    for both, counted in sorted(votes.items()):
        signs = {(vote > 0) - (vote < 0) for vote in counted.values()} - {0}
        if len(signs) == 1:
            (sign,) = signs
            winner, loser = both[::sign]
            told = {f"{axis}_votes": sign * counted[axis] for axis in AXES}
            row = about[both]
            found.append({"winner": winner, "loser": loser, "caption": row.caption, "group": row.prompt_id, **told})
    return found


def write_pairs(path: Path, found: list[dict[str, str | int]]) -> None:
    """As the source of pairs `csv` reads them, with the store as `root`; atomically."""
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows(found)
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def labels(rows: Iterable[AnswerRow]) -> list[LabelRow]:
    """A row for each single clip and question.

    Args:
        rows: those that count.
    """
    said: dict[tuple[str, str], list[AnswerRow]] = defaultdict(list)
    for row in rows:
        if row.form == "clip":
            said[row.sha256_a, row.axis].append(row)
    found = []
    for (digest, axis), every in sorted(said.items()):
        row = min(every, key=lambda row: row.key)
        yes = len({it.rater for it in every if it.answer == "yes"})
        raters = len({it.rater for it in every})
        found.append(
            LabelRow(
                label_id=f"{digest}|{axis}",
                path=row.path_a,
                sha256=digest,
                model=row.model_a,
                prompt_id=row.prompt_id,
                caption=row.caption,
                task=row.task,
                question=axis,
                yes=yes,
                raters=raters,
            )
        )
    return found
