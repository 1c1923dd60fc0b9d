"""Each case of a list, in float64, on as many real processes as it wants; in a process of its own, since it changes torch.

A folder has the cases (cases.json) and gets NUMBER.pt for each. A case names its job and its ranks. It asks for
the sum of the gradients of all steps, which move nothing, perhaps with a fault (a mistake planted to see that the
comparison catches it); or, with `until`, for the weights after going on from the last checkpoint until that step and
saving one, with what is exported after the last step. Of an autoencoder's job it gets the gradients of all steps,
which do move it, and its weights. Importing costs more than all the work, so it is done once and the ranks are forked.
"""

import json
import os
import sys
import traceback
from itertools import groupby
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

# Models up-cast with .float(); it has to mean float64 before the model is built, or the rotary tables stay fp32.
torch.Tensor.float = torch.Tensor.double

import diffusers.models.attention_dispatch as dispatch

from regdpo.models import device
from regdpo.models.diffusers_family import DiffusersFamily
from regdpo.objectives.registry import OBJECTIVES
from regdpo.objectives.schedule import draw, generator
from regdpo.parallel.mesh import layout
from regdpo.parallel.shard import own_part
from regdpo.runs.job import EXPORT, Job, VaeJob
from regdpo.runs.stop import Stop
from regdpo.train import autoencoder, dataset
from regdpo.train.trainer import Trainer

EXCHANGE = dispatch._all_to_all_single
CPU = torch.device("cpu")


def gradients(job: Job, fault: str) -> dict[str, torch.Tensor]:
    odd = dist.get_rank() % 2 == 1
    plain = draw if fault != "noise" or not odd else lambda *what, **kw: draw(*what, "own", **kw)
    dataset.draw = plain
    # Heads come back to the wrong place on every other rank.
    dispatch._all_to_all_single = (
        (lambda x, group: EXCHANGE(x.flip(0), group)) if fault == "heads" and odd else EXCHANGE
    )
    where = layout(CPU, job.parallel, OBJECTIVES[job.stage.objective].paired)
    trainer = Trainer(job, CPU, where)
    trainer.ask_reference(Stop(trainer.run))
    move_away(trainer.parameters)
    if fault == "divide":
        trainer.policy.set_gradient_divide_factor(1.0)  # of the root alone
    for step in range(job.stage.settings.steps):
        chunks, count = trainer.chunks(step)
        beforehand = trainer.passes.before_step(chunks, step)
        for rows, places in chunks:
            trainer.passes.backward(rows, places, count, step, beforehand)
    without = [name for name, p in trainer.parameters.items() if p.grad is None]
    assert not without, without
    return {name: p.grad.full_tensor() for name, p in trainer.parameters.items()}


def weights(job: Job, until: int) -> dict[str, torch.Tensor]:
    trainer = Trainer(job, CPU, layout(CPU, job.parallel, OBJECTIVES[job.stage.objective].paired))
    for step in range(trainer.checkpoints.load(), until):
        trainer.step(step)
    trainer.checkpoints.save(until)
    trainer.checkpoints.finish()
    dist.barrier()
    found = {name: p.full_tensor().detach().clone() for name, p in trainer.parameters.items()}
    if until == job.stage.settings.steps:
        trainer.export()
        (exported,) = (trainer.run / EXPORT).glob("*.safetensors")
        found |= {f"{EXPORT}/{name}": value for name, value in load_file(exported).items()}
    return found


def autoencoding(job: VaeJob) -> dict[str, torch.Tensor]:
    trainer, step = autoencoder.Trainer(job, CPU), 0
    parts = torch.nn.ModuleDict({"autoencoder": trainer.autoencoder, "critic": trainer.critic}).double()
    autoencoder._prime(trainer.optimizer)
    found = {}

    def note(*of: object) -> None:
        found.update({f"{step} {name}": p.grad.clone() for name, p in parts.named_parameters() if p.grad is not None})

    trainer.optimizer.register_step_pre_hook(note)
    for step in range(job.stage.settings.steps):
        trainer.step(step)
    return found | {f"weights {name}": p.detach().clone() for name, p in parts.named_parameters()}


def move_away(parameters: dict[str, torch.nn.Parameter]) -> None:
    """Away from the reference, so that pairs differ in their weights; the same on every layout."""
    for name, parameter in parameters.items():
        noise = torch.randn(parameter.shape, generator=generator(name), dtype=parameter.dtype)
        with torch.no_grad():
            parameter.to_local().add_(0.02 * noise[own_part(parameter)])


def rank(number: int, ranks: int, cases: list[tuple[int, dict]], folder: Path, meeting: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ["LOCAL_RANK"] = str(number)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{meeting}", rank=number, world_size=ranks)
    for index, case in cases:
        if "autoencoder" in case:
            found = autoencoding(VaeJob.model_validate(case["autoencoder"]))
        else:
            job = Job.model_validate(case["job"])
            found = weights(job, case["until"]) if "until" in case else gradients(job, case.get("fault", ""))
        if number == 0:
            torch.save(found, folder / f"{index}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> None:
    device.DTYPES["fp32"] = torch.float64
    empty, buffers = DiffusersFamily.empty_transformer, DiffusersFamily.buffers
    DiffusersFamily.buffers = lambda self: {name: buffer.double() for name, buffer in buffers(self).items()}
    DiffusersFamily.empty_transformer = lambda self, layers=None: empty(self, layers).double()
    cases = enumerate(json.loads((folder / "cases.json").read_text()))
    for meeting, (ranks, group) in enumerate(groupby(cases, key=lambda item: item[1]["ranks"])):
        mine, children = list(group), []
        for number in range(ranks):
            child = os.fork()
            if not child:
                try:
                    rank(number, ranks, mine, folder, meeting)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        if sum(os.waitpid(child, 0)[1] for child in children):
            sys.exit(f"{ranks} ranks: one failed")
