"""Losses of four errors, weights of pairs, and the laws that noise and timesteps follow."""

from regdpo.config.training import OBJECTIVES

FUNCTIONS = {"pretrain": "sft"} | {name: name for name in OBJECTIVES}
"""Objective in the configuration -> its function in ``losses``."""
