"""A copy of the project that runs by profiles/slurm, with the tests' own family for its model: its jobs start fast."""

import copy
import sys
from pathlib import Path

import toy_family
from project import CONFIG, Project

SOON = (sys.executable, str(Path(__file__).parent / "soon.py"))
SETTINGS = copy.deepcopy(CONFIG)
SETTINGS["videos"]["include"] = ["bigbuckbunny.mp4"]
SETTINGS["base"] = {"family": "toy", "task": "t2v", "model": "toy", "text_length": 8}
SETTINGS["pairs"]["sources"] = {
    "gt": {"kind": "gt"},
    "ranked": {
        "kind": "best_of_n",
        "candidates": {"count": 2, "limit": 9, "score": {"sharpness": 1}, "shards": 1},
    },
}
SETTINGS["train"]["arms"] = {"dpo": CONFIG["train"]["arms"]["dpo"]}
del SETTINGS["train"]["export_formats"]  # of adapters
SETTINGS["launch"] = {"processes": 2, "nodes": 2}


SLOW = """

class Slow(Toy):
    \"\"\"A step takes a while and no processor, as it does on GPUs: time to do something to a training.\"\"\"

    def predict(self, *inputs: Any) -> Tensor:
        time.sleep(0.02)
        return super().predict(*inputs)
"""


class SlurmProject(Project):
    """Run by profiles/slurm, in which the account is filled in."""

    program = SOON
    where = ("--profile", "profiles/slurm")

    ran: list[dict[str, str]]
    """Slurm's jobs of `all`."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.configure(SETTINGS)
        family = Path(toy_family.__file__).read_text().replace("import json\n", "import json\nimport time\n", 1)
        (folder / "regdpo/models/toy.py").write_text(family + SLOW)
        with (folder / "regdpo/models/registry.py").open("a") as registry:
            registry.write('FAMILIES["toy"] = Declaration("regdpo.models.toy:Slow")\n')
        toy_family.save(folder / "toy")
        profile = folder / "profiles/slurm/profile.v9+.yaml"
        profile.write_text(profile.read_text().replace("# slurm_account: your_account", "slurm_account: default"))
