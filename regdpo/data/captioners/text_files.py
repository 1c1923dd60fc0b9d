"""Captions from text files beside the footage (regdpo/data/sidecars.py)."""

from collections.abc import Collection, Sequence
from pathlib import Path

from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
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
    files = Sidecars(folder(task.stage.captions.root, task.stage.videos_root), task.sources)
    named = _named(files, task.clips)
    if any(name is None or files.is_empty(name) for name in named.values()):
        _refuse(files, task)
    names = {clip.clip_id: name for clip in task.clips if (name := named[clip.source, clip.shot])}
    texts = {name: files.read(name) for name in dict.fromkeys(names.values())}
    return [
        CaptionRow(clip_id=clip_id, caption=texts[name], captioner=f"sidecar:{shown(name)}")
        for clip_id, name in names.items()
    ]


def _named(files: Sidecars, clips: Sequence[ClipRow]) -> dict[tuple[str, int], str | None]:
    """Source and shot of clips -> the text's file, if there is one."""
    return {shot: files.of(*shot) for shot in sorted({(clip.source, clip.shot) for clip in clips})}


def _refuse(files: Sidecars, task: Task) -> None:
    """Tell which texts lack, or are empty, for any clip."""
    every = task.every()
    named = _named(files, every)
    empty = {name for name in named.values() if name and files.is_empty(name)}
    missing = [clip for clip in every if named[clip.source, clip.shot] is None]
    task.leave_to_first(missing + [clip for clip in every if named[clip.source, clip.shot] in empty])
    if missing:
        raise UserError(
            f"captions: {len(missing)} of {len(every)} clips have no caption: write "
            f"{_listed({files.wanted(clip.source) for clip in missing})} (or VIDEO.shot000.txt for one shot alone) in "
            f"{files.root}, or set `captions.root` or `captions.source`; scripts/captions.py --write-templates writes "
            "empty files for all, and a page that shows the videos"
        )
    which = "this text file is" if len(empty) == 1 else f"these {len(empty)} text files are"
    raise UserError(f"captions: {which} empty: {_listed(empty)} in {files.root}; write into each what its video shows")


def _listed(names: Collection[str]) -> str:
    """Names in order, all of them unless they are very many."""
    told = ", ".join(map(shown, sorted(names)[:TOLD]))
    return f"{told} and {len(names) - TOLD} more" if len(names) > TOLD else told


def folder(root: str | None, videos_root: str) -> Path:
    """Where text files lie.

    Args:
        root: captions.root; empty: beside the videos. videos_root: videos.root.

    Raises:
        UserError: there is no such folder.
    """
    try:
        return footage_root(root or videos_root)
    except UserError as error:
        if not root:
            raise
        told = str(error).replace("videos.root", "captions.root")
        raise UserError(f"{told}; scripts/captions.py --write-templates makes it, with the files to fill in") from None
