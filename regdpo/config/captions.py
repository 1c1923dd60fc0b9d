"""The sections of the configuration for captions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from regdpo.core.section import Count, InputPath, Positive, Section
from regdpo.data.captioner_registry import CAPTIONERS


class CaptionServer(Section):
    """The server that the captioner `endpoint` asks. Where it is and how patient one is with it shapes no caption."""

    url: str = Field(
        pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$",
        description="Its address up to the version, such as `http://node7:8000/v1`; without a user or a key.",
    )
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds its key; empty: it wants none. The key itself is in "
        "no file and no log.",
    )
    concurrency: Count = Field(16, description="Requests at once, of each job; the jobs are `clips.shards`.")
    timeout: Positive = Field(180, description="Seconds that a request may take, up to the last byte of its answer.")
    attempts: Count = Field(
        6, description="Times that a clip is asked about, where the server is busy, fails, is late or answers nonsense."
    )
    longest_wait: Positive = Field(
        60, description="Most seconds between two tries; they double from one, and `Retry-After` is heeded up to this."
    )


if TYPE_CHECKING:
    CaptionerName = str
else:
    CaptionerName = Literal[tuple(CAPTIONERS)]


class Captions(Section):
    """One caption per clip."""

    source: CaptionerName = Field(
        "sidecar", description="; ".join(f"`{name}`: {it.description}" for name, it in CAPTIONERS.items()) + "."
    )
    root: Annotated[str, InputPath()] | None = Field(
        None,
        description="sidecar: folder of text files; empty: beside the videos. The caption of `a.mp4` is `a.mp4.txt` or "
        "`a.txt`, that of its first shot alone `a.shot000.txt`.",
    )
    model: Annotated[str, InputPath(always=False)] | None = Field(
        None, description="transformers: hub name or local folder; endpoint: the name by which the server has it."
    )
    revision: str | None = Field(
        None,
        description="Pinned revision of the model; needed for a hub name. endpoint: the one that the server was "
        "started with, which nothing else can tell.",
    )
    prompt: str = Field(
        "Describe this video in one paragraph: the subject, what it does, the setting, the camera.",
        min_length=1,
        description="The instruction to a model.",
    )
    frames: Count = Field(8, description="Frames shown to the model.")
    send: Literal["frames", "video"] = Field(
        "frames", description="endpoint: `frames`: as pictures, which every server takes; `video`: the clip itself."
    )
    max_new_tokens: Count = Field(400, description="Longest caption of a model, in its tokens.")
    batch: Count = Field(4, description="transformers: clips per forward pass.")
    python: Annotated[str, InputPath(program=True)] = Field(
        ".venv-captioning/bin/python",
        description="transformers: interpreter of its environment (`make captioning`). It is a program "
        "that jobs run: whoever sets this key runs code.",
    )
    script: str | None = Field(
        None,
        pattern=r"^[A-Z]+$",
        description="Script that most letters of a caption have to be in, by their names in Unicode (`LATIN`, `CJK`, "
        "`CYRILLIC`), as the base model reads it; empty: any.",
    )
    unusable: Literal["stop", "leave_out"] = Field(
        "stop",
        description="What becomes of a caption that is empty, cut off, a refusal or not in `script`: `stop` ends the "
        "run with all of them, `leave_out` leaves their clips out of the pairs, with the reason in `captions.parquet`.",
    )
    too_long: Literal["cut", "leave_out", "stop"] = Field(
        "cut",
        description="What becomes of a caption of more tokens than the text encoder reads (`base.text_length`). `cut`: "
        "its end is not seen, and a line says so. `leave_out`: no negative is made of it, with the reason in the "
        "manifest of negatives. `stop`: it ends the run.",
    )
    server: CaptionServer | None = None

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        for needed in CAPTIONERS[self.source].needs:
            if not getattr(self, needed):
                raise ValueError(f"source `{self.source}` needs `{needed}`")
        if self.model and not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        return self
