"""The page of videos that were asked for: base beside arms, one self-contained HTML file."""

from functools import partial
from pathlib import Path

import jinja2

import regdpo
from regdpo.config.schema import Encode
from regdpo.core.rows import Geometry
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.report import figures, videos
from regdpo.report.examples import Video


def write(
    path: Path,
    title: str,
    facts: str,
    shown: list[tuple[str, str, Geometry, list[Video]]],
    arms: list[str],
    encode: Encode,
    store: Store,
) -> None:
    """Write it. Equal inputs give equal bytes.

    Args:
        facts: how the videos were made, in a line. shown: name, prompt and geometry of each, and the videos of
            all models.
        arms: in the order of their colours.

    Raises:
        UserError: a video is missing from the store or damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["uri"] = partial(videos.data_uri, store=store, encode=encode)
    html = environment.get_template("generated.html").render(
        title=title,
        facts=facts,
        shown=shown,
        widest=max(geometry.width for _, _, geometry, _ in shown),
        colours={arm: index % figures.PALETTE for index, arm in enumerate(arms)},
        version=regdpo.__version__,
    )
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
