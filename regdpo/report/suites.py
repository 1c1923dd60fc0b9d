"""What the scores of VBench's suites of prompts came to, as the stage of their totals wrote it."""

from dataclasses import field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from regdpo.core.errors import UserError
from regdpo.report.parts import part


@part
class SuiteDimension:
    """A dimension of VBench, of one model."""

    score: float | None
    """A fraction; null: it is missing."""
    normalised: float | None
    """On VBench's scale, not cut off at its ends."""
    videos: int
    """That it is the mean of."""
    missing: str
    """Why it has no score."""


@part
class SuiteInterval:
    """Of a total, in percent, over the suite's prompts alone."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    delta: float | None
    """Difference to the base, of the same prompts; null: it is a base, or the base has no total."""
    delta_low: float | None
    """Its lower end."""
    delta_high: float | None
    """Its upper end."""


@part
class SuiteModel:
    """What a model came to."""

    dimensions: dict[str, SuiteDimension]
    """In VBench's order."""
    measured: str
    """How many there are, such as ``5 of 16``."""
    totals: dict[str, float] | None
    """In percent; null: it is partial."""
    partial: str
    """Why there is no total; empty: there is one."""
    intervals: dict[str, SuiteInterval] = field(default_factory=dict)
    """Of the totals."""


@part
class Suite:
    """A suite of prompts that base and arms rendered for VBench."""

    suite: str
    """``t2v`` or ``i2v``."""
    title: str
    """Its name."""
    prompts_a_dimension: int | None
    """Where a part of the prompts was asked for, how many; null: all."""
    models: dict[str, SuiteModel]
    """Base and every training of an arm."""


_SUITE = TypeAdapter(Suite)


def read(path: Path) -> Suite:
    """What scripts/suite_totals.py wrote.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _SUITE.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `snakemake suites` writes it") from None
    except ValidationError:
        raise UserError(f"{path}: holds no totals of a suite; make it anew with `snakemake suites`") from None
