"""The report: one self-contained HTML file. All it loads is the timeline, where that lies beside it."""

from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

import regdpo
from regdpo.core.rows import REAL
from regdpo.core.temporaries import atomic
from regdpo.evaluate import vbench
from regdpo.evaluate.measures import PRIMARY, metrics
from regdpo.evaluate.stats import Interval
from regdpo.report import figures, footage, verdicts, videos
from regdpo.report.gather import Inputs
from regdpo.report.results import Cell, Scores

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
FOREST = (PRIMARY, "psnr", "ssim")
PREFIX = "vbench_"


def write(inputs: Inputs, path: str | Path) -> None:
    """Render the page to a file, atomically. Equal inputs give equal bytes.

    Raises:
        UserError: a video that a manifest names is missing or damaged.
    """
    html = render(inputs)
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render(inputs: Inputs) -> str:
    """The page as text."""
    scores = Scores(inputs.scores, inputs.config.scores.bootstrap)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": number, "span": span, "signed": signed, "change": change}
    table = _table(inputs, scores)
    features, compared = footage.halves(inputs)
    measured = scores.measured(PREFIX)
    coverage = vbench.coverage(measured)
    not_measured = [(name, _reason(scores, name) or why) for name, why in coverage if why]
    return environment.get_template("template.html").render(
        config=inputs.config,
        base=inputs.base,
        arms=inputs.arms,
        colours={arm: index % figures.PALETTE for index, arm in enumerate(inputs.arms)},
        metrics=metrics(),
        verdicts=(found := verdicts.verdicts(inputs, scores)),
        summary=verdicts.summary(found),
        near_one=verdicts.NEAR_ONE,
        table=table,
        reasons=_reasons(table),
        forests=_forests(table, inputs),
        curves=[(curve.title, curve.unit, Markup(svg)) for curve, svg in figures.curves(inputs.arms)],  # noqa: S704
        examples=videos.examples(inputs, scores),
        pair_examples=videos.pair_examples(inputs),
        split=footage.split_kind(inputs),
        rejections=footage.rejections(inputs),
        accepted=sum(clip.status == "accepted" for clip in inputs.clips.values()),
        captioners=sorted({row.captioner.split(":")[0] for row in inputs.captions.values()}),
        features=features,
        compared=compared,
        not_measured=not_measured,
        measured=measured,
        dimensions=len(coverage),
        runs=inputs.runs,
        digests=inputs.digests,
        packages=inputs.packages,
        version=regdpo.__version__,
        yaml=yaml.safe_dump(inputs.shown_config, sort_keys=False, allow_unicode=True, width=100),
    )


def _reason(scores: Scores, dimension: str) -> str:
    """Why a dimension that was asked for has no value, from the scores themselves."""
    return "; ".join(scores.reasons(f"{PREFIX}{dimension}"))


def _table(inputs: Inputs, scores: Scores) -> dict[str, dict[str, Cell]]:
    """Row -> metric -> cell: the real footage, the base, every arm."""
    rows: dict[str, Any] = {REAL: REAL, "base": "base"} | {arm: verdicts.names(r) for arm, r in inputs.arms.items()}
    return {name: {key: scores.cell(models, m) for key, m in metrics().items()} for name, models in rows.items()}


def _reasons(table: dict[str, dict[str, Cell]]) -> dict[str, int]:
    """Reason for something missing -> its number in the footnotes, in the order of the table."""
    every = dict.fromkeys(reason for row in table.values() for cell in row.values() for reason in cell.reasons)
    return {reason: index for index, reason in enumerate(every, start=1)}


def _forests(table: dict[str, dict[str, Cell]], inputs: Inputs) -> list[Markup]:
    columns = ((key, {arm: table[arm][key] for arm in inputs.arms}) for key in FOREST)
    return [Markup(figures.forest(cells, f"forest-{key}")) for key, cells in columns]  # noqa: S704


def number(value: float, decimals: int) -> str:
    """Fixed decimals, a true minus sign, no minus before a rounded zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    """Like ``number``, with a plus sign."""
    text = number(value, decimals)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def span(interval: Interval, decimals: int, form: Any = number) -> str:
    """``[low, high]``, or what stands for it where there is none."""
    if interval.low is None or interval.high is None:
        return "no interval: one clip" if interval.n == 1 else "no interval: all clips agree"
    return f"[{form(interval.low, decimals)},{SPACE}{form(interval.high, decimals)}]"


def change(interval: Interval, decimals: int) -> str:
    """A difference with its interval, to at least so many decimals and as many more as both ends need to be told apart
    from each other and, where they lie on one side of it, from zero."""
    if interval.low is not None and interval.high is not None:
        width, nearest = interval.high - interval.low, min(abs(interval.low), abs(interval.high))
        least = min(width, nearest) if interval.sign else width
        while decimals < 6 and least * 10**decimals < 1:
            decimals += 1
    return f"{signed(interval.mean, decimals)} {span(interval, decimals, signed)}"
