"""Answers that were given in Label Studio, from its JSON export (docs/how-to/rate.md says what a task has to hold).

The file comes from strangers: every task has to name samples that there are, and every result a known question.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from regdpo.config.stage_inputs import RateStage
from regdpo.core.errors import UserError
from regdpo.core.model_names import BASE
from regdpo.core.rows import REAL
from regdpo.rate.answers import Answer, Answers, rater_name
from regdpo.rate.forms import FORMS
from regdpo.rate.items import Item, Samples, arm_of

LARGEST = 2**28
"""Bytes of a file."""


class _Data(BaseModel):
    """Ours, of a task: what was shown."""

    clip: str
    seed: int | None = None
    left: str | None = None
    right: str | None = None
    video: str | None = None


class _Person(BaseModel):
    email: str = Field(min_length=1)


class _Result(BaseModel):
    from_name: str
    value: dict[str, Any]


class _Annotation(BaseModel):
    completed_by: _Person | int | str
    created_at: datetime
    lead_time: float | None = Field(None, ge=0)
    was_cancelled: bool = False
    result: list[_Result]


class _Task(BaseModel):
    id: int | str
    data: _Data
    annotations: list[_Annotation]


TASKS = TypeAdapter(list[_Task])


def add(path: Path, stage: RateStage, samples: Samples, answers: Answers) -> int:
    """Add the answers of a file, all or none; those that are there already are not added again. How many were.

    Raises:
        UserError: the file cannot be read, or names what there is not; with the task.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: has more than {LARGEST} bytes")
        tasks = TASKS.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise UserError(
            f"{path}{f', {where}' if where else ''}: is no JSON export of Label Studio ({wrong['msg']})"
        ) from None
    found: list[Answer] = []
    items: dict[str, Item] = {}
    for task in tasks:
        try:
            item, left = _item(task.data, stage, samples)
            items[item.key] = item
            found += [
                one for it in task.annotations if not it.was_cancelled for one in _given(it, item, left, path.name)
            ]
        except (UserError, ValueError) as error:
            raise UserError(f"{path}, task {task.id}: {error}") from None
    answers.names(items.values())
    return answers.add(found)


def _item(data: _Data, stage: RateStage, samples: Samples) -> tuple[Item, str]:
    """What a task shows, and which of its two videos was on the left."""
    names = [name for name in (data.left, data.right, data.video) if name]
    if len(names) != (1 if data.video else 2):
        raise ValueError("data needs `left` and `right`, or `video`: base, real or ARM/seedN")
    seeds = sorted(
        {seed for arm in map(arm_of, names) for clip, seed in samples.found.get(arm, ()) if clip == data.clip}
    )
    drawn = [seed for seed in seeds if seed >= 0] or seeds
    if data.seed is None and len(drawn) > 1:
        raise ValueError(
            f"data.seed: clip {data.clip} was sampled with the seeds {', '.join(map(str, drawn))}; say which"
        )
    prompt = data.clip, data.seed if data.seed is not None else drawn[0] if drawn else -1
    rows = {name: samples.exact(name, prompt) for name in names}
    if data.video:
        return samples.item("clip", prompt if data.video != REAL else (data.clip, -1), rows[data.video]), ""
    ranks = [*stage.arms, BASE, REAL]
    one, other = sorted(names, key=lambda name: ranks.index(arm_of(name)))
    if (arm_of(other), arm_of(one)) in stage.rating.compared(stage.arms):
        one, other = other, one
    return samples.item("pair", prompt, rows[one], rows[other]), "a" if names[0] == one else "b"


def _given(annotation: _Annotation, item: Item, left: str, origin: str) -> Iterator[Answer]:
    by = annotation.completed_by
    rater = rater_name(by.email if isinstance(by, _Person) else by if isinstance(by, str) else f"user {by}")
    form, right = FORMS[item.form], {"a": "b", "b": "a"}.get(left, "")
    for result in annotation.result:
        axis = next((it.axis for it in form.questions if it.axis.lower() == result.from_name.lower()), None)
        if axis is None:
            raise ValueError(f"from_name {result.from_name!r} is none of {', '.join(it.axis for it in form.questions)}")
        chosen = result.value.get("choices", [result.value.get("selected")])
        said = str(chosen[0]).lower() if isinstance(chosen, list) and len(chosen) == 1 else ""
        if said not in (value for value, _ in form.answers):
            raise ValueError(f"{result.from_name}: {result.value} is none of {', '.join(it for it, _ in form.answers)}")
        yield Answer(
            rater,
            item.key,
            axis,
            {"left": left, "right": right}.get(said, said),
            left,
            annotation.lead_time,
            annotation.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
            origin,
        )
