"""Will this training fit, and how long will it take? Asked before a GPU is.

Lists every sensible layout of one arm: whether it fits, memory of a rank by part (GiB), tokens a rank, time of a step,
pairs an hour; names the fastest that fits; and says what the stages around the training need of one GPU. Reads no
weights, needs no network and no GPU. With --table: the longest videos that each technique makes room for; with --cost:
GPU-hours of every stage, both as Markdown; with --check: only whether trainings and stages fit as configured.

    python scripts/plan.py --config config/recipes/reg_dpo_wan21_i2v_14b.yaml --gpus 8 --gpu-memory 80GB
    python scripts/plan.py --model wan21_t2v_1_3b --gpu "RTX 4090" --gpus 1
    python scripts/plan.py --config my.yaml --gpu "RTX 4090" --gpus 1 --frames 49 --arm reg_dpo
    python scripts/plan.py --config config/recipes/reg_dpo_wan21_i2v_14b.yaml --cost --pairs 12000 --gpu-price 2.50
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from regdpo.config import schema
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.objectives.registry import OBJECTIVES
from regdpo.plan import cost, layouts, stages, table
from regdpo.plan.architecture import Architecture, find, known
from regdpo.plan.labelled import in_files
from regdpo.plan.memory import Size, Training
from regdpo.runs.planned import Planned
from regdpo.runtime.gpu_specs import GIB, GPUS, gpu_named, parse_memory

GPU = "H100 SXM"
RECIPES = Path(__file__).resolve().parents[1] / "config/recipes"
RECIPE = "reg_dpo_wan21_i2v_14b.yaml"
"""For a model that no recipe is for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config",
        help="a whole configuration (YAML file); default with --model: the recipe of config/recipes for that model, or "
        f"else {RECIPE}, of which the clips, the training and the GPUs are taken",
    )
    parser.add_argument("--gpus", type=int, help="ranks, one GPU each; default: launch.processes")
    parser.add_argument(
        "--gpu-memory", help="of one GPU: 80GB, a label, or 79.1GiB, what programs see; default: that of --gpu"
    )
    parser.add_argument("--gpu", help=f"its name ({', '.join(GPUS)}); default: launch.gpu, else {GPU}")
    parser.add_argument("--mfu", type=float, default=layouts.MFU, help="an assumption; default: %(default)s")
    parser.add_argument("--arm", help="arm to plan for, or `pretrain`; default: the first that has losers")
    parser.add_argument("--model", help="an architecture of config/architectures in the place of base.model")
    parser.add_argument("--frames", type=int, help="of all clips, in the place of the configured")
    parser.add_argument("--table", action="store_true", help="longest videos technique by technique, as Markdown")
    parser.add_argument(
        "--check",
        nargs="*",
        metavar="KEY",
        help="only: do these trainings (train.arms.NAME, base.pretrain) and stages "
        f"({', '.join([*stages.STAGES, stages.AUTOENCODER])}; default: all) fit as configured; 2 if not",
    )
    parser.add_argument("--cost", action="store_true", help="GPU-hours of every stage, as Markdown")
    parser.add_argument("--pairs", type=int, help="cost: training pairs; default: pairs.limit")
    parser.add_argument("--job-hours", type=float, default=24, help="cost: time limit of a Slurm job; %(default)s")
    parser.add_argument("--gpu-price", type=float, help="cost: of a GPU-hour, in whatever currency")
    parser.add_argument("--json", action="store_true", help="the listing for programs: bytes and seconds")
    args = parser.parse_args()
    values = _configured(args)
    name = args.gpu or values.launch.gpu or GPU
    gpu = gpu_named(name)
    if gpu is None:
        raise UserError(f"--gpu: {name} is not known; there are {', '.join(GPUS)}")
    memory = parse_memory(args.gpu_memory) if args.gpu_memory else gpu.memory
    if not 0 < args.mfu <= 1:
        raise UserError(f"--mfu: {args.mfu} is no share; give more than 0 and at most 1")
    ranks, nodes = _ranks(values, args), values.launch.nodes
    machine = layouts.Machine(memory, gpu.peak_flops, args.mfu, 1 if ranks % nodes else nodes)
    if args.check is not None:
        return _check(values, args, memory)
    training = _training(values, args)
    if args.cost:
        print(cost.markdown(_cost(values, training, machine, args)))
    elif args.table:
        print(_table(training, machine))
    elif args.json:
        print(json.dumps(table.as_json(training, machine), indent=2))
    else:
        print(table.listing(training, machine, _times(values, training, machine, args)))
        found = stages.stages(values, training.architecture, [one.size for one in training.each], memory)
        print(table.stages(found.values(), memory))


def _configured(args: argparse.Namespace) -> schema.Config:
    """What --config names, or the recipe that is nearest to --model."""
    if args.config:
        return schema.load(args.config)
    if not args.model:
        raise UserError("--config: which configuration? Or name an architecture of config/architectures by --model")
    name, path = known(args.model).source, RECIPES / RECIPE
    for one in sorted(RECIPES.glob("*.yaml")):
        model = schema.load(one).base.model
        if model and known(model).source == name:
            path = one
    print(f"clips and training as in config/recipes/{path.name}; --config takes others", file=sys.stderr)
    return schema.load(path)


def _check(values: schema.Config, args: argparse.Namespace, memory: float) -> None:
    """Of every training and stage one line: that it fits, or why not; if nothing can be planned for such a model,
    nothing is said to fit. As JSON the record that programs read."""
    planned = _planned(values, args, memory)
    if args.json:
        print(planned.model_dump_json())
        return
    if planned.unknown:
        print(f"not checked against the plan: {planned.unknown}", file=sys.stderr)
    for answer in planned.answers:
        if answer.fits:
            print(answer.said)
    if planned.refused:
        first, *others = planned.refused
        for line in others:
            print(f"error: {line}", file=sys.stderr)
        raise UserError(first)


def _planned(values: schema.Config, args: argparse.Namespace, memory: float) -> Planned:
    try:
        architecture = known(args.model) if args.model else find(values.base)
    except UserError as error:
        return Planned(unknown=str(error))
    ranks, sizes = _ranks(values, args), _sizes(values, args, architecture)
    return Planned(answers=tuple(stages.ask(values, architecture, sizes, ranks, memory, args.check)))


def _training(values: schema.Config, args: argparse.Namespace) -> Training:
    ranks, links = _ranks(values, args), values.train.links
    first = next((name for name, it in links.items() if OBJECTIVES[it.step.objective].paired), next(iter(links)))
    arm = args.arm or first
    trainings = values.trainings()
    key = "base.pretrain" if arm == "pretrain" else f"train.arms.{arm}"
    if key not in trainings:
        raise UserError(f"--arm: there is no {arm}; there are {', '.join(links)}")
    settings, losers = trainings[key]
    architecture = known(args.model) if args.model else find(values.base)
    sizes = _sizes(values, args, architecture)
    training = Training.of(architecture, settings, sizes, ranks, 2 if losers else 1, in_files(values, key))
    training = replace(training, asked_first=arm in links and links[arm].asked_first)
    if not layouts.sensible(training) and not args.table:
        raise UserError(
            f"--gpus: no layout of {ranks} ranks takes batch {settings.batch} and {training.tokens} tokens; "
            f"{layouts.impossible(training, settings.parallel)}"
        )
    return training


def _ranks(values: schema.Config, args: argparse.Namespace) -> int:
    ranks: int = values.launch.processes if args.gpus is None else args.gpus
    if ranks < 1:
        raise UserError(f"--gpus: {ranks} is no number of GPUs")
    return ranks


def _sizes(values: schema.Config, args: argparse.Namespace, architecture: Architecture) -> list[Size]:
    """Of the clips."""
    if args.frames is not None and args.frames < 1:
        raise UserError(f"--frames: {args.frames} is no number of frames")
    found = [(args.frames or it.frames, it.height, it.width) for it in values.clips.geometries]
    for size in found:
        architecture.family.check_geometry(*size)
    return list(dict.fromkeys(found))


def _times(values: schema.Config, training: Training, machine: layouts.Machine, args: argparse.Namespace) -> list[str]:
    """Of the configured arms; none where one of them fits in no layout."""
    try:
        return cost.times(cost.Asked(values, training, machine, args.pairs or 0, args.job_hours, args.gpu_price))
    except UserError:
        return []


def _cost(values: schema.Config, training: Training, machine: layouts.Machine, args: argparse.Namespace) -> cost.Asked:
    pairs = values.pairs.limit if args.pairs is None else args.pairs
    if pairs is None:
        raise UserError("--pairs: how many training pairs? pairs.limit does not say")
    for name, value in {"pairs": pairs, "job-hours": args.job_hours, "gpu-price": args.gpu_price or 1}.items():
        if value <= 0:
            raise UserError(f"--{name}: {value} is not more than 0")
    return cost.Asked(values, training, machine, pairs, args.job_hours, args.gpu_price)


def _table(training: Training, machine: layouts.Machine) -> str:
    settings, training = training.settings, training.each[0]
    sections = [
        f"# Longest videos: {training.architecture.name}",
        f"Command: `python scripts/plan.py {' '.join(_quoted(word) for word in sys.argv[1:])}`  \nCommit: {_commit()}",
        f"Pairs, {settings.tuning}{f' rank {settings.lora.rank}' if settings.tuning == 'lora' else ''}, "
        f"{settings.precision}, {settings.micro_batch} pair a rank and pass; {table.assumptions(machine)}. "
        "Baseline: FSDP2 over all ranks, SDPA, every block recomputed, both halves' graphs alive, a frozen sharded "
        "copy for the reference, neither context nor pair parallelism. Each row shows its own longest clip, and time "
        "at that length. A long clip fits, and takes its time; what a model makes of lengths it was not trained on is "
        "another matter.",
        'The paper of Reg-DPO claims "nearly 3x" and 200 frames at 720x1280 on eight GPUs of 80 GB; it gives no '
        "baseline and no table. It is a claim; nothing here confirms it. So are our figures until a GPU has run them.",
    ]
    cases = [training]
    if (training.height, training.width) != (480, 832):
        cases.append(replace(training, height=480, width=832))
    cases.append(table.small(training))
    for case in cases:
        sections.append(
            f"## {case.architecture.name}, {case.height}x{case.width}, {case.ranks} x {machine.memory / GIB:.1f} GiB"
        )
        sections.append(table.longest_videos(case, machine))
    return "\n\n".join(sections)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "regdpo", "scripts"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


if __name__ == "__main__":
    errors.run(main)
