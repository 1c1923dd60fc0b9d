"""How models are called: ``real``, ``base`` and ``ARM/seedN``; on another base model than the first, its folder before
that, such as ``base1/base`` and ``base1/sft/seed0``."""

import re
from dataclasses import dataclass

from regdpo.core.errors import UserError
from regdpo.core.rows import REAL

BASE = "base"
FOLDER = re.compile(r"base-?\d+")
LINK = r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.\d+)?"
"""Name of a training of an arm: the last has the arm's, those before it `.1`, `.2`, ... behind that."""
_NAME = re.compile(rf"({FOLDER.pattern}/)?(?:({REAL}|{BASE})|({LINK})/seed(-?\d+))")


@dataclass(frozen=True)
class ModelName:
    """A name in its parts."""

    of: str
    """The folder of its base model below the results, with a slash; empty of the first base model."""
    arm: str
    """Or ``real`` or ``base``."""
    seed: int | None
    """Of the training."""

    @classmethod
    def parse(cls, name: str) -> "ModelName":
        """
        Raises:
            UserError: it is not a name of a model.
        """
        found = _NAME.fullmatch(name)
        if not found:
            raise UserError(f"{name}: is no model's name: real, base or ARM/seedN, or baseN/ before them")
        return cls(found[1] or "", found[2] or found[3], None if found[4] is None else int(found[4]))

    @property
    def alone(self) -> str:
        """The name without its base model's folder."""
        return self.arm if self.seed is None else f"{self.arm}/seed{self.seed}"

    @property
    def file(self) -> str:
        """Its model.json, below the results."""
        return f"{self.of}{BASE if self.arm == BASE else f'train/{self.alone}'}/model.json"

    def table(self, stage: str) -> str:
        """Its manifest of a stage, below the results."""
        return f"{self.of}{stage}/{self.alone}.parquet"
