"""What all captioners share: the task, frames spread over a clip, and answers that are kept in the store."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from regdpo.config.schema import CaptionServer
from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import Store
from regdpo.data.names import shown


@dataclass(frozen=True)
class Task:
    """What a captioner is given."""

    stage: CaptionsStage
    clips: list[ClipRow]
    """Of one shard."""
    store: Store
    sources: Collection[str]
    """Videos of the accepted clips of all shards, by which a text that could belong to two is told."""
    every: Callable[[], Sequence[ClipRow]]
    """The accepted clips of all shards: asked for when some of this one lack a text, so that all that do are told."""
    server: CaptionServer | None = None

    def leave_to_first(self, lacking: Sequence[ClipRow]) -> None:
        """Let one shard alone name all clips that lack a text: that of the first of them.

        Args:
            lacking: of all shards.

        Raises:
            UserError: this shard is another; a short line.
        """
        own = {clip.clip_id for clip in self.clips}
        if lacking[0].clip_id in own:
            return
        mine = [clip.source for clip in lacking if clip.clip_id in own]
        raise UserError(
            f"captions: {len(mine)} of the {len(own)} clips of this shard have none, such as those of "
            f"{shown(mine[0])}; the shard with {shown(lacking[0].source)} lists all that lack"
        )


@dataclass(frozen=True)
class Answer:
    """What a model said about a clip."""

    text: str
    cut: bool = False
    """Whether it ran into the limit of tokens."""


class Kept:
    """Answers of a model about clips, kept in the store by the clip's bytes and by what shaped them.

    Args:
        task: whose clips they are about.
        captioner: who answers, as rows name it.
        shaped_by: everything else that shapes an answer.
    """

    def __init__(self, task: Task, captioner: str, *shaped_by: str):
        self.task, self.captioner = task, captioner
        self.by_content = {clip.sha256: clip for clip in task.clips}
        keys = {digest: text_digest(digest, captioner, *shaped_by) for digest in self.by_content}
        self.files = {digest: task.store.relative("captions", key, ".json") for digest, key in keys.items()}

    def missing(self) -> list[ClipRow]:
        """The clips to ask about, each content once."""
        store = self.task.store
        return [clip for digest, clip in self.by_content.items() if not store.has(self.files[digest])]

    def keep(self, clip: ClipRow, answer: Answer) -> None:
        """As soon as it is there."""
        with self.task.store.writing(self.files[clip.sha256]) as temporary:
            text = answer.text.encode(errors="surrogatepass").decode(errors="replace")
            said = {"caption": " ".join(text.split()), "cut": answer.cut}
            temporary.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")

    def rows(self) -> list[CaptionRow]:
        """One a clip, once none is missing.

        Raises:
            UserError: one was altered.
        """
        said = {}
        for digest, relative in self.files.items():
            self.task.store.digest(relative)
            try:
                said[digest] = json.loads(self.task.store.resolve(relative).read_text(encoding="utf-8"))
            except ValueError:
                raise self.task.store.damaged(relative, "it is no answer") from None
        return [
            CaptionRow(
                clip_id=clip.clip_id,
                caption=said[clip.sha256]["caption"],
                cut=said[clip.sha256]["cut"],
                captioner=self.captioner,
            )
            for clip in self.task.clips
        ]


def evenly(total: int, count: int) -> np.ndarray:
    """Indices of ``count`` frames spread over ``total``, first and last included; an even count, for models see frames
    two by two, and some twice where there are fewer."""
    return np.linspace(0, total - 1, count + count % 2).round().astype(int)


def one_line(text: object) -> str:
    """A message of another program, on one line and not longer than a reader wants."""
    line = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(line.split())[:300]


def needed(value: str | None, key: str) -> str:
    """Text that the configuration has to give.

    Raises:
        UserError: it does not.
    """
    if not value:
        raise UserError(f"{key}: is missing")
    return value
