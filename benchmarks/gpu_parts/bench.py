"""What a part measures with, inside its own process: rows that are on disk as soon as they are measured."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import rig
import torch

from regdpo.core.errors import first_line
from regdpo.plan.architecture import Architecture, known

T = TypeVar("T")
BEGUN = "begun"
"""Key of a line that says what is being measured, for the case that it never ends."""
NO_TIME = "no time was left"


@dataclass
class Bench:
    """A part's surroundings.

    Args:
        rows: the file of the part's rows, one JSON object a line. folder: for what it needs on disk; empty.
        end: by time.monotonic.
    """

    rows: Path
    folder: Path
    dry: bool
    end: float
    spawn: bool = False  # how processes have to be started: CUDA forbids to fork once it was asked anything

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.dry else torch.device("cuda", 0)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.dry else torch.bfloat16

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def models(self) -> dict[str, Architecture]:
        """The two that are measured, by short names; in miniature when dry."""
        if self.dry:
            tiny = {"num_layers": 3, "num_attention_heads": 8, "attention_head_dim": 12, "ffn_dim": 64}
            return {"1.3B": rig.small("one", **tiny), "14B": rig.small("two", in_channels=36, **tiny)}
        names = {"1.3B": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "14B": "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"}
        return {short: known(name) for short, name in names.items()}

    def size(self, frames: int) -> tuple[int, int, int]:
        """Frames, height and width of clips; when dry the frames alone stand for a video."""
        return (min(frames, 17), 32, 64) if self.dry else (frames, 480, 832)

    def some(self, cases: list[T]) -> list[T]:
        """All cases; the first of them when dry."""
        return cases[:1] if self.dry else cases

    def row(self, measure: Callable[[], dict[str, Any]], needs: float = 0, **about: Any) -> dict[str, Any]:
        """A row: what it is about, and what was measured or why it was not.

        Args:
            needs: seconds; with less left it is not begun.
        """
        row = dict(about)
        if needs > self.left:
            row["failed"] = NO_TIME
        else:
            self._write({BEGUN: row})
            try:
                row |= measure()
            except Exception as error:  # whatever a kernel or a compiler throws is what this row has to say
                traceback.print_exc()
                what = "out of memory" if rig.out_of_memory(error) else type(error).__name__
                row["failed"] = f"{what}: {first_line(error)}"
        self._write(row)
        return row

    def fail(self, reason: str, **about: Any) -> None:
        """A row of what cannot be measured here."""
        self._write({**about, "failed": reason})

    def _write(self, line: dict[str, Any]) -> None:
        with self.rows.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(rows: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The rows that are complete, and what was begun and has not ended."""
    lines = rows.read_text().splitlines(keepends=True) if rows.exists() else []
    known = [json.loads(line) for line in lines if line.endswith("\n")]
    open_ = known[-1][BEGUN] if known and BEGUN in known[-1] else None
    return [line for line in known if BEGUN not in line], open_
