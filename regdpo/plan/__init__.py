"""Will it fit, and how long will it take: asked before a GPU is."""

from regdpo.plan.architecture import find, of_folder
from regdpo.plan.layouts import check

__all__ = ["check", "find", "of_folder"]
