"""The device of a training, and the plan asked whether it fits there."""

import os
import subprocess
import sys

from regdpo.core import manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.launch.options import LaunchOptions
from regdpo.objectives.registry import OBJECTIVES
from regdpo.runs.job import Job
from regdpo.runtime.gpu_specs import peak_flops
from regdpo.runtime.gpus import gpus_work, taken, visible


def device_of(name: str, processes: int) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes cuda where there is one.

    Raises:
        UserError: fewer GPUs than ranks, or GPUs that cannot be used.
    """
    device = "cuda" if name != "cpu" and gpus_work() else "cpu" if name == "auto" else name
    if device == "cuda" and len(visible()) < processes:
        raise UserError(f"launch.processes: {processes} ranks on {len(visible())} GPUs; one GPU a rank")
    return device


def planned(job: Job, options: LaunchOptions, gpu: str, memory: float) -> Job:
    """The job with what a step needs and a rank can do; nothing is known of it where there is no plan.

    Args:
        gpu: its name, as CUDA gives it. memory: bytes of one.

    Raises:
        UserError: the plan says that it cannot fit, and ``options.force`` is not set.
    """
    # Here, since a launcher that has nothing to plan should not wait for diffusers to load.
    from regdpo.plan.architecture import of_folder
    from regdpo.plan.labelled import in_rows
    from regdpo.plan.layouts import check, model_flops
    from regdpo.plan.memory import Training

    ref = job.model.ref
    try:
        if not options.sizes:
            raise UserError("the size of the clips is not given")
        architecture = of_folder(ref.path, ref.location(Store(job.store)), ref)
        update = {"parallel": job.parallel, "micro_batch": job.micro_batch}
        settings = job.stage.settings.model_copy(update=update)
        ranks = options.processes
        losers = OBJECTIVES[job.stage.objective].paired
        rows = manifests.read(job.latents, LatentRow) if OBJECTIVES[job.stage.objective].labelled else []
        labelled = in_rows(rows, job.stage.objective, job.stage.sources)
        training = Training.of(architecture, settings, options.sizes, ranks, 2 if losers else 1, labelled)
        flops = {",".join(map(str, one.latent)): model_flops(one, job.parallel) for one in training.each}
    except UserError as error:
        print(f"not checked against the plan: {error}", file=sys.stderr)
        return job
    if not options.force:
        check(settings, architecture, options.sizes, ranks, memory, losers, labelled=labelled)
    return job.model_copy(update={"step_flops": flops, "peak_flops": peak_flops(gpu)})


def gpu_found() -> tuple[str, float]:
    """Name and bytes of one of this machine's GPUs. Another process asks, since that takes some of its memory, and of
    one that no other job has.

    Raises:
        UserError: it does not answer.
    """
    ask = "import torch; it = torch.cuda.get_device_properties(0); print(it.total_memory, it.name)"
    with taken(1) as (number,):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible()[number]}
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        gpu = environment["CUDA_VISIBLE_DEVICES"]
        raise UserError(f"GPU {gpu} does not answer: {said[-1] if said else f'exit code {done.returncode}'}")
    memory, _, name = done.stdout.strip().partition(" ")
    return name, float(memory)
