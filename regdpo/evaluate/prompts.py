"""The prompts of VBench's suites, as its lists have them, and the videos that are asked for."""

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regdpo.core.digests import shard_of
from regdpo.core.errors import UserError, first_line
from regdpo.core.rows import Geometry
from regdpo.evaluate.suites import RATIOS, STATIC_OF, SUITES, VIDEOS
from regdpo.evaluate.vbench_weights import sites

LONGEST = 255
"""Bytes of a file's name."""
SHOWN = 10
"""Names that an error tells."""


@dataclass(frozen=True)
class Prompt:
    """A text to render, and what its videos are measured for."""

    text: str
    dimensions: tuple[str, ...]
    auxiliary: Mapping[str, Any]  # by dimension, what VBench looks for
    image: str = ""  # first frame, by its name
    videos: int = VIDEOS

    @property
    def names(self) -> list[str]:
        """Of its videos' files, as VBench looks for them."""
        return [f"{self.text}-{index}.mp4" for index in range(self.videos)]


def file_of(suite: str, python: str, i2v_prompts: str | None) -> Path:
    """The list of a suite's prompts: VBench's package has that of ``t2v``, its repository that of ``i2v``.

    Raises:
        UserError: it is not there.
    """
    if suite == "i2v":
        if i2v_prompts and Path(i2v_prompts).is_file():
            return Path(i2v_prompts)
        raise UserError(
            f"scores.vbench.i2v_prompts: there is no file {i2v_prompts}; docs/how-to/vbench.md says where it is"
        )
    for site in sites(python):
        if (found := site / "vbench/VBench_full_info.json").is_file():
            return found
    raise UserError(
        f"scores.vbench.suites: {suite} takes its prompts from VBench, which {python} lacks; run `make vbench`"
    )


def read(suite: str, path: Path, dimensions: Iterable[str], static: Iterable[str], limit: int | None) -> list[Prompt]:
    """The prompts of some dimensions, each text once, in the list's order.

    Args:
        static: dimensions of which only videos count that stand still, for which more are made.
        limit: most prompts of a dimension, evenly over the list.

    Raises:
        UserError: it is no list of VBench's, or a prompt can be no file's name.
    """
    asked, static = set(dimensions), set(static)
    by_text: dict[tuple[str, str], dict[str, Any]] = {}
    per_dimension: dict[str, list[tuple[str, str]]] = defaultdict(list)
    try:
        for row in json.loads(path.read_text(encoding="utf-8")):
            text, image = row["prompt_en"], row.get("image_name", "")
            if not isinstance(text, str) or not isinstance(image, str):
                raise TypeError("a prompt is no text")
            one = by_text.setdefault((text, image), {"dimensions": {}, "auxiliary": {}})
            one["auxiliary"] |= row.get("auxiliary_info", {})
            for dimension in row["dimension"]:
                if dimension in asked and dimension not in one["dimensions"]:
                    one["dimensions"][dimension] = True
                    per_dimension[dimension].append((text, image))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is no list of VBench's prompts ({type(error).__name__}: {first_line(error)})"
        ) from None
    if absent := [name for name in SUITES[suite].dimensions if name in asked and not per_dimension[name]]:
        raise UserError(f"{path}: has no prompts of {', '.join(absent)}; is it the list of {suite}?")
    kept = {name: set(_evenly(those, limit)) for name, those in per_dimension.items()}
    prompts = []
    for (text, image), one in by_text.items():
        mine = tuple(name for name in one["dimensions"] if (text, image) in kept[name])
        if not mine:
            continue
        prompt = Prompt(text, mine, one["auxiliary"], image, STATIC_OF if static & {*mine} else VIDEOS)
        if "/" in text or "\0" in text or not text.strip() or len(prompt.names[-1].encode()) > LONGEST:
            raise UserError(f"{path}: {text[:60]!r} can be no file's name, which VBench makes of prompts")
        if image and (Path(image).name != image or image in (".", "..")):
            raise UserError(f"{path}: {image!r} is no file's name")
        prompts.append(prompt)
    if len({prompt.text for prompt in prompts}) < len(prompts):
        raise UserError(f"{path}: a prompt has two images, and so two videos of one name")
    return prompts


def _evenly(rows: Sequence[Any], limit: int | None) -> list[Any]:
    if limit is None or len(rows) <= limit:
        return list(rows)
    return [rows[index * len(rows) // limit] for index in range(limit)]


def images_of(prompts: Sequence[Prompt], folder: Path | None, geometry: Geometry) -> dict[str, Path]:
    """Name -> file of the prompts' first frames, of the crops whose shape is nearest to the videos'.

    Raises:
        UserError: naming those that are missing.
    """
    named = sorted({prompt.image for prompt in prompts if prompt.image})
    if not named:
        return {}
    crops = (folder or Path()) / ratio_of(geometry.width, geometry.height)
    there = {path.name for path in crops.iterdir()} if crops.is_dir() else set()
    check_names(named, there & set(named), f"scores.vbench.images: {crops}")
    return {name: crops / name for name in named}


def ratio_of(width: int, height: int) -> str:
    """The folder of VBench-I2V's images whose shape is nearest to a video's."""
    return min(RATIOS, key=lambda name: abs(math.log(RATIOS[name] * height / width)))


def in_shard(prompts: Sequence[Prompt], index: int, count: int) -> list[Prompt]:
    """Those of a shard, by their texts alone."""
    return [prompt for prompt in prompts if shard_of(prompt.text, count) == index]


def check_names(expected: Iterable[str], given: Iterable[str], where: str) -> None:
    """All videos of a suite, and no others.

    Args:
        expected, given: names of files. where: that they are in, for the reader.

    Raises:
        UserError: naming those that are missing, and those that are nobody's with what they may be meant for.
    """
    expected, given = list(expected), set(given)
    missing = [name for name in expected if name not in given]
    strange = sorted(given - set(expected))
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(expected)} videos are missing: {_some(missing)}")
    if strange:
        meant = difflib.get_close_matches(strange[0], missing, n=1)
        hint = f" (is the first meant to be {meant[0]!r}?)" if meant else ""
        parts.append(f"{len(strange)} have names that are no prompt's: {_some(strange)}{hint}")
    if parts:
        raise UserError(f"{where}: {'; '.join(parts)}. VBench would leave them out without a word in its scores")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
