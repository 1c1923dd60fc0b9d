"""What is shown: comparisons of samples, pairs with a known answer, repeats; in which order, and on which side."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from regdpo.config.schema import Rating
from regdpo.config.stage_inputs import RateStage
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.rows import REAL, PairRow, SampleRow
from regdpo.core.section import Section

SPOILED = "spoiled"
"""Stands for the arm of a gold pair's other half."""


class Video(Section):
    """A video of the store, and who made it."""

    arm: str
    model: str
    path: str
    sha256: str


class Item(Section):
    """What is shown at once: two videos of one prompt, or one."""

    form: str
    prompt_id: str
    caption: str
    task: str
    real: str  # the real clip, whose first frame an image-to-video model was given
    seed: int
    a: Video
    b: Video | None = None
    gold: str = ""
    repeat: int = 0

    @property
    def key(self) -> str:
        """What tells it from all others: the bytes that are shown, and why."""
        shown = [(it.model, it.sha256) for it in (self.a, self.b) if it]
        return text_digest(self.form, self.prompt_id, repr(shown), str(self.seed), self.gold, str(self.repeat))

    @property
    def videos(self) -> tuple[Video, ...]:
        return (self.a, self.b) if self.b else (self.a,)

    def again(self) -> "Item":
        """The same as a repeat."""
        return self.model_copy(update={"repeat": 1})


@dataclass(frozen=True)
class Turn:
    """An item as one rater sees it."""

    item: Item
    swapped: bool
    """Whether ``b`` is on the left."""

    def side(self, which: str) -> Video:
        """The video on the ``left`` or on the ``right``; a single one is on the left."""
        left, right = (self.item.b or self.item.a, self.item.a) if self.swapped else (self.item.a, self.item.b)
        return left if which == "left" or right is None else right


def arm_of(model: str) -> str:
    """``reg_dpo/seed0`` -> ``reg_dpo``, on whichever base model."""
    return ModelName.parse(model).arm


class Samples:
    """The samples by arm, prompt and seed; where there are several trainings of an arm, prompts take turns with them.

    Raises:
        UserError: a prompt is in no pair.
    """

    def __init__(self, stage: RateStage, rows: Iterable[SampleRow], pairs: Iterable[PairRow]):
        self.task = stage.task
        self.captions = {pair.clip_id: pair.caption for pair in pairs}
        self.found: dict[str, dict[tuple[str, int], list[SampleRow]]] = {}
        for row in sorted(rows, key=lambda row: row.model):
            if row.clip_id not in self.captions:
                raise UserError(
                    f"the samples of {row.model} are of clip {row.clip_id}, which no pair has; make them again"
                )
            self.found.setdefault(arm_of(row.model), {}).setdefault((row.clip_id, row.seed), []).append(row)

    def of(self, arm: str, prompt: tuple[str, int], turn: int) -> SampleRow:
        """An arm's sample of a prompt. Real clips are of no seed."""
        rows = self.found[arm][prompt if arm != REAL else (prompt[0], -1)]
        return rows[turn % len(rows)]

    def both(self, arms: tuple[str, str], prompt: tuple[str, int], turn: int) -> list[SampleRow]:
        """A sample of each arm, on the same base model. Real clips are of none."""
        found = {arm: self.found[arm][prompt if arm != REAL else (prompt[0], -1)] for arm in arms}
        bases = sorted(set.intersection(*({_base(row) for row in found[arm]} for arm in arms if arm != REAL)))
        of, turn = bases[turn % len(bases)], turn // len(bases)
        mine = [[row for row in found[arm] if arm == REAL or _base(row) == of] for arm in arms]
        return [rows[turn % len(rows)] for rows in mine]

    def exact(self, model: str, prompt: tuple[str, int]) -> SampleRow:
        """A model's sample of a prompt.

        Raises:
            UserError: there is none.
        """
        arm, seed = arm_of(model), -1 if model == REAL else prompt[1]
        for row in self.found.get(arm, {}).get((prompt[0], seed), []):
            if row.model == model:
                return row
        raise UserError(f"{model} has no sample of clip {prompt[0]} with seed {seed}")

    def prompts(self, arms: Iterable[str]) -> list[tuple[str, int]]:
        """Clip and seed of all that every arm has, in order."""
        sets = [set(self.found.get(arm, {})) for arm in arms if arm != REAL]
        return sorted(set.intersection(*sets)) if sets else []

    def item(self, form: str, prompt: tuple[str, int], *rows: SampleRow) -> Item:
        videos = [Video(arm=arm_of(it.model), model=it.model, path=it.path, sha256=it.sha256) for it in rows]
        first, *others = videos
        return Item(
            form=form,
            prompt_id=prompt[0],
            caption=self.captions[prompt[0]],
            task=self.task,
            real=rows[0].real,
            seed=prompt[1],
            a=first,
            b=others[0] if others else None,
        )


def pairs_shown(stage: RateStage, samples: Samples) -> list[Item]:
    """The comparisons, some of them once more as repeats.

    Raises:
        UserError: two arms have no prompt in common.
    """
    found = []
    for one, other in stage.rating.compared(stage.arms):
        prompts = samples.prompts((one, other))
        if not prompts:
            raise UserError(f"rating.comparisons: {one} and {other} have no samples of the same prompt and seed")
        for turn, prompt in enumerate(_chosen(prompts, stage.rating)):
            found.append(samples.item("pair", prompt, *samples.both((one, other), prompt, turn)))
    again = random.Random(f"{stage.rating.seed} repeats").sample(found, round(stage.rating.repeats * len(found)))  # noqa: S311
    return [*found, *(item.again() for item in again)]


def clips_shown(stage: RateStage, samples: Samples) -> list[Item]:
    """Single clips: those of base, arms, and the real ones."""
    arms = [BASE, *stage.arms]
    chosen = _chosen(samples.prompts(arms), stage.rating)
    found = [samples.item("clip", it, samples.of(arm, it, turn)) for arm in arms for turn, it in enumerate(chosen)]
    found += [samples.item("clip", (it, -1), samples.of(REAL, (it, -1), 0)) for it in sorted({it for it, _ in chosen})]
    again = random.Random(f"{stage.rating.seed} clips").sample(found, round(stage.rating.repeats * len(found)))  # noqa: S311
    return [*found, *(item.again() for item in again)]


def gold_prompts(stage: RateStage, samples: Samples) -> list[tuple[SampleRow, SampleRow]]:
    """Real clips for pairs with a known answer, each with the one that is to be spoiled: of another caption, or itself
    where there is no other."""
    rows = [rows[0] for _, rows in sorted(samples.found.get(REAL, {}).items())]
    random.Random(f"{stage.rating.seed} gold").shuffle(rows)  # noqa: S311
    found = []
    for number, row in enumerate(rows[: stage.rating.gold]):
        others = (it for it in [*rows[number + 1 :], *rows[:number]] if _differ(samples, it, row))
        found.append((row, next(others, row)))
    return found


def gold(samples: Samples, row: SampleRow, other: Video) -> Item:
    """A real clip against a spoiled one: the first is better in both, beyond doubt."""
    shown = samples.item("pair", (row.clip_id, -1), row)
    return shown.model_copy(update={"b": other, "gold": "a"})


def turns(items: Iterable[Item], seed: int, rater: str) -> list[Turn]:
    """In the order of one rater, each with its sides: of a comparison every other one is swapped. A repeat comes in the
    last third, the other way round than it was the first time, which is in the first half."""
    rng = random.Random(f"{seed} {rater}")  # noqa: S311
    firsts = sorted((item for item in items if not item.repeat), key=lambda item: item.key)
    repeated = {item.key: item for item in items if item.repeat}
    rng.shuffle(firsts)
    swaps: dict[tuple[str, str], bool] = {}
    placed = []
    for item in firsts:
        arms = item.a.arm, item.b.arm if item.b else ""
        swapped = swaps.setdefault(arms, rng.random() < 0.5) and item.b is not None
        swaps[arms] = not swaps[arms]
        again = repeated.get(item.again().key)
        placed.append((rng.random() * (0.5 if again else 1), Turn(item, swapped)))
        if again:
            placed.append((2 / 3 + rng.random() / 3, Turn(again, item.b is not None and not swapped)))
    return [turn for _, turn in sorted(placed, key=lambda it: it[0])]


def _base(row: SampleRow) -> str:
    return ModelName.parse(row.model).of


def _chosen(prompts: list[tuple[str, int]], rating: Rating) -> list[tuple[str, int]]:
    if rating.prompts is None or len(prompts) <= rating.prompts:
        return prompts
    return random.Random(f"{rating.seed} prompts").sample(prompts, rating.prompts)  # noqa: S311


def _differ(samples: Samples, one: SampleRow, other: SampleRow) -> bool:
    return samples.captions[one.clip_id] != samples.captions[other.clip_id]
