"""What a launcher did, for programs: one line of JSON an event. What it says to people, no program reads."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from regdpo.core.section import Section

NAME = "events.jsonl"
"""The file in a run folder, where no other is named."""


class Event(Section):
    """Something that happened to a training."""

    time: str  # ISO 8601, UTC
    event: Literal["submitted", "found"]  # a Slurm job of its own, by this launcher or by one before
    slurm_job: str
    run: str  # the run folder


def record(path: Path, event: Literal["submitted", "found"], slurm_job: str, run: Path) -> None:
    """Append an event. A disk that is full is told by others."""
    line = Event(time=datetime.now(UTC).isoformat(), event=event, slurm_job=slurm_job, run=str(run))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json() + "\n")


def read(path: Path) -> list[Event]:
    """The events of a file in their order; none where there is no file. A line cut off by a kill is left out."""
    found = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, ValidationError):
                found.append(Event.model_validate(json.loads(line)))
    return found
