"""How torchx starts the ranks of a training.

OneMachine   on this machine: torchx `local_cwd`
Allocated    on the machines of the Slurm job that the launcher is in: `srun` starts this module on each, which does as
             `OneMachine`, with a rendezvous
OwnJob       in a Slurm job of their own: torchx `slurm`
"""

import argparse
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, chdir, suppress
from pathlib import Path

import psutil
from pydantic import ValidationError
from torchx.runner import Runner, get_runner
from torchx.schedulers.local_scheduler import SignalException
from torchx.specs import AppDef, AppState, Resource, Role, is_terminal, macros

from regdpo.core import portable
from regdpo.core.digests import file_digest
from regdpo.core.errors import EXIT_USER_ERROR, UserError
from regdpo.core.section import Section
from regdpo.core.store import names_in
from regdpo.core.temporaries import atomic
from regdpo.launch.options import Shape
from regdpo.launch.run_log import RunLog
from regdpo.runtime import slurm

MODULE = "regdpo.train.rank"
ROLE = "loop"
CRASH = "torchelastic.*.json"
"""Files of a run folder that torchruns leave the first failed rank's exception in."""
HANDLE = "torchx.txt"
"""File of a run folder that names the Slurm job of its own that its ranks are in."""
HEAD = "REGDPO_HEAD"
"""The environment's name of the machine where ranks meet."""
LOOK_EVERY = 5.0
"""Seconds between looks at a Slurm job, which its accounting has to answer."""
KNOWN_AFTER = 300.0
"""Seconds after which accounting knows a job that was submitted."""
SHOWN = 10.0
"""Seconds that a network file system may take to show a file to another machine."""
DEAD = 120
"""Seconds that srun leaves the ranks of other machines when those of one have ended: they may wait for it forever."""


class Ranks(ABC):
    """Ranks that were started, and what they say."""

    def __init__(self, run_log: RunLog, machines: tuple[str, ...] = ()) -> None:
        self.run_log, self.machines = run_log, machines
        self.dead: dict[int, str] = {}  # rank -> the signal that ended it, but for those that torchrun ended
        self.refused = ""  # by a machine that cannot take part
        self._talkers: list[threading.Thread] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def ended(self) -> str:
        """Empty while they run, then one word."""

    @abstractmethod
    def kill(self) -> None:
        """All of them, now."""

    def join(self) -> None:
        """Until what they said has been passed on."""
        for talker in self._talkers:
            talker.join(timeout=10)

    def _relay(self, lines: Iterable[str], machine: str = "") -> None:
        """Pass on what ranks say (`[RANK ON THE MACHINE]:...`; of several machines srun writes which before it), beside
        this thread. What torchrun says is in the logs; its report at the end tells whom a signal ended, and before it
        whom torchrun ended itself."""
        talker = threading.Thread(target=self._pass_on, args=(lines, machine), daemon=True)
        talker.start()
        self._talkers.append(talker)

    def _pass_on(self, lines: Iterable[str], machine: str) -> None:
        hearing: dict[str, _Report] = {}
        for line in lines:
            task, text = re.match(r"(?: *(\d+): )?(.*)", line).groups("")  # type: ignore[union-attr]
            if task not in hearing:
                hearing[task] = _Report(self, f"{self.machines[int(task)]} " if task else machine)
            hearing[task].hear(text)


class Refusal(Section):
    """What a machine prints that cannot take part, as a line of JSON: it may not see the run folder."""

    refused: str  # for the reader

    @classmethod
    def of(cls, line: str) -> "Refusal | None":
        """None if the line is no refusal."""
        try:
            return cls.model_validate_json(line) if line.startswith("{") else None
        except ValidationError:
            return None


class _Report:
    """Of one torchrun."""

    def __init__(self, ranks: Ranks, machine: str):
        self.ranks, self.machine, self.rank, self.ended = ranks, machine, 0, set[str]()

    def hear(self, line: str) -> None:
        if re.match(r"\[\d+\]:|srun: error|slurmstepd: error", line):
            self.ranks.run_log.say(self.machine + line)
        elif refusal := Refusal.of(line):
            self.ranks.refused = self.ranks.refused or refusal.refused
        elif found := re.search(r"Sending process (\d+) closing signal", line):
            self.ended.add(found[1])
        elif found := re.match(r" *rank +: (\d+) ", line):
            self.rank = int(found[1])
        elif found := re.match(r" *exitcode +: -\d+ \(pid: (\d+)\) +\((SIG\w+)\)", line):
            pid, number = found.groups()
            self.ranks.dead |= {} if pid in self.ended else {self.rank: number}


class OneMachine(Ranks):
    """All ranks on this machine; on GPUs, each with one that no other job has."""

    def __init__(self, run_log: RunLog, run: Path, shape: Shape, device: str):
        super().__init__(run_log)
        if shape.nodes > 1:
            raise UserError(
                f"launch.nodes: {shape.nodes}, but this is one machine; have Snakemake submit the training (`--profile "
                "profiles/slurm`), or set launch.scheduler: slurm"
            )
        self.runner = self._stack.enter_context(get_runner(component_defaults={}))
        application = _application(run, shape)
        if device == "cuda":
            # Here, since a launcher of one machine of several should not wait for torch to load.
            from regdpo.runtime.gpus import taken, visible

            names, mine = visible(), self._stack.enter_context(taken(shape.each))
            application.roles[0].env["CUDA_VISIBLE_DEVICES"] = ",".join(names[number] for number in mine)
        try:
            self.handle = _schedule_here(self.runner, run, application)
        except SignalException:
            _kill_children()
            raise
        self._relay(self.runner.log_lines(self.handle, ROLE, 0, should_tail=True))

    def ended(self) -> str:
        state = _state(self.runner, self.handle)
        return state.name.lower() if is_terminal(state) else ""

    def kill(self) -> None:
        _kill_children()


class Allocated(Ranks):
    """Ranks on every machine of the Slurm job that this process is in: `srun` starts a launcher on each."""

    def __init__(self, run_log: RunLog, run: Path, shape: Shape, allocation: slurm.Allocation | None):
        super().__init__(run_log, allocation.nodes if allocation else ())
        if allocation is None:
            raise UserError(f"launch.nodes: {shape.nodes} machines, but this is no Slurm job, or has no scontrol")
        if len(allocation.nodes) != shape.nodes:
            have = f"the Slurm job {allocation.job} has {len(allocation.nodes)}"
            raise UserError(f"launch.nodes: {shape.nodes} machines, but {have}")
        srun = ["srun", f"--nodes={shape.nodes}", f"--ntasks={shape.nodes}", "--ntasks-per-node=1", "--label"]
        srun += [f"--cpus-per-task={shape.cpus}", "--cpu-bind=none", "--quit-on-interrupt"]
        srun += ["--kill-on-bad-exit=0", f"--wait={DEAD}"]
        node = [
            sys.executable,
            "-m",
            "regdpo.launch.backends",
            str(run),
            _digest(run),
            str(shape.nodes),
            str(shape.each),
        ]
        node += [allocation.nodes[0], str(_free_port()), f"{allocation.job}.{allocation.restarts}"]
        self.process = subprocess.Popen(
            [*srun, *node], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._stack.callback(self.process.kill)
        assert self.process.stdout is not None
        self._relay(line.rstrip("\n") for line in self.process.stdout)

    def ended(self) -> str:
        if self.refused:  # the others would wait for it
            self.kill()
        code = self.process.poll()
        return "" if code is None else "failed" if code else "succeeded"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGINT)


class OwnJob(Ranks):
    """Ranks in a Slurm job of their own. Who finds one that an earlier launcher left takes that. torchx has Slurm write
    its logs into the working directory."""

    def __init__(self, run_log: RunLog, run: Path, shape: Shape, comment: str):
        super().__init__(run_log)
        self._stack.enter_context(chdir(_logs(run)))
        self.runner = self._stack.enter_context(get_runner(component_defaults={}))
        self._state, self._looked = AppState.SUBMITTED, 0.0
        found = left_behind(run)
        self.handle = found or self._submit(run, shape, comment)
        self.job = self.handle.rpartition("/")[2]
        run_log.submitted(self.job, found=bool(found))
        self._over = threading.Event()
        for number in range(shape.nodes):
            log = _logs(run) / f"slurm-{self.job}-{ROLE}-{number}.err"
            said = log.stat().st_size if found and log.exists() else 0
            self._relay(_tail(log, said, self._over), f"machine {number} " if shape.nodes > 1 else "")

    def _submit(self, run: Path, shape: Shape, comment: str) -> str:
        wanted = {
            "partition": shape.partition,
            "constraint": shape.constraint,
            "time": shape.runtime,
            "comment": comment,
        }
        options = {name: str(value) for name, value in wanted.items() if value}
        handle = self.runner.schedule(self.runner.dryrun(_application(run, shape, _port_of(run)), "slurm", options))
        with atomic(run / HANDLE) as temporary:
            temporary.write_text(handle)
        return handle

    def ended(self) -> str:
        return self._look().name.lower() if is_terminal(self._look()) else ""

    def running(self) -> bool:
        """Not so while it waits in the queue."""
        return self._look() == AppState.RUNNING

    def kill(self) -> None:
        self.runner.cancel(self.handle)

    def join(self) -> None:
        self._over.set()
        super().join()

    def _look(self) -> AppState:
        if time.monotonic() > self._looked + LOOK_EVERY:
            with suppress(subprocess.CalledProcessError):  # accounting does not answer now
                self._state = _state(self.runner, self.handle)
            self._looked = time.monotonic()
        return self._state


def _application(run: Path, shape: Shape, port: int = 0) -> AppDef:
    """A torchrun a machine. Ranks are numbered machine by machine; they meet as `regdpo/runs/rendezvous.py` has it, on
    several machines at a port of the first."""
    torchrun = {
        "rdzv-backend": "regdpo",
        "rdzv-endpoint": f"{macros.rank0_env}:{port}",
        "rdzv-conf": f"rank={macros.replica_id}",
        "rdzv-id": macros.app_id,
        "nnodes": shape.nodes,
        "nproc-per-node": shape.each,
        "role": "",  # before a rank's number in what it says
        "tee": 3,
    }
    arguments = [f"--{name}={value}" for name, value in torchrun.items()]
    role = Role(
        ROLE,
        image="",
        entrypoint=sys.executable,
        args=["-m", "regdpo.runs.rendezvous", *arguments, "-m", MODULE, str(run / "job.json")],
        env={
            "LOGLEVEL": os.environ.get("LOGLEVEL", "WARNING"),
            "TORCHELASTIC_ERROR_FILE": str(run / CRASH.replace("*", macros.replica_id)),
            **(portable.switches() if portable.active() else {}),  # also where Slurm hands no environment on
        },
        num_replicas=shape.nodes,
        resource=Resource(cpu=shape.cpus, gpu=shape.gpus, memMB=shape.mem_mb),
    )
    return AppDef("train", roles=[role])


def _schedule_here(runner: Runner, run: Path, application: AppDef) -> str:
    for role in application.roles:
        role.resource.gpu = 0  # which GPUs they see is settled; torchx would warn that it is not
    return runner.schedule(runner.dryrun(application, "local_cwd", {"log_dir": str(_logs(run))}))


def left_behind(run: Path) -> str:
    """torchx's handle of an earlier launcher's Slurm job if that waits or runs, else empty.

    Raises:
        UserError: Slurm's accounting does not tell.
    """
    if not (run / HANDLE).exists():
        return ""
    handle = (run / HANDLE).read_text().strip()
    try:
        with get_runner(component_defaults={}) as runner:
            state = _state(runner, handle)
    except subprocess.CalledProcessError as error:
        raise UserError(f"{run / HANDLE}: whether {handle} lives cannot be asked ({error}); try again later") from None
    age = abs(time.time() - (run / HANDLE).stat().st_mtime)  # it is in the future where a clock was set back
    forgotten = state == AppState.UNKNOWN and age > KNOWN_AFTER
    return "" if is_terminal(state) or forgotten else handle


def _tail(path: Path, begun: int, over: threading.Event) -> Iterator[str]:
    """Lines of a file as they come, from a byte on. torchx's own way asks accounting ten times a second."""
    text = ""
    while True:
        last = over.is_set()
        if path.exists():
            with path.open(errors="replace") as file:
                file.seek(begun)
                text += file.read()
                begun = file.tell()
        *lines, text = text.split("\n")
        yield from lines
        if last:
            return
        time.sleep(1)


def _state(runner: Runner, handle: str) -> AppState:
    try:
        status = runner.status(handle)
    except AssertionError:  # torchx 0.7.0 does not know sacct's "CANCELLED by UID"
        return AppState.CANCELLED
    return status.state if status else AppState.UNKNOWN


def _logs(run: Path) -> Path:
    folder = run / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _kill_children() -> None:
    """torchrun, the ranks and what they started, here."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _digest(run: Path) -> str:
    """Of job.json; empty if it is not there."""
    return file_digest(run / "job.json") if "job.json" in names_in(run) else ""


def _free_port() -> int:
    """Of this machine, the first of the job."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _port_of(run: Path) -> int:
    """Of a machine that is not known yet: the same for a run, another one for most others."""
    return 20_000 + int(hashlib.sha256(str(run).encode()).hexdigest(), 16) % 10_000


def main() -> None:
    """On one machine of several: ``python -m regdpo.launch.backends RUN DIGEST NODES EACH HEAD PORT ID``, by `srun`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("digest", help="of job.json")
    parser.add_argument("nodes", type=int)
    parser.add_argument("each", type=int, help="ranks on this machine")
    parser.add_argument("head", help="name of the machine where ranks meet")
    parser.add_argument("port", type=int)
    parser.add_argument("id", help="of this start, the same on all machines")
    args = parser.parse_args()
    end = time.monotonic() + SHOWN
    while _digest(args.run) != args.digest and time.monotonic() < end:
        time.sleep(1)
    if _digest(args.run) != args.digest:
        reason = (
            f"machine {slurm.node_name()} does not see {args.run} as {args.head} does: paths.store must be on a file "
            "system that all machines of the job share"
        )
        print(Refusal(refused=reason).model_dump_json(), flush=True)
        sys.exit(EXIT_USER_ERROR)
    os.environ[HEAD] = args.head
    application = _application(args.run, Shape(args.nodes, args.each), args.port)
    # torchx would start all machines' launchers here
    role = macros.Values("", args.id, os.environ["SLURM_PROCID"], HEAD).apply(application.roles[0])
    role.num_replicas = role.min_replicas = 1
    application.roles = [role]
    with get_runner(component_defaults={}) as runner:
        handle = _schedule_here(runner, args.run, application)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):  # Slurm tells the ranks too; they decide
            signal.signal(number, lambda number, frame: None)
        for line in runner.log_lines(handle, ROLE, 0, should_tail=True):
            print(line.rstrip("\n"), flush=True)
        status = runner.wait(handle, wait_interval=0.5)
    sys.exit(0 if status is not None and status.state.name == "SUCCEEDED" else 1)


if __name__ == "__main__":
    main()
