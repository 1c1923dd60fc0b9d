"""What was said in a run folder."""

import sys
from contextlib import suppress
from pathlib import Path


class RunLog:
    """``log.txt`` of a run folder, which is made for its user alone: what was said at all its starts. Snakemake empties
    a rule's log at each."""

    def __init__(self, run: Path):
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = run / "log.txt"

    def say(self, line: str) -> None:
        """To the reader, and into the file."""
        print(line, file=sys.stderr, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        with suppress(OSError), self.path.open("a") as file:  # a full disk is told by others
            file.write(line + "\n")
