"""The shards' clips as one manifest, in which the same footage is kept once."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from regdpo.config.stage_inputs import MergeStage
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, CopyRow
from regdpo.data import copies, fingerprint, splits
from regdpo.data.footage import summary
from regdpo.data.splits import SPLITS, is_known, source_splits

Shot = tuple[str, int]
"""Source, and number of the shot."""


def merge(rows: list[ClipRow], stage: MergeStage, decision: Path | None = None) -> tuple[list[ClipRow], list[CopyRow]]:
    """Reject clips whose footage another shot shows too, and tell which shots show the same.

    Kept is the clip that is held out (test before validation before train), so that a copy moves no footage into
    another split; then the one whose source has more pixels, then more bits a second, then the first name, then
    the first shot. Where shots are cut in time into splits, all clips of one source are kept: which of them comes first
    says nothing of where it is held out.

    Args:
        rows: of all shards. stage: the configuration.
        decision: file that says how the footage is split (``splits.decide``), which is made if it is not there.

    Raises:
        UserError: no clip is accepted, or a fingerprint is none.
    """
    accepted = [row for row in rows if row.status == "accepted"]
    if not accepted:
        raise UserError("no clip is accepted: " + "; ".join(summary(rows)))
    new = [row for row in accepted if not is_known(row.source, stage.known)]
    settings = splits.decide(decision, new, stage.pairs) if decision else stage.pairs
    sides = source_splits(new, settings)
    rank = {source: len(SPLITS) - SPLITS.index(side) for source, side in sides.items()}
    last = len(SPLITS) + 1
    clips: dict[Shot, list[ClipRow]] = defaultdict(list)
    for row in sorted(
        accepted,
        key=lambda row: (rank.get(row.source, last), -row.source_pixels, -row.source_rate, row.source, row.shot),
    ):
        clips[row.source, row.shot].append(row)
    shots, steps = list(clips), _steps(rows)
    found = copies.find([steps.get(shot, fingerprint.steps_of("")) for shot in shots], stage.same_footage)
    reasons = _duplicates(found, shots, clips, set(sides))
    merged = [
        row.model_copy(
            update={"fingerprint": "", "status": "rejected", "reason": reasons[row.clip_id]}
            if row.clip_id in reasons
            else {"fingerprint": ""}
        )
        for row in rows
    ]
    return merged, [_row(copy, shots, clips[shots[copy.later]][0].fps) for copy in found]


def _steps(rows: list[ClipRow]) -> dict[Shot, np.ndarray]:
    found = {}
    for row in rows:
        if row.fingerprint:
            try:
                found[row.source, row.shot] = fingerprint.steps_of(row.fingerprint)
            except ValueError:
                raise UserError(
                    f"clip {row.clip_id}: its fingerprint is damaged; make the shard's manifest again"
                ) from None
    return found


def _duplicates(
    found: list[copies.Copy], shots: list[Shot], clips: dict[Shot, list[ClipRow]], whole: set[str]
) -> dict[str, str]:
    """Id of a clip -> why it is rejected: at least half of its frames are those of a clip that is kept. Sources that
    are ``whole`` in one split are held against themselves too."""
    reasons: dict[str, str] = {}
    kept: dict[Shot, list[int]] = {}
    of: dict[int, list[copies.Copy]] = defaultdict(list)
    for copy in found:
        source = shots[copy.later][0]
        if shots[copy.earlier][0] != source or source in whole:
            of[copy.later].append(copy)
    for number, shot in enumerate(shots):
        for clip in clips[shot]:
            for copy in of[number]:
                step, half = fingerprint.step_frames(clip.fps), clip.frames / 2
                source, other = shots[copy.earlier]
                common = min(clip.start + clip.frames, copy.stop * step) - max(clip.start, copy.start * step)
                if common >= half and splits.near(kept[source, other], clip.start + copy.offset * step, half):
                    reasons[clip.clip_id] = f"duplicate: same content as {source} shot {other}"
                    break
        kept[shot] = sorted({clip.start for clip in clips[shot] if clip.clip_id not in reasons})
    return reasons


def _row(copy: copies.Copy, shots: list[Shot], fps: float) -> CopyRow:
    step = fingerprint.step_frames(fps)
    (source, shot), (other, other_shot) = shots[copy.later], shots[copy.earlier]
    return CopyRow(
        copy_id=f"{source} shot {shot} = {other} shot {other_shot}",
        source=source,
        shot=shot,
        start=round(copy.start * step),
        frames=round((copy.stop - copy.start) * step),
        other_source=other,
        other_shot=other_shot,
        other_start=round((copy.start + copy.offset) * step),
    )
