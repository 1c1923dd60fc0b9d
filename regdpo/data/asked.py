"""Which negatives a clip is to have, as it is known before any is rendered: of which generators, and by which names."""

from collections.abc import Iterable

from regdpo.config.schema import BASE
from regdpo.config.stage_inputs import Asked
from regdpo.core.digests import text_digest


def takes(asked: Asked, clip_id: str) -> bool:
    """Whether a clip is in a generator's share, by the hash of its id, which lies on a circle of length 1."""
    place = int(text_digest("generator", clip_id)[:13], 16) / 16**13
    return (place - asked.begin) % 1 < asked.share


def negative_ids(asked: Asked, clip_id: str) -> list[str]:
    """The ids of a clip's negatives by one generator."""
    by = "" if asked.generator == BASE else f"{asked.generator}."
    return [f"{clip_id}.{by}n{number}" for number in range(asked.per_clip)]


def every_id(generators: Iterable[Asked], clip_id: str) -> list[str]:
    """The ids of all negatives that are made of a clip."""
    return [name for asked in generators if takes(asked, clip_id) for name in negative_ids(asked, clip_id)]
