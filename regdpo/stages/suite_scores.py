"""VBench's dimensions of a model's videos of a suite, or of videos in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from regdpo.config.stage_inputs import SuiteStage
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import SuiteSampleRow, SuiteScoreRow
from regdpo.core.store import Store
from regdpo.data.video import BrokenVideo, count_frames
from regdpo.evaluate import vbench_run
from regdpo.evaluate.prompts import SHOWN, Prompt, check_names
from regdpo.evaluate.suites import needs
from regdpo.evaluate.vbench_run import Setting, Video

FRAMES = 2
"""Least frames of a video: VBench compares neighbours."""


def score(
    stage: SuiteStage,
    model: str,
    prompts: Sequence[Prompt],
    samples: Sequence[SuiteSampleRow],
    images: Mapping[str, Path],
    setting: Setting,
) -> list[SuiteScoreRow]:
    """One row a dimension and video of its prompts; of a dimension that cannot run one row, with the reason.

    Args:
        prompts: of the dimensions that can run; ``samples`` are all of their videos.
        images: name -> file of first frames.

    Raises:
        UserError: before anything is measured, a video is missing, is nobody's, or cannot be read; VBench failed.
    """
    where = f"{stage.suite}, videos of {model}"
    check_names([name for prompt in prompts for name in prompt.names], [row.name for row in samples], where)
    check_readable({row.name: setting.store.checked(row.path, row.sha256) for row in samples}, where)
    rows = {row.name: row for row in samples}
    of: dict[str, set[str]] = {name: set() for name in stage.dimensions}
    videos = []
    for prompt in prompts:
        for name in prompt.names:
            row = rows[name]
            image = images.get(prompt.image)
            videos.append(Video(name, row.path, row.sha256, prompt.text, prompt.auxiliary, image, row.image_sha256))
        for dimension in prompt.dimensions:
            of[dimension] |= {*prompt.names}
    found = []
    for dimension, (values, reason) in vbench_run.measured(stage.dimensions, videos, setting, of).items():
        unread = "" if needs(dimension, dimension in stage.static).leaves_out else "VBench could not read the video"
        what = {"suite": stage.suite, "model": model, "dimension": dimension}
        if reason:
            found.append(SuiteScoreRow(score_id=f"{model}|{dimension}|", **what, missing=reason))
            continue
        for name in sorted(of[dimension]):
            row_id, value = f"{model}|{dimension}|{name}", values.get(name)
            measured = {"value": value.value, "weight": value.weight} if value else {"missing": unread}
            found.append(SuiteScoreRow(score_id=row_id, **what, name=name, **measured))
    return found


def check_readable(paths: Mapping[str, Path], where: str) -> None:
    """All videos can be opened and have frames to compare.

    Raises:
        UserError: naming those that do not.
    """
    broken = []
    for name, path in track(paths.items(), f"{where}: are they readable", len(paths)):
        try:
            frames = count_frames(path)
        except BrokenVideo as error:
            broken.append(f"{name!r} {error}")
            continue
        if frames < FRAMES:
            broken.append(f"{name!r} has {frames} frame{'s' * (frames != 1)}")
    if broken:
        more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise UserError(f"{where}: {len(broken)} of {len(paths)} cannot be measured: {', '.join(broken[:SHOWN])}{more}")


def in_folder(folder: Path, suite: str, model: str, prompts: Sequence[Prompt], store: Store) -> list[SuiteSampleRow]:
    """Rows of videos that somebody else rendered, by the names of their files; they are copied to the store.

    Raises:
        UserError: one is missing, has a name that is no prompt's, or cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of videos")
    given = {path.name: path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    expected = {name: (prompt, index) for prompt in prompts for index, name in enumerate(prompt.names)}
    check_names(expected, given, str(folder))
    check_readable(given, str(folder))
    rows = []
    for name, (prompt, index) in expected.items():
        digest = file_digest(given[name])
        path = store.relative("suites", digest, ".mp4")
        if not store.has(path):
            with store.writing(path) as temporary:
                temporary.write_bytes(given[name].read_bytes())
        rows.append(
            SuiteSampleRow(
                sample_id=f"{model}|{name}",
                suite=suite,
                model=model,
                name=name,
                prompt=prompt.text,
                index=index,
                image=prompt.image,
                seed=-1,
                steps=0,
                guidance=1.0,
                shift=None,
                frames=0,
                fps=0.0,
                width=0,
                height=0,
                path=path,
                sha256=digest,
            )
        )
    return rows
