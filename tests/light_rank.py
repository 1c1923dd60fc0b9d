"""A rank whose family loads torch alone, so that it starts in half the time: for tests of what becomes of ranks."""

import toy_family

from regdpo.models.registry import FAMILIES
from regdpo.train import rank

FAMILIES["toy"] = toy_family.DECLARED

if __name__ == "__main__":
    rank.main()
