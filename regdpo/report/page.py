"""The page, drawn: one self-contained HTML file. All it loads is the timeline, where that lies beside it."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from regdpo.config import schema
from regdpo.config.training import Link, Step
from regdpo.core.model_names import BASE
from regdpo.core.rows import REAL
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.evaluate.measures import HELD_OUT_ERROR
from regdpo.evaluate.people import METRICS
from regdpo.evaluate.stats import Interval
from regdpo.objectives.registry import OBJECTIVES, SftTerm
from regdpo.report import figures, videos
from regdpo.report.contents import Contents

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
FAR = 5
"""Standard deviations beyond which two heaps do not overlap."""


def write(contents: Contents, store: Store, path: str | Path) -> None:
    """Write the page to a file, atomically. Equal contents give equal bytes.

    Raises:
        UserError: a video that a manifest names is missing or damaged.
    """
    html = render(contents, store)
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(contents: Contents, store: Store) -> str:
    """The page as text, from its content and the videos that it shows."""
    config = schema.check(contents.configuration)
    arms = [name for name in contents.table if name not in (REAL, BASE)]  # and steps of theirs
    bases = {model.name: model.seed for model in contents.models if not model.arm}
    trainings = [(base, seed) for base in bases for seed in config.train.seeds]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": number, "span": span, "signed": signed, "change": change, "chance": chance}
    environment.filters |= {"apart": apart, "breakable": breakable, "bounds": bounds}
    environment.filters["objective"] = objective
    environment.filters["place"] = partial(place, links=config.train.links)
    environment.filters["uri"] = partial(videos.data_uri, store=store, encode=config.clips.encode)
    return environment.get_template("template.html").render(
        **vars(contents),
        config=config,
        arms=arms,
        bases=bases,
        trainings=trainings,
        primary=contents.metrics[config.scores.primary],
        error=HELD_OUT_ERROR,
        colours={arm: index % figures.PALETTE for index, arm in enumerate(arms)},
        forests=_forests(contents, arms),
        radar=_radar(contents, arms),
        unasked=set(METRICS.values()),
        numbered=len(contents.totals.metrics) > figures.FEW,
        panels=[
            (curve, Markup(figures.curve(curve, arms, trainings, contents.marks)))  # noqa: S704
            for curve in contents.curves
        ],
        yaml=yaml.safe_dump(contents.configuration, sort_keys=False, allow_unicode=True, width=100),
    )


def _radar(contents: Contents, arms: list[str]) -> Markup | None:
    """None where there are too few measures for a shape."""
    found = contents.totals
    if len(found.metrics) < 3:
        return None
    colours = {name: figures.BASE if name == BASE else figures.colour(arms.index(name)) for name in found.rows}
    axes = [contents.metrics[key].label for key in found.metrics]
    if len(axes) > figures.FEW:  # by the numbers that the table beside it has then
        axes = [str(number) for number, _ in enumerate(axes, start=1)]
    lines = {colours[name]: [row.normalised[key] for key in found.metrics] for name, row in found.rows.items()}
    return Markup(figures.radar(axes, lines))  # noqa: S704


def _forests(contents: Contents, arms: list[str]) -> list[Markup]:
    """Of every metric by which some arm was compared with base, the primary one first."""
    columns = {key: {arm: contents.table[arm][key] for arm in arms} for key in contents.metrics}
    drawn = {key: cells for key, cells in columns.items() if any(cell.against for cell in cells.values())}
    return [Markup(figures.forest(cells, f"forest-{key}")) for key, cells in drawn.items()]  # noqa: S704


def place(link: Link, links: Mapping[str, Link]) -> str:
    """Where a training stands in an arm that is a chain, such as `` · step 2 of 3 · from sft · losers by sft``; empty
    of an arm of one step that starts from the base."""
    mine = [name for name, it in links.items() if it.arm == link.arm]
    parts = [f"step {mine.index(link.name) + 1} of {len(mine)}"] if len(mine) > 1 else []
    if link.start or parts:
        parts.append(f"from {link.start or BASE}")
    if link.by:
        parts.append(f"losers by {link.by}")
    return "".join(f" · {part}" for part in parts)


def objective(arm: Step) -> str:
    """An arm's objective and the terms that it declares, such as ``reg_dpo · β 50 · r = DGR``."""
    parts = [arm.objective]
    for term in OBJECTIVES[arm.objective].terms:
        value, label = getattr(arm, term), {"beta": "β", "sft": "SFT r"}.get(term, term)
        value = value.r if isinstance(value, SftTerm) else value
        if value is not None:
            parts.append(f"{label} = {value.upper()}" if isinstance(value, str) else f"{label} {value:g}")
    return " · ".join(parts)


def breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore or a hyphen, and nowhere else."""
    return Markup("<wbr>").join(re.split(r"(?<=[_-])", name))


def number(value: float, decimals: int) -> str:
    """Fixed decimals, a true minus sign, no minus before a rounded zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    """Like ``number``, with a plus sign."""
    text = number(value, decimals)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def chance(p: float) -> str:
    """A p, to two digits."""
    return "< .001" if p < 0.001 else f"{p:.2g}".lstrip("0") if p < 1 else "1"


def apart(deviations: float) -> str:
    """A standardised difference; how much further than ``FAR`` says nothing more."""
    if abs(deviations) <= FAR:
        return signed(deviations, 2)
    return f"more than {FAR}" if deviations > 0 else f"less than {MINUS}{FAR}"


def span(interval: Interval, decimals: int, form: Any = number) -> str:
    """``[low, high]``, or what stands for it where there is none."""
    if interval.low is None or interval.high is None:
        return f"no interval: {interval.why}"
    return f"[{form(interval.low, decimals)},{SPACE}{form(interval.high, decimals)}]"


def bounds(interval: Interval, decimals: int) -> str:
    """``span`` of an interval that may have no end on a side."""
    if (interval.low is None) == (interval.high is None):
        return span(interval, decimals)
    low = f"{MINUS}∞" if interval.low is None else number(interval.low, decimals)
    return f"[{low},{SPACE}{'∞' if interval.high is None else number(interval.high, decimals)}]"


def change(interval: Interval, decimals: int) -> str:
    """A difference with its interval, to at least so many decimals and as many more as both ends need to be told apart
    from each other and, where they lie on one side of it, from zero."""
    if interval.low is not None and interval.high is not None:
        width, nearest = interval.high - interval.low, min(abs(interval.low), abs(interval.high))
        least = min(width, nearest) if interval.sign else width
        while decimals < 6 and least * 10**decimals < 1:
            decimals += 1
    return f"{signed(interval.mean, decimals)} {span(interval, decimals, signed)}"
