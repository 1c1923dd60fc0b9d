"""Captions from text files beside the footage (regdpo/data/sidecars.py)."""

from collections.abc import Collection
from pathlib import Path

from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow
from regdpo.data.captioners.answers import Task
from regdpo.data.footage import footage_root
from regdpo.data.names import shown
from regdpo.data.sidecars import Sidecars

TOLD = 50
"""Most files that a message names."""


def read(task: Task) -> list[CaptionRow]:
    """The text of each clip's shot or video.

    Raises:
        UserError: files are missing, empty, not text, or could belong to two videos; all that are missing are named.
    """
    every = task.every
    files = Sidecars(_root(task.stage), {clip.source for clip in every})
    shots = {(clip.source, clip.shot) for clip in every}
    named = {shot: name for shot in sorted(shots) if (name := files.of(*shot)) is not None}
    if missing := [clip for clip in every if (clip.source, clip.shot) not in named]:
        raise UserError(
            f"captions: {len(missing)} of {len(every)} clips have no caption: write "
            f"{_listed({files.wanted(clip.source) for clip in missing})} (or VIDEO.shot000.txt for one shot alone) in "
            f"{files.root}, or set `captions.root` or `captions.source`; scripts/captions.py --write-templates writes "
            "empty files for all, and a page that shows the videos"
        )
    if empty := {name for name in named.values() if files.is_empty(name)}:
        raise UserError(f"captions: in {files.root} {_listed(empty)}: is empty; write what the video shows")
    names = {clip.clip_id: named[clip.source, clip.shot] for clip in task.clips}
    texts = {name: files.read(name) for name in dict.fromkeys(names.values())}
    return [
        CaptionRow(clip_id=clip_id, caption=texts[name], captioner=f"sidecar:{shown(name)}")
        for clip_id, name in names.items()
    ]


def _listed(names: Collection[str]) -> str:
    """Names in order, all of them unless they are very many."""
    told = ", ".join(map(shown, sorted(names)[:TOLD]))
    return f"{told} and {len(names) - TOLD} more" if len(names) > TOLD else told


def _root(stage: CaptionsStage) -> Path:
    try:
        return footage_root(stage.captions.root or stage.videos_root)
    except UserError as error:
        if not stage.captions.root:
            raise
        told = str(error).replace("videos.root", "captions.root")
        raise UserError(f"{told}; scripts/captions.py --write-templates makes it, with the files to fill in") from None
