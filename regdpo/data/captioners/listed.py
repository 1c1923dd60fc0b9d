"""Captions from the table of videos (regdpo/data/table.py)."""

from pathlib import Path

from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.data import table
from regdpo.data.captioners.answers import Task
from regdpo.data.names import shown

TOLD = 20
"""Most videos that a message names."""


def read(task: Task) -> list[CaptionRow]:
    """What the table says of the stretch that each clip is of.

    Raises:
        UserError: the table does not fit, or has no caption of some clips.
    """
    file = task.stage.videos_table
    assert file is not None, "the configuration is refused that has no table for this captioner"
    listed = table.read(file)
    texts = {clip.clip_id: _text(listed, clip) for clip in task.clips}
    if not all(texts.values()):
        lacking = [clip for clip in task.every() if not _text(listed, clip)]
        task.leave_to_first(lacking)
        missing = sorted({clip.source for clip in lacking})
        more = f" and {len(missing) - TOLD} more" if len(missing) > TOLD else ""
        named = ", ".join(map(shown, missing[:TOLD]))
        raise UserError(f"captions: {file} has no caption of {named}{more}; write what those rows show, in `caption`")
    writer = f"table:{shown(Path(file).name)}"
    return [CaptionRow(clip_id=clip.clip_id, caption=texts[clip.clip_id], captioner=writer) for clip in task.clips]


def _text(listed: dict[str, table.Listed], clip: ClipRow) -> str:
    one = listed[clip.source].at(clip.start_s) if clip.source in listed else None
    return one.caption if one else ""
