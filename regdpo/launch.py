"""Have torchx train, once at a time, to the end or until time is up, and tell the root cause of a failure in one line.
`regdpo/ranks.py` starts the ranks; here stands what becomes of them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, chdir, suppress
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from torchx.runner import get_runner

from regdpo import slurm
from regdpo.config import canonical
from regdpo.config_section import Positive, Section
from regdpo.config_train import PREFERENCE, Parallel
from regdpo.errors import Unfinished, UserError
from regdpo.hardware import peak_flops
from regdpo.lease import living
from regdpo.models.family import ModelFile
from regdpo.provenance import file_digest, folder_digest, text_digest
from regdpo.ranks import CRASH, Apart, Here, Nodes, Ranks, Shape, left_behind, logs
from regdpo.slurm import Allocation
from regdpo.stages import TrainStage
from regdpo.store import Store, atomic
from regdpo.train.job import ERROR, EXPORT, RAN, Job, Ran
from regdpo.train.stop import STOP, UNFINISHED, Left

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
TWICE = 1.0
"""Seconds within which signals count as one."""
ASK_TIME_EVERY = 15.0
"""Seconds between looks at how much time Slurm leaves."""
SAY_EVERY = 60.0
"""Seconds between lines of who waits for another process."""
OUT_OF_TIME = "the time limit is near"
"""A stop file's reason."""


class LaunchOptions(Section):
    """How a training runs, as rules/train.smk passes it. None of it shapes the result."""

    scheduler: str = "auto"
    processes: int = 1
    nodes: int = 1
    device: str = "auto"
    parallel: Parallel = Parallel()
    micro_batch: int = 1
    checkpoint_every: int = 100
    eval_every: int = 100
    keep: int = 2
    deterministic: bool = False
    grace: Positive = 60
    """Seconds that ranks have to save and leave once they are asked to."""
    leave: Positive = 300
    """Seconds before the end of a Slurm job at which they are asked; at most half of the time that it has."""
    requeues: int = 20
    cpus: int = 1
    """With the five after it what a Slurm job of torchx asks for, of each machine."""
    gpus: int = 0
    mem_mb: int = 0
    runtime: int = 0
    """Minutes."""
    partition: str = ""
    constraint: str = ""
    frames: int = 0
    """With height and width the size of a clip, for the plan; 0 where it is not known."""
    height: int = 0
    width: int = 0
    force: bool = False
    """Start even if the plan says that it does not fit."""

    @property
    def shape(self) -> Shape:
        each = self.processes // self.nodes
        asked = (self.cpus, self.gpus, self.mem_mb, self.runtime, self.partition, self.constraint)
        return Shape(self.nodes, each, *asked)


class OutOfTime(Unfinished):
    """The time limit of its Slurm job is near."""


def device_of(name: str, processes: int) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes cuda where there is one.

    Raises:
        UserError: fewer GPUs than ranks.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if device == "cuda" and torch.cuda.device_count() < processes:
        raise UserError(f"launch.processes: {processes} ranks on {torch.cuda.device_count()} GPUs; one GPU a rank")
    return device


def planned(job: Job, options: LaunchOptions, gpu: str, memory: float) -> Job:
    """The job with what a step needs and a rank can do; nothing is known of it where there is no plan.

    Args:
        gpu: its name, as CUDA gives it. memory: bytes of one.

    Raises:
        UserError: the plan says that it cannot fit, and ``options.force`` is not set.
    """
    # Here, since a launcher that has nothing to plan should not wait for diffusers to load.
    from regdpo.plan.architecture import of_checkpoint
    from regdpo.plan.layouts import check, model_flops
    from regdpo.plan.memory import Training

    ref = job.model.ref
    try:
        if not options.frames:
            raise UserError("the size of the clips is not given")
        architecture = of_checkpoint(ref.location(Store(job.store)), ref.revision, ref.text_length)
        update = {"parallel": job.parallel, "micro_batch": job.micro_batch}
        settings = job.stage.settings.model_copy(update=update)
        size, ranks = (options.frames, options.height, options.width), options.processes
        losers = job.stage.objective in PREFERENCE
        flops = model_flops(Training(architecture, settings, *size, ranks, 2 if losers else 1), job.parallel)
    except UserError as error:
        print(f"not checked against the plan: {error}", file=sys.stderr)
        return job
    if not options.force:
        check(settings, architecture, size, ranks, memory, losers)
    return job.model_copy(update={"step_flops": flops, "peak_flops": peak_flops(gpu)})


def _gpu() -> tuple[str, float]:
    """Name and bytes of this machine's first GPU. Another process asks, since asking takes some of its memory."""
    ask = "import torch; it = torch.cuda.get_device_properties(0); print(it.total_memory, it.name)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    memory, _, name = said.strip().partition(" ")
    return name, float(memory)


def train(job: Job, options: LaunchOptions, name: str = "") -> None:
    """Run a training to its end. It returns at once if the export is there, and waits if another process trains there.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the ranks to save and leave; a second one, or the end of the grace, ends
    them. Before the time limit of a Slurm job they are asked too, and the job goes back into the queue: then this does
    not return, since Slurm ends it.

    Args:
        job: what to train; ``job.run`` is its folder and is resumed from its last checkpoint.
        name: for the reader.

    Raises:
        UserError: a rank stopped over a user's mistake, or failed. The line names the cause and the logs.
        Unfinished: it was asked to stop, by a signal or by a stop file in the run folder; or its time was over and the
            requeues are spent.
    """
    run = Path(job.run)
    name = name or run.name[:12]
    apart = options.scheduler == "slurm"
    allocation = None if apart else Allocation.here()
    jobs = 0
    while not (run / EXPORT).exists():
        try:
            if not (apart and _left_behind(run)):
                _wait_for_other(job, name, allocation, options)
            if not (run / EXPORT).exists():
                where = (
                    f"Slurm job {allocation.job}, requeued {allocation.restarts} times"
                    if allocation
                    else "this machine"
                )
                print(f"{datetime.now():%F %T} training {name} in {run}; {where}", file=sys.stderr, flush=True)
                _run(job, options, name, allocation)
        except OutOfTime as left:
            if allocation:
                _requeue(allocation, options, left)
            jobs += 1
            if jobs > options.requeues:
                raise
            print(f"{left}, in job {jobs + 1}", file=sys.stderr, flush=True)


def _left_behind(run: Path) -> bool:
    with get_runner(component_defaults={}) as runner:
        return bool(left_behind(runner, run))


def _wait_for_other(job: Job, name: str, allocation: Allocation | None, options: LaunchOptions) -> None:
    """Until no other process trains into the folder.

    Raises:
        OutOfTime: one still does, and the Slurm job that waits has to end.
        Unfinished: the other one was asked to stop.
    """
    run, time_limit, said = Path(job.run), TimeLimit(allocation, options.leave), 0.0
    waited = False
    while owner := living(run):
        waited = True
        if time.monotonic() > said + SAY_EVERY:
            metrics = run / "metrics.jsonl"
            done = metrics.read_text().count("\n") if metrics.exists() else 0
            print(
                f"training {name}: {owner} trains in {run} (step {done}/{job.stage.settings.steps}); waiting for it, "
                f"`touch {run / STOP}` stops it",
                file=sys.stderr,
                flush=True,
            )
            said = time.monotonic()
        if time_limit.near():
            raise OutOfTime(f"training {name} goes on elsewhere and this job, which waits for it, is at its time limit")
        time.sleep(1)
    if waited and (run / UNFINISHED).exists() and not (run / EXPORT).exists():
        left = Left.model_validate_json((run / UNFINISHED).read_text())
        if left.reason != OUT_OF_TIME:
            raise _unfinished(name, left)


def _run(job: Job, options: LaunchOptions, name: str, allocation: Allocation | None) -> None:
    """Start the ranks and see them to their end; back without an export where another process came first."""
    run = Path(job.run)
    run.mkdir(parents=True, exist_ok=True)
    for old in (run / ERROR, run / STOP, run / UNFINISHED, *run.glob(CRASH)):
        old.unlink(missing_ok=True)
    with atomic(run / "job.json") as temporary:
        temporary.write_text(job.model_dump_json(indent=2))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    asked: list[signal.Signals] = []
    try:
        with ExitStack() as stack:
            runner = stack.enter_context(get_runner(component_defaults={}))
            stack.enter_context(patch.dict(os.environ, _environment(run, options)))
            ranks: Ranks
            if options.scheduler == "slurm":
                stack.enter_context(chdir(logs(run)))
                ranks = Apart(runner, run, options.shape)
            elif options.scheduler == "srun" or (options.scheduler == "auto" and options.nodes > 1 and allocation):
                ranks = Nodes(run, options.shape, allocation)
            else:
                ranks = Here(runner, run, options.shape)
            for number in SIGNALS:  # torchx has set its own
                if number != signal.SIGHUP or handlers[number] != signal.SIG_IGN:  # nohup
                    signal.signal(number, lambda number, frame: asked.append(signal.Signals(number)))
            state = _wait(ranks, run, asked, options, allocation)
            ranks.join()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    (run / STOP).unlink(missing_ok=True)  # the ranks may have left by themselves
    if (run / EXPORT).exists():
        return
    if (run / UNFINISHED).exists():
        raise _unfinished(name, Left.model_validate_json((run / UNFINISHED).read_text()))
    if asked and not (run / ERROR).exists():
        raise Unfinished(
            f"training {name} was ended ({asked[-1].name}) with nothing saved; "
            "the same command goes on from its last checkpoint"
        )
    if not living(run):  # another one came first by a moment
        raise UserError(_cause(run, name, state, ranks))


def _unfinished(name: str, left: Left) -> Unfinished:
    kind = OutOfTime if left.reason == OUT_OF_TIME else Unfinished
    where = f"step {left.step}/{left.steps}"
    return kind(f"training {name} stopped at {where} as asked ({left.reason}); the same command goes on")


def _environment(run: Path, options: LaunchOptions) -> dict[str, str]:
    """What torchrun and the ranks get."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # of torchrun
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_ERROR_FILE": str(run / CRASH.replace("*", "")),
        # torchrun passes these on to the ranks, then gives them as long to save as we do
        "PET_SIGNALS_TO_HANDLE": ",".join(number.name for number in (*SIGNALS, signal.SIGQUIT)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(options.grace)),
    }


class TimeLimit:
    """Whether a Slurm job has less time left than it needs to save and leave."""

    def __init__(self, allocation: Allocation | None, leave: float):
        self.job = allocation.job if allocation else ""
        self.leave = leave
        self._next = 0.0
        self._first = True

    def near(self) -> bool:
        """Slurm is asked now and then, since its limit may be moved."""
        if not self.job or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + ASK_TIME_EVERY
        left = slurm.seconds_left(self.job)
        if left is None:
            return False
        if self._first:
            self._first, self.leave = False, min(self.leave, left / 2)
        return left < self.leave + ASK_TIME_EVERY / 2


def _wait(
    ranks: Ranks, run: Path, asked: list[signal.Signals], options: LaunchOptions, allocation: Allocation | None
) -> str:
    """How the ranks ended. The first signal becomes a stop file; ``timeout`` and the like send one twice."""
    first, over = 0.0, False
    time_limit = TimeLimit(allocation, options.leave)
    while not (state := ranks.ended()):
        now = time.monotonic()
        if isinstance(ranks, Apart) and not time_limit.job and ranks.running():
            time_limit.job = ranks.job
        if asked and not first:
            first = now
            print(
                f"{asked[0].name}: the ranks save and leave; once more ends them at once", file=sys.stderr, flush=True
            )
            _ask(ranks, run, asked[0].name)
        elif not first and not over and time_limit.near():
            over = True
            print(f"{OUT_OF_TIME}: the ranks save and leave", file=sys.stderr, flush=True)
            _ask(ranks, run, OUT_OF_TIME)
        if first and now < first + TWICE:
            del asked[1:]
        if first and (len(asked) > 1 or now > first + options.grace):
            ranks.kill()
        time.sleep(0.2)
    return state


def _ask(ranks: Ranks, run: Path, reason: str) -> None:
    """Ranks that are training save and leave. Those that load, or are not there yet, have nothing to save and end."""
    with suppress(OSError):  # of a full disk: a signal does
        (run / STOP).write_text(reason)
    owner = living(run)
    if owner is None:
        ranks.kill()
    for process in psutil.Process().children(recursive=True):
        if owner and process.pid == owner.pid:
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def _requeue(allocation: Allocation, options: LaunchOptions, left: OutOfTime) -> None:
    """Put the Slurm job that this process is in back into the queue, which ends the process.

    Raises:
        OutOfTime: it may not be.
    """
    if not allocation.requeue:
        raise OutOfTime(
            f"{left} (Slurm job {allocation.job} may not be requeued: slurm-requeue of the profile)"
        ) from None
    if allocation.restarts >= options.requeues:
        raise OutOfTime(f"{left} (launch.requeues: {options.requeues} are spent)") from None
    print(f"{left}, in this job: back into the queue", file=sys.stderr, flush=True)
    slurm.ask("scontrol", "requeue", allocation.job)
    time.sleep(options.leave)
    raise left


def _cause(run: Path, name: str, state: str, ranks: Ranks) -> str:
    """In one line. Nobody kills itself with -9, so that comes before what a rank said that missed its peer."""
    if (run / ERROR).exists():
        return (run / ERROR).read_text()
    if ranks.refused:
        return ranks.refused
    signals = [f"rank {rank} was ended by {number}" for rank, number in ranks.dead.items()]
    if "SIGKILL" in ranks.dead.values():
        message = f"{', '.join(signals)} (the kernel does so when memory runs out)"
    else:
        message = _crash(run) or ", ".join(signals) or "the ranks ended without saying why"
    reason = " ".join(message.split())[:500]
    return (
        f"training {name} {state}: {reason}; logs in {run / 'logs'}; the same command goes on from the last checkpoint"
    )


def _crash(run: Path) -> str:
    """The exception of the rank that failed first, as torchrun has it from each machine."""
    found = []
    for path in run.glob(CRASH):
        with suppress(OSError, ValueError, KeyError, TypeError):
            message = json.loads(path.read_text())["message"]
            when = message["extraInfo"]["timestamp"] if isinstance(message, dict) else "0"
            found.append((int(when), message["message"] if isinstance(message, dict) else message))
    return str(min(found)[1]) if found else ""


def outcome(
    stage: TrainStage, name: str, model: ModelFile, latents: Path, code: str, store: Store, options: LaunchOptions
) -> ModelFile:
    """Train once per content, and describe what came out.

    Args:
        name: ARM/seedN. code: digest of what shapes the training beside its inputs (code and environment).
    """
    key = text_digest(canonical(stage.model_dump(mode="json")), model.digest, file_digest(latents), code)
    run = store.relative("runs", key)
    # A launcher of a Slurm job of its own is on another machine than the ranks
    device = options.device if options.scheduler == "slurm" else device_of(options.device, options.shape.each)
    job = Job(
        stage=stage,
        model=model,
        latents=str(latents.resolve()),
        store=str(store.root.resolve()),
        run=str(store.resolve(run)),
        device=device,
        parallel=options.parallel,
        micro_batch=options.micro_batch,
        checkpoint_every=options.checkpoint_every,
        eval_every=options.eval_every,
        keep=options.keep,
        deterministic=options.deterministic,
    )
    if device == "cuda" and not (Path(job.run) / EXPORT).exists():
        job = planned(job, options, *_gpu())
    train(job, options, name)
    ran = Ran.model_validate_json(store.existing(f"{run}/{RAN}").read_text())
    export = f"{run}/{EXPORT}"
    weights = folder_digest(store.existing(export))
    digest = text_digest(model.ref.digest, weights)
    tuned = {"transformer": export} if stage.settings.tuning == "full" else {"lora": export}
    return ModelFile(
        name=name,
        ref=model.ref.model_copy(update={**tuned, "digest": digest}),
        digest=digest,
        base_digest=model.ref.digest,
        arm=name.split("/")[0],
        seed=stage.seed,
        objective=stage.objective,
        run=run,
        processes=options.processes,
        device=ran.device,
        attention=ran.attention,
        codec_psnr=model.codec_psnr,
    )
