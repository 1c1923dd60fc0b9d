"""What people said of videos, as pairs and labels: of two videos which is better, or of one whether it is good.

A table (CSV or parquet) has an answer a row: ``a``, ``b`` and ``answer`` (a, same, b) of two videos, or ``video`` and
``label`` (pass, fail) or ``grade`` (a number) of one; and perhaps ``caption``, ``rater``, ``axis`` and ``group``. The
rating page's ``labels.parquet`` and Label Studio's JSON export are brought to such rows first. The majority of the
raters counts; a tie is a rejected row.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regdpo.config.schema import PairSource
from regdpo.core.errors import UserError, first_line
from regdpo.core.rows import Label
from regdpo.data.names import shown
from regdpo.data.quotes import rows as csv_rows
from regdpo.data.quotes import text_of_lists

LARGEST = 2**28
"""Bytes of a file."""
GOOD = frozenset(("good", "pass", "yes", "true", "1"))
BAD = frozenset(("bad", "fail", "no", "false", "0"))
BETTER = {"a": 1, "left": 1, "same": 0, "tie": 0, "b": -1, "right": -1}
COLUMNS = ("a", "b", "answer", "video", "label", "grade", "caption", "rater", "axis", "group")
AGAINST = frozenset(("generated",))
"""Questions of the rating page that ask for a fault: yes is bad."""


@dataclass(frozen=True)
class Verdict:
    """What the raters of one video, or of two, say together."""

    videos: tuple[str, ...]
    caption: str
    group: str
    votes: tuple[int, ...]
    """A rater each: 1 for good or for the first of two, -1 against, 0 neither."""

    @property
    def sign(self) -> int:
        total = sum(self.votes)
        return (total > 0) - (total < 0)

    @property
    def label(self) -> Label:
        """Of one video."""
        return "" if len(self.videos) > 1 or not self.sign else "good" if self.sign > 0 else "bad"


def verdicts(source: PairSource) -> list[Verdict]:
    """Of every video, or two, that was judged on the source's axis.

    Raises:
        UserError: the file cannot be read, a row is not understood, or there are several axes and none is chosen.
    """
    path = Path(source.path or "")
    stat = path.stat() if path.is_file() else None
    if stat is None or stat.st_size > LARGEST:
        raise UserError(f"{path}: there is no such file" if stat is None else f"{path}: has more than {LARGEST} bytes")
    return _verdicts(source, stat.st_mtime_ns)


@cache
def _verdicts(source: PairSource, changed: int) -> list[Verdict]:
    path = Path(source.path or "")
    votes: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    about: dict[tuple[str, ...], tuple[str, str]] = {}
    axes: set[str] = set()
    for number, row in _rows(path):
        axis = row.get("axis") or ""
        axes.add(axis)
        if source.axis in (None, axis):
            try:
                videos, vote = _vote(row, source.threshold)
                json.dumps(row, ensure_ascii=False).encode()  # half of a pair of surrogates is no text, nor a name
            except UnicodeEncodeError:
                raise UserError(
                    f"{path}, row {number}: holds half of a character, as an escape such as \\ud800 is"
                ) from None
            except ValueError as error:
                raise UserError(f"{path}, row {number}: {error}") from None
            if videos[::-1] in votes and videos != videos[::-1]:
                videos, vote = videos[::-1], -vote
            votes[videos][row.get("rater") or f"row {number}"] = vote
            about.setdefault(videos, (row.get("caption") or "", row.get("group") or ""))
    if source.axis is None and len(axes) > 1:
        raise UserError(f"{path}: has answers on {', '.join(sorted(axes))}; choose one with `axis`")
    if not votes:
        raise UserError(f"{path}: holds no answers" + (f" on {source.axis}" if source.axis else ""))
    return [Verdict(videos, *about[videos], tuple(said.values())) for videos, said in sorted(votes.items())]


def _vote(row: dict[str, str], threshold: float | None) -> tuple[tuple[str, ...], int]:
    """Which videos a row is of, and how it votes."""
    needed = ("a", "b", "answer") if "a" in row else ("video", "grade" if "grade" in row else "label")
    if lacking := [name for name in needed if not row.get(name)]:
        raise ValueError(f"has no {' and '.join(lacking)}")
    if "a" in row:
        said = row["answer"].strip().lower()
        if said not in BETTER:
            raise ValueError(f"answer {shown(said)!r} is none of {', '.join(BETTER)}")
        return (row["a"], row["b"]), BETTER[said]
    if "grade" in row:
        if threshold is None:
            raise ValueError("is a grade, which needs `threshold`: from which on it is good")
        try:
            grade = float(row["grade"])
        except ValueError:
            grade = math.nan
        if math.isnan(grade):
            raise ValueError(f"grade {shown(row['grade'])!r} is no number")
        return (row["video"],), 1 if grade >= threshold else -1
    said = row["label"].strip().lower()
    if said not in GOOD | BAD:
        raise ValueError(f"label {shown(said)!r} is none of {', '.join(sorted(GOOD | BAD))}")
    return (row["video"],), 1 if said in GOOD else -1


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        if path.suffix == ".json":
            rows = list(_label_studio(json.loads(text_of_lists(path))))
        elif path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
        else:
            rows = csv_rows(path, text_of_lists(path), once=COLUMNS)
        if rows and {"question", "yes", "raters"} <= rows[0].keys():
            rows = [one for row in rows for one in _of_the_page(row)]
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is not of a form that is known ({first_line(error)}); docs/how-to/pairs.md has the forms"
        ) from None
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from None
    for number, row in enumerate(rows, start=1):
        yield number, {key: str(value) for key, value in row.items() if value is not None}


def _of_the_page(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of the rating page's labels as one of each rater."""
    against, yes = row["question"] in AGAINST, int(row["yes"])
    for number in range(int(row["raters"])):
        good = (number < yes) != against
        yield {
            "video": row["path"],
            "label": "good" if good else "bad",
            "axis": row["question"],
            "rater": str(number),
            "caption": row["caption"],
            "group": row["prompt_id"],
        }


def _label_studio(tasks: Any) -> Iterator[dict[str, Any]]:
    """Tasks whose ``data`` has ``video``, or ``left`` and ``right``, and perhaps ``caption`` and ``group``."""
    for task in tasks:
        data = task["data"]
        shown_ = {"video": data["video"]} if "video" in data else {"a": data["left"], "b": data["right"]}
        more = {key: data[key] for key in ("caption", "group") if key in data}
        for annotation in task["annotations"]:
            by = annotation["completed_by"]
            rater = by["email"] if isinstance(by, dict) else by
            for result in () if annotation.get("was_cancelled") else annotation["result"]:
                value = result["value"]
                said = {"grade": value["rating"]} if "rating" in value else {}
                if not said:
                    chosen = value.get("choices", [value.get("selected")])[0]
                    said = {"label" if "video" in data else "answer": chosen}
                yield {**shown_, **more, **said, "axis": result["from_name"], "rater": f"{rater}"}
