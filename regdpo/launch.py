"""Start the ranks of a training by torchx, pass on what they say, and tell the root cause of a failure in one line."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torchx.components.dist import ddp
from torchx.runner import Runner, get_runner
from torchx.specs import AppStatus

from regdpo.config import canonical
from regdpo.config_section import Positive, Section
from regdpo.config_train import PREFERENCE, Parallel
from regdpo.errors import Unfinished, UserError
from regdpo.hardware import peak_flops
from regdpo.lease import living, refusal
from regdpo.models.family import ModelFile
from regdpo.provenance import file_digest, folder_digest, text_digest
from regdpo.stages import TrainStage
from regdpo.store import Store
from regdpo.train.job import ATTENTION, ERROR, EXPORT, Job
from regdpo.train.stop import STOP, UNFINISHED, Left

MODULE = "regdpo.train.loop"
CRASH = "torchelastic.json"
"""File of a run folder that torchrun leaves the first failed rank's exception in."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
TWICE = 1.0
"""Seconds within which signals count as one."""


class LaunchOptions(Section):
    """How a training runs, as rules/train.smk passes it. None of it shapes the result."""

    scheduler: str = "local_cwd"
    processes: int = 1
    device: str = "auto"
    parallel: Parallel = Parallel()
    micro_batch: int = 1
    checkpoint_every: int = 100
    eval_every: int = 100
    keep: int = 2
    deterministic: bool = False
    grace: Positive = 60
    """Seconds that ranks have to save and leave once they are asked to."""
    frames: int = 0
    """With height and width the size of a clip, for the plan; 0 where it is not known."""
    height: int = 0
    width: int = 0
    force: bool = False
    """Start even if the plan says that it does not fit."""


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
    """Run a training to its end, or return at once if its export is there.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the ranks to save and leave; a second one, or the end of the grace, ends
    them.

    Args:
        job: what to train; ``job.run`` is its folder and is resumed from its last checkpoint.
        name: for the reader.

    Raises:
        UserError: another process trains there; a rank stopped over a user's mistake, or failed. The line names the
            cause and the logs.
        Unfinished: it was asked to stop, by a signal or by a stop file in the run folder.
    """
    run = Path(job.run)
    name = name or run.name[:12]
    if (run / EXPORT).exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    if owner := living(run):
        raise UserError(refusal(run, owner))
    for old in (ERROR, CRASH, STOP, UNFINISHED):
        (run / old).unlink(missing_ok=True)
    path = run / "job.json"
    path.write_text(job.model_dump_json(indent=2))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # of torchrun
    app = ddp(str(path), m=MODULE, name="regdpo/train", j=f"1x{options.processes}", env=_environment(run, options))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    asked: list[signal.Signals] = []
    dead: dict[int, str] = {}
    try:
        with get_runner(component_defaults={}) as runner:
            request = runner.dryrun(app, options.scheduler, {"log_dir": str(run / "logs")})
            for number in SIGNALS:  # torchx has set its own
                if number != signal.SIGHUP or handlers[number] != signal.SIG_IGN:  # nohup
                    signal.signal(number, lambda number, frame: asked.append(signal.Signals(number)))
            handle = runner.schedule(request)
            talk = threading.Thread(target=_relay, args=(runner, handle, dead), daemon=True)
            talk.start()
            status = _wait(runner, handle, run, asked, options.grace)
            talk.join(timeout=10)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    (run / STOP).unlink(missing_ok=True)  # the ranks may have left by themselves
    if (run / EXPORT).exists():
        return
    if (run / UNFINISHED).exists():
        left = Left.model_validate_json((run / UNFINISHED).read_text())
        where = f"step {left.step}/{left.steps}"
        raise Unfinished(f"training {name} stopped at {where} as asked ({left.reason}); the same command goes on")
    if asked and not (run / ERROR).exists():
        raise Unfinished(
            f"training {name} was ended ({asked[-1].name}) with nothing saved; "
            "the same command goes on from its last checkpoint"
        )
    raise UserError(_cause(run, name, status, dead))


def _environment(run: Path, options: LaunchOptions) -> dict[str, str]:
    """What torchrun and the ranks get. torchx replaces ``$`` in values; ``$$`` stands for one."""
    return {
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_ERROR_FILE": str(run / CRASH).replace("$", "$$"),
        # torchrun passes these on to the ranks, then gives them as long to save as we do
        "PET_SIGNALS_TO_HANDLE": ",".join(number.name for number in (*SIGNALS, signal.SIGQUIT)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(options.grace)),
    }


def _wait(runner: Runner, handle: str, run: Path, asked: list[signal.Signals], grace: float) -> AppStatus | None:
    """Until the ranks have ended. The first signal becomes a stop file; ``timeout`` and the like send one twice."""
    first = 0.0
    while True:
        status = runner.status(handle)
        if status is None or status.is_terminal():
            return status
        now = time.monotonic()
        if asked and not first:
            first = now
            print(
                f"{asked[0].name}: the ranks save and leave; once more ends them at once", file=sys.stderr, flush=True
            )
            _ask(run, asked[0].name)
        if first and now < first + TWICE:
            del asked[1:]
        if first and (len(asked) > 1 or now > first + grace):
            _kill()
        time.sleep(0.2)


def _ask(run: Path, reason: str) -> None:
    """Ranks that are training save and leave. Those that load, or are not there yet, have nothing to save and end."""
    with suppress(OSError):  # of a full disk: an empty one does
        (run / STOP).write_text(reason)
    owner = living(run)
    if owner is None:
        _kill()
    for process in _ranks():
        if owner and process.pid == owner.pid:
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def _kill() -> None:
    for process in _ranks():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _ranks() -> list[psutil.Process]:
    """torchrun, the ranks and what they started, here."""
    return psutil.Process().children(recursive=True)


def _relay(runner: Runner, handle: str, dead: dict[int, str]) -> None:
    """Pass on what the ranks say (`[RANK]:...`). What torchrun says is in the logs; its report at the end tells whom a
    signal ended, and before it whom torchrun ended itself."""
    rank, ended = 0, set()
    for line in runner.log_lines(handle, "loop", 0, should_tail=True):
        if line.startswith("["):
            print(line.rstrip("\n"), file=sys.stderr, flush=True)
        elif found := re.search(r"Sending process (\d+) closing signal", line):
            ended.add(found[1])
        elif found := re.match(r" *rank +: (\d+) ", line):
            rank = int(found[1])
        elif (found := re.match(r" *exitcode +: -\d+ \(pid: (\d+)\) +\((SIG\w+)\)", line)) and found[1] not in ended:
            dead[rank] = found[2]


def _cause(run: Path, name: str, status: AppStatus | None, dead: dict[int, str]) -> str:
    """In one line. Nobody kills itself with -9, so that comes before what a rank said that missed its peer."""
    if (run / ERROR).exists():
        return (run / ERROR).read_text()
    if owner := living(run):  # it came first by a moment
        return refusal(run, owner)
    signals = [f"rank {rank} was ended by {number}" for rank, number in dead.items()]
    if "SIGKILL" in dead.values():
        message = f"{', '.join(signals)} (the kernel does so when memory runs out)"
    else:
        try:
            message = json.loads((run / CRASH).read_text())["message"]
        except (OSError, ValueError, KeyError):
            message = ", ".join(signals) or "the ranks ended without saying why"
        if isinstance(message, dict):
            message = message["message"]
    state = status.state.name.lower() if status else "lost"
    reason = " ".join(str(message).split())[:500]
    return (
        f"training {name} {state}: {reason}; logs in {run / 'logs'}; the same command goes on from the last checkpoint"
    )


def outcome(
    stage: TrainStage, name: str, model: ModelFile, latents: Path, code: str, store: Store, options: LaunchOptions
) -> ModelFile:
    """Train once per content, and describe what came out.

    Args:
        name: ARM/seedN. code: digest of what shapes the training beside its inputs (code and environment).
    """
    key = text_digest(canonical(stage.model_dump(mode="json")), model.digest, file_digest(latents), code)
    run = store.relative("runs", key)
    device = device_of(options.device, options.processes)
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
        device=device,
        attention=store.existing(f"{run}/{ATTENTION}").read_text(),
        codec_psnr=model.codec_psnr,
    )
