"""A copy of the project that runs by profiles/slurm."""

import copy
import sys
from pathlib import Path

from project import CONFIG, Project

SOON = (sys.executable, str(Path(__file__).parent / "soon.py"))
SETTINGS = copy.deepcopy(CONFIG)
SETTINGS["train"]["arms"] = {"dpo": CONFIG["train"]["arms"]["dpo"]}
del SETTINGS["train"]["export_formats"]  # of adapters
SETTINGS["launch"] = {"processes": 2, "nodes": 2}


class SlurmProject(Project):
    """Run by profiles/slurm, in which the account is filled in."""

    program = SOON
    where = ("--profile", "profiles/slurm")

    ran: list[dict[str, str]]
    """Slurm's jobs of `all`."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.configure(SETTINGS)
        profile = folder / "profiles/slurm/profile.v9+.yaml"
        profile.write_text(profile.read_text().replace("# slurm_account: your_account", "slurm_account: default"))
