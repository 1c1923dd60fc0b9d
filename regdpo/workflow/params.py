"""What the rules hand to Snakemake as `params` and `resources`: what makes a stage's result stale, and what it needs.

A value that goes through `params` makes stale what it changes for; one that goes through `resources`, or through the
run's file (regdpo/config/run_file.py), does not.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from regdpo.config import stage_inputs
from regdpo.config.autoencoder import TRAINED
from regdpo.config.schema import Config
from regdpo.core import portable
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.environment import environment_digest
from regdpo.evaluate import vbench_weights
from regdpo.evaluate.measures import MEASURES, named
from regdpo.evaluate.suites import SUITES
from regdpo.models.registry import FAMILIES
from regdpo.objectives.registry import OBJECTIVES

MODEL_PACKAGES = ("torch", "diffusers", "transformers", "ftfy", "numpy", "av")
VIDEO_PACKAGES = ("av", "imageio-ffmpeg", "ffmpeg-python", "numpy", "opencv-python-headless")
NO_NUMBERS = frozenset(["huggingface-hub", "diffusers"])
"""Packages by which alone no stage computes: those of `base_by_name` and of `weights`."""
DIGEST = 16
"""Hex digits that a rule is given of a digest."""
RANK = "regdpo.train.rank"
"""What torchx starts."""
TRAINERS = {"train": "regdpo.train.trainer", "train_vae": "regdpo.train.autoencoder"}
"""Script -> what that has the ranks do."""


class Params:
    """Of one configuration.

    Args:
        root: of the checkout.
        codes: digests of code that the controlling process found, of which a job has the same (`RunFile.codes`).
    """

    def __init__(self, settings: Config, root: Path, codes: Mapping[str, str] | None = None):
        self.settings, self.root, self.codes = settings, root, dict(codes or {})
        self.family = FAMILIES[settings.base.family].module
        """The module of the base's family."""

    def reads(self, stage: Any, which: Callable[[Any], tuple[Any, ...]] = lambda wildcards: ()) -> Callable[[Any], str]:
        """`params.config`: what a stage reads of the configuration, as JSON. A function, since Snakemake takes braces
        in text for wildcards.

        Args:
            stage: of ``stage_inputs``. which: what ``stage.of`` wants beside the configuration, from the wildcards.
        """
        return lambda wildcards: canonical(placeless(stage.of(self.settings, *which(wildcards))))

    def code(self, script: str, *chosen: str) -> str:
        """`params.code`: digest of a script, of what it imports, and of what a table chooses for it."""
        entries = " ".join([script, *chosen])
        if entries not in self.codes:
            self.codes[entries] = code_digest(str(self.root / "scripts" / f"{script}.py"), *chosen)[:DIGEST]
        return self.codes[entries]

    def training_code(self, objective: str) -> str:
        """`params.code` of a training: also the rank that torchx starts, what that does, the family, and the one
        loss."""
        return self.code("train", RANK, TRAINERS["train"], self.family, OBJECTIVES[objective].function)

    def negatives_code(self, wildcards: Any) -> str:
        """`params.code` of negatives: also the family of their generator."""
        base, _ = self.settings.generator(wildcards.generator)
        return self.code("negatives", FAMILIES[base.family].module)

    def autoencoder_code(self, name: str) -> str:
        """`params.code` of an autoencoder's measure: also its family, of the base or of a generator."""
        return self.code("vae", FAMILIES[self.settings.autoencoder(name).family].module)

    def trained_autoencoder_code(self) -> str:
        """`params.code` of an autoencoder's training; empty where there is none."""
        if not self.settings.vae.train:
            return ""
        family = FAMILIES[self.settings.autoencoder(TRAINED).family].module
        return self.code("train_vae", RANK, TRAINERS["train_vae"], family)

    def env(self, *packages: str, lock: str = "regdpo") -> str:
        """`params.env`: digest of the locked packages that shape a stage's result, and of the mode that its numbers are
        made in."""
        locks = [self.root / "envs" / f"{name}.lock" for name in (lock, "torch", "filters")]
        numbers = portable.identity(self.settings.portable and not NO_NUMBERS.issuperset(packages))
        return environment_digest(locks, *packages, numbers=numbers)[:DIGEST]

    def template(self, *names: str) -> str:
        """`params.template`: digest of what a page is made of beside code. As an input it would count by its path too,
        and a checkout that was moved would make the page stale."""
        return text_digest(*(file_digest(self.root / "regdpo/report" / name) for name in names))[:DIGEST]

    def measured(self, wildcards: Any) -> str:
        """`params.config` of a measure."""
        measure = MEASURES[wildcards.measure]
        if measure.stage:
            return self.reads(getattr(stage_inputs, measure.stage))(wildcards)
        return self.reads(stage_inputs.JudgeStage, lambda _: (measure.on,))(wildcards) if measure.on else ""

    def measure_code(self, name: str) -> str:
        """`params.code` of a measure: also its own, and the family's where it loads the model."""
        measure = MEASURES[name]
        return self.code("scores", measure.module, *([self.family] if measure.reads == "model" else []))

    def measure_env(self, name: str) -> str:
        """`params.env` of a measure."""
        measure = MEASURES[name]
        return self.env(*measure.packages, lock=measure.lock) if measure.packages else ""

    def measure_there(self, name: str) -> str:
        """What of a measure can run, as far as that depends on its environment and weights."""
        there, vbench = MEASURES[name].there, self.settings.scores.vbench
        return str(named(there)(vbench.measured, vbench.python, vbench.weights)) if there else ""

    def suite_there(self, suite: str) -> str:
        """The dimensions of a suite that can run."""
        vbench, declared = self.settings.scores.vbench, SUITES[suite]
        static = declared.static if vbench.static else ()
        return " ".join(vbench_weights.available(declared.dimensions, vbench.python, Path(vbench.weights), static))

    def memory(self, small: int, checkpoint: int | None = None) -> Callable[[Any, int], int]:
        """`mem_mb`: beside the base made here, or beside a checkpoint (estimates for 14B), such as a generator's; more
        with each retry."""

        def needed(wildcards: Any, attempt: int) -> int:
            name = wildcards.get("generator")
            model = self.settings.generator(name)[0] if name else self.settings.base
            if model.pretrain or not checkpoint:
                return small * attempt
            return checkpoint + checkpoint // 4 * (attempt - 1)

        return needed

    def launch(self, key: str, comment: str, events: Path, resources: Any, threads: int) -> str:
        """How a training runs, for ``LaunchOptions``; its job's resources are as a profile may have changed them.

        Args:
            key: of ``Config.trainings``. comment, events: for a Slurm job that the training submits itself.
        """
        training, _ = self.settings.trainings()[key]
        own = {"parallel", "micro_batch", "checkpoint_every", "eval_every", "keep"}
        given = training.model_dump(mode="json", include=own)
        return self._launch(given, comment, events, resources, threads)

    def launch_of_autoencoder(self, comment: str, events: Path, resources: Any, threads: int) -> str:
        """The same of the training of an autoencoder."""
        training = self.settings.vae.train
        assert training is not None
        given = training.model_dump(mode="json", include={"checkpoint_every", "eval_every", "keep"})
        return self._launch(given, comment, events, resources, threads)

    def _launch(self, given: Mapping[str, Any], comment: str, events: Path, resources: Any, threads: int) -> str:
        launch = self.settings.launch
        cpus = launch.processes // launch.nodes if launch.scheduler == "slurm" else threads
        return canonical(
            launch.model_dump(include={"scheduler", "device", "grace", "leave", "requeues", "force"})
            | dict(given)
            | {"deterministic": self.settings.fixed_kernels}
            | {"sizes": [it.size for it in self.settings.clips.geometries]}
            | {"processes": int(resources.processes), "nodes": int(resources.nodes)}
            | {"comment": comment, "events": str(events)}
            | {"cpus": cpus, "gpus": int(resources.get("gpu", 0)) // launch.nodes}
            | {"mem_mb": int(resources.mem_mb), "runtime": int(resources.runtime)}
            | {name: str(resources.get(f"{prefix}{name}", "")) for prefix, name in SITE}
        )

    def machines(self) -> Mapping[str, Any]:
        """Resources of a training over several machines: its rule's job is on the first, unwrapped, and starts a
        launcher on each. The names are the Slurm plugin's."""
        launch = self.settings.launch
        several = launch.nodes > 1 and launch.scheduler != "slurm"
        return {"mpi": "srun", "tasks": launch.nodes, "tasks_per_gpu": 0} if several else {}


def placeless(part: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage reads, without where footage, its text files and answers lie: they count by content (``Inputs``)."""
    without = {key: value for key, value in part.items() if key not in ("videos_root", "videos_table", "ratings")}
    if "prompts" in without.get("candidates", {}):
        without["candidates"] = {key: value for key, value in without["candidates"].items() if key != "prompts"}
    for section, keys in (("videos", ("root", "table")), ("captions", ("root",))):
        if section in without:
            without[section] = {key: value for key, value in without[section].items() if key not in keys}
    return without


SITE = (("slurm_", "partition"), ("", "constraint"))
"""Resources that a site's profile may set."""
