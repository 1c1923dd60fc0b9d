"""When a training goes wrong, and what is done about it."""

import math
from collections import deque
from typing import Any

from regdpo.config.training import Guards
from regdpo.core.errors import UserError

ACCURACY = 0.95


class Watch:
    """Looks at every step's row of metrics; rows are equal on all ranks, so all ranks decide alike."""

    def __init__(self, guards: Guards):
        self.guards = guards
        self.skipped: list[set[str]] = []  # pairs of the steps in a row that were
        self.rows: deque[tuple[float, float]] = deque(maxlen=guards.drift_steps)
        self.warned = False

    def remember(self, row: dict[str, Any]) -> None:
        """Take note of a step, one of an earlier start perhaps."""
        if "skipped" in row:
            self.skipped.append(set(row["skipped"]))
            return
        self.skipped = []
        if "accuracy" in row and "win_gap" in row:  # a step of labelled samples may have no good one
            self.rows.append((row["accuracy"], row["win_gap"]))

    def look(self, row: dict[str, Any]) -> str:
        """After a step: a warning to say, or "".

        Raises:
            UserError: too many steps in a row were skipped, or it drifts and ``guards.drift`` is ``stop``.
        """
        self.remember(row)
        return self._nonfinite(row["step"]) if self.skipped else self._drift(row["step"])

    def _nonfinite(self, step: int) -> str:
        if len(self.skipped) < self.guards.nonfinite:
            return f"step {step} skipped: not finite ({_named(self.skipped[-1])})"
        raise UserError(
            f"step {step}: not finite {len(self.skipped)} times in a row ({_named(set().union(*self.skipped))}); look "
            "at these pairs' latents, lower train.settings.lr, or take precision fp32; the last checkpoint is intact"
        )

    def _drift(self, step: int) -> str:
        if self.guards.drift == "off" or len(self.rows) < self.guards.drift_steps:
            return ""
        accuracy, gap = (math.fsum(column) / len(self.rows) for column in zip(*self.rows, strict=True))
        if accuracy < ACCURACY or gap <= 0:
            self.warned = False
            return ""
        line = (
            f"step {step}: drift: over {len(self.rows)} steps accuracy is {accuracy:.3f} while the win gap is "
            f"+{gap:.3g}: losers get worse and winners too; lower lr or beta, or take reg_dpo with a constant r"
        )
        if self.guards.drift == "stop":
            raise UserError(f"{line} (train.settings.guards.drift: stop)")
        said, self.warned = self.warned, True
        return "" if said else line


def _named(pairs: set[str]) -> str:
    return f"pairs {', '.join(sorted(pairs))}" if pairs else "the gradient alone; every pair's loss was finite"
