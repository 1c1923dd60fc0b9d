"""What a launcher says to people and records for programs."""

import sys
from contextlib import suppress
from pathlib import Path

from regdpo.runs.events import NAME, record


class RunLog:
    """``log.txt`` of a run folder, which is made for its user alone: what was said at all its starts. Snakemake empties
    a rule's log at each. Events go into a file of their own (regdpo/runs/events.py).

    Args:
        events: that file; empty: in the run folder.
    """

    def __init__(self, run: Path, events: str = ""):
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run, self.path = run, run / "log.txt"
        self.events = Path(events).absolute() if events else run / NAME

    def submitted(self, job: str, found: bool) -> None:
        """That the ranks are in a Slurm job of their own, which this launcher submitted or found."""
        self.say(f"{'found' if found else 'submitted'} as Slurm job {job}")
        record(self.events, "found" if found else "submitted", job, self.run)

    def say(self, line: str) -> None:
        """To the reader, and into the file."""
        print(line, file=sys.stderr, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        with suppress(OSError), self.path.open("a") as file:  # a full disk is told by others
            file.write(line + "\n")
