"""The time limit of a Slurm job."""

import math
import time

from regdpo.runtime import slurm
from regdpo.runtime.slurm import Allocation

ASK_TIME_EVERY = 15.0
"""Most seconds between looks at how much time Slurm leaves."""
OUT_OF_TIME = "the time limit is near"
"""A stop file's reason."""


class TimeLimit:
    """How near a Slurm job is to its end."""

    def __init__(self, allocation: Allocation | None, leave: float):
        self.job = allocation.job if allocation else ""
        self.leave, self.every = leave, min(ASK_TIME_EVERY, leave / 20)
        self.left: float | None = None
        self._asked = -math.inf

    def near(self) -> bool:
        """Less than ``leave`` is left. Slurm is asked now and then, since its limit may be moved."""
        if self.job and time.monotonic() > self._asked + self.every:
            first, self._asked = self.left is None, time.monotonic()
            self.left = slurm.seconds_left(self.job)
            if first and self.left is not None:
                self.leave = min(self.leave, self.left / 2)
        return self.left is not None and self.left < self.leave

    def here(self) -> bool:
        """Less than a fifth of ``leave`` is left: who has not saved by now will not."""
        return self.near() and self.left is not None and self.left < self.leave / 5
