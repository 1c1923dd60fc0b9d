"""Which half is better by segments of time, brought to latent frames."""

from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow

CHOICES = {"-1": -1, "0": 0, "1": 1}


def labels_of(row: LatentRow) -> list[int]:
    """Of each segment 1 where the winner is better, -1 where the loser is, else 0; one segment if none is labelled.

    Raises:
        UserError: there is something else.
    """
    labels = row.segments.split(",") if row.segments else ["1"]
    if wrong := [label for label in labels if label not in CHOICES]:
        raise UserError(
            f"pair {row.pair_id}: segments `{row.segments}`: {wrong[0]!r} is none; they are -1, 0 and 1, with commas"
        )
    return [CHOICES[label] for label in labels]


def of_frames(segments: int, frames: int, temporal: int) -> list[int]:
    """The number of each latent frame's segment: that in which the middle of the frames that it holds lies.

    Args:
        segments: of equal time, that divide the clip.
        frames: latent ones; the first holds one frame, every other ``temporal``.
    """
    middles = [0.5, *(1 + (frame + 0.5) * temporal for frame in range(frames - 1))]
    return [int(middle * segments / (1 + (frames - 1) * temporal)) for middle in middles]


def check(row: LatentRow, temporal: int, given: bool) -> None:
    """Refuse a pair of which a segment has no latent frame of its own, and so no error.

    Args:
        given: whether the first latent frame is a condition, without an error.

    Raises:
        UserError: naming it; or as above.
    """
    segments, frames = len(labels_of(row)), int(row.shape.split(",")[1])
    found = of_frames(segments, frames, temporal)[given:]
    if len(set(found)) < segments:
        raise UserError(
            f"pair {row.pair_id}: has {segments} segments and {len(found)} latent frames with an error, so some "
            "have none; label longer segments"
        )
