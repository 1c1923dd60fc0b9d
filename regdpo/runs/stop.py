"""Ask a training to stop: a signal to any rank, or a file ``stop`` in the run folder, whose text is the reason.

Ranks finish the step, save, leave ``unfinished.json`` and exit with 0; the launcher makes exit code 75 of that.
"""

import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from regdpo.core.section import Section
from regdpo.core.temporaries import atomic

if TYPE_CHECKING:
    import torch

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOP = "stop"
UNFINISHED = "unfinished.json"
_BY_FILE = 128  # above all signals: the file may say more than they do


class Asked(Section):
    """The file ``stop`` as a launcher writes it, in JSON. What a person writes there is the reason, whatever it is."""

    reason: str
    out_of_time: bool = False  # the time limit of its Slurm job is near

    @classmethod
    def read(cls, text: str) -> "Asked":
        """Of either."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return cls(reason=" ".join(text.split())[:200] or "stop file")


class Left(Section):
    """``unfinished.json``: where a training was left. The next start removes it."""

    step: int
    steps: int
    reason: str
    out_of_time: bool = False


class Stop:
    """Whether this rank was asked to stop. Made before the first step; from then on signals ask and do not kill."""

    def __init__(self, run: Path):
        self.run, self.file, self.signal = run, run / STOP, 0
        self.reason, self.out_of_time = "", False  # known, and the same on all ranks, once they agreed
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def asked(self) -> bool:
        return bool(self.signal) or self.file.exists()

    def agreed(self, device: "torch.device") -> bool:
        """Whether any rank was asked. Collective: all ranks call it once per step and get the same answer."""
        import torch  # here, since the launcher reads these names and should not wait for it
        import torch.distributed as dist

        code = torch.tensor(_BY_FILE if self.file.exists() else self.signal, device=device)
        dist.all_reduce(code, dist.ReduceOp.MAX)
        number = int(code)
        if number == _BY_FILE:
            text = ""
            with suppress(FileNotFoundError):  # only another rank sees it yet, or the first has removed it
                text = self.file.read_text(errors="replace")
            asked = Asked.read(text)
            self.reason, self.out_of_time = asked.reason, asked.out_of_time
        elif number:
            self.reason = signal.Signals(number).name
        return number > 0

    def leave(self, step: int, steps: int) -> None:
        """What the first rank leaves when all is saved."""
        with atomic(self.run / UNFINISHED) as temporary:
            left = Left(step=step, steps=steps, reason=self.reason, out_of_time=self.out_of_time)
            temporary.write_text(left.model_dump_json())
        self.file.unlink(missing_ok=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
