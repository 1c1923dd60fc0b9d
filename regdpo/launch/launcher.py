"""Have torchx train, once at a time, to the end or until time is up, and tell the root cause of a failure in one line.
`regdpo/launch/backends.py` starts the ranks; here stands what becomes of them."""

import json
import math
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import psutil
from torchx.schedulers.local_scheduler import SignalException

from regdpo.core.errors import Unfinished, UserError, disk_full
from regdpo.core.store import kept_at, names_in
from regdpo.core.temporaries import atomic
from regdpo.launch import earlier
from regdpo.launch.backends import CRASH, Allocated, OneMachine, OwnJob, Ranks, left_behind
from regdpo.launch.options import LaunchOptions
from regdpo.launch.run_log import RunLog
from regdpo.launch.time_limit import OUT_OF_TIME, TimeLimit
from regdpo.runs.job import ERROR, EXPORT, Job, Work
from regdpo.runs.stop import STOP, UNFINISHED, Asked, Left
from regdpo.runtime import slurm
from regdpo.runtime.lease import living
from regdpo.runtime.slurm import Allocation

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
TWICE = 1.0
"""Seconds within which signals count as one."""
GONE = 15.0
"""Seconds within which ranks are gone after their torchrun."""
SAY_EVERY = 60.0
"""Seconds between lines of who waits for another process."""


class OutOfTime(Unfinished):
    """The time limit of its Slurm job is near."""


def train(job: Work, options: LaunchOptions, name: str = "") -> None:
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
    launch = Launch(job, options, name)
    if (launch.run / EXPORT).exists():
        print(f"{launch.name} was done before; {launch.run_log.path} has what was said", file=sys.stderr)
        return
    try:
        launch.to_the_end()
    except (UserError, Unfinished) as error:
        launch.run_log.note(str(error))
        raise


class Launch:
    """One launcher's work."""

    def __init__(self, job: Work, options: LaunchOptions, name: str):
        self.job, self.options, self.run = job, options, Path(job.run)
        self.arm = name or self.run.name[:12]
        self.name = f"training {self.arm}"
        self.run_log = RunLog(self.run, options.events)
        self.apart = options.scheduler == "slurm"
        self.allocation = None if self.apart else Allocation.here()
        self.asked: list[signal.Signals] = []
        self.out_of_time = False

    def to_the_end(self) -> None:
        jobs = 1
        while not self._done():
            try:
                if not (self.apart and left_behind(self.run)):
                    self._wait_for_other()
                if self._done():
                    self.run_log.say(
                        f"{self.name}: the other one's result is taken; {self.run_log.path} has what was said"
                    )
                else:
                    self._start()
            except OutOfTime as left:
                if self.allocation:
                    self._requeue(left)
                if jobs > self.options.requeues:
                    raise
                jobs += 1
                self.run_log.say(f"{left}, in job {jobs}")

    def _done(self) -> bool:
        return EXPORT in names_in(self.run)

    def _wait_for_other(self) -> None:
        """Until no other process trains into the folder.

        Raises:
            OutOfTime: one still does, and the Slurm job that waits has to end.
            Unfinished: the other one was asked to stop.
        """
        time_limit, said = TimeLimit(self.allocation, self.options.leave), 0.0
        while owner := living(self.run):
            if time.monotonic() > said + SAY_EVERY:
                metrics = self.run / "metrics.jsonl"
                done = metrics.read_text().count("\n") if metrics.exists() else 0
                self.run_log.say(
                    f"{self.name}: {owner} trains in {self.run} (step {done}/{self.job.stage.settings.steps}); "
                    f"waiting for it, `touch {self.run / STOP}` stops it"
                )
                said = time.monotonic()
            if time_limit.near():
                raise OutOfTime(f"{self.name} goes on elsewhere, and this job that waits for it is at its time limit")
            time.sleep(1)
        if said and (self.run / UNFINISHED).exists() and not self._done():
            left = Left.model_validate_json((self.run / UNFINISHED).read_text())
            if not left.out_of_time:
                raise self._unfinished(left)

    def _start(self) -> None:
        """Start the ranks and see them to their end; back without an export where another process came first."""
        run, job = self.run, self.allocation
        self.out_of_time = False
        where = f", Slurm job {job.job}, requeued {job.restarts} times" if job else ""
        self.run_log.say(f"{datetime.now():%F %T} {self.name} in {run}{where}")
        for old in (run / ERROR, run / STOP, run / UNFINISHED, kept_at(run / EXPORT), *run.glob(CRASH)):
            old.unlink(missing_ok=True)
        if isinstance(self.job, Job):
            earlier.take_over(self.job, lambda line: self.run_log.say(f"{self.name}: {line}"))
        with atomic(run / "job.json") as temporary:
            temporary.write_text(self.job.model_dump_json(indent=2))
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            with ExitStack() as stack:
                stack.enter_context(patch.dict(os.environ, self._environment()))
                try:
                    ranks = stack.enter_context(self._ranks())
                except SignalException as error:  # of torchx, which heeds signals until we do
                    raise self._ended(signal.Signals(error.sigval).name, Unfinished) from None
                for number in SIGNALS:  # torchx has set its own
                    ignored = handlers[number] == signal.SIG_IGN  # as nohup and `&` of scripts have them
                    signal.signal(number, signal.SIG_IGN if ignored else self._heed)
                state = self._wait(ranks)
                ranks.join()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        (run / STOP).unlink(missing_ok=True)  # the ranks may have left by themselves
        if self._done():
            return
        if (run / UNFINISHED).exists():
            raise self._unfinished(Left.model_validate_json((run / UNFINISHED).read_text()))
        if (self.asked or self.out_of_time) and not (run / ERROR).exists():
            why = self.asked[-1].name if self.asked else OUT_OF_TIME
            raise self._ended(why, Unfinished if self.asked else OutOfTime)
        if not self._other_came_first():
            raise UserError(self._cause(state, ranks))

    def _other_came_first(self) -> bool:
        """By a moment. Ranks of ours that were killed may still be going."""
        end = time.monotonic() + GONE
        while living(self.run) and time.monotonic() < end:
            time.sleep(0.2)
        return living(self.run) is not None

    def _ranks(self) -> Ranks:
        several = self.options.nodes > 1 and self.allocation
        if self.apart:
            return OwnJob(self.run_log, self.run, self.options.shape, self.options.comment)
        if self.options.scheduler == "auto" and several:
            return Allocated(self.run_log, self.run, self.options.shape, self.allocation)
        return OneMachine(self.run_log, self.run, self.options.shape, self.job.device)

    def _environment(self) -> dict[str, str]:
        """What torchrun and the ranks get."""
        return {
            "OMP_NUM_THREADS": "1",
            # torchrun passes these on to the ranks, then gives them as long to save as we do
            "PET_SIGNALS_TO_HANDLE": ",".join(number.name for number in (*SIGNALS, signal.SIGQUIT)),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(self.options.grace)),
        }

    def _heed(self, number: int, frame: object) -> None:
        self.asked.append(signal.Signals(number))

    def _wait(self, ranks: Ranks) -> str:
        """How the ranks ended. The first signal becomes a stop file; ``timeout`` and the like send one twice."""
        asked, first, killed = self.asked, 0.0, 0.0
        time_limit = TimeLimit(self.allocation, self.options.leave)
        while not (state := ranks.ended()):
            now = time.monotonic()
            if isinstance(ranks, OwnJob) and ranks.running():
                time_limit.job = ranks.job
            if asked and not first:
                first = now
                self.run_log.say(f"{asked[0].name}: the ranks save and leave; once more ends them at once")
                self._ask(ranks, Asked(reason=asked[0].name))
            elif not first and not self.out_of_time and time_limit.near():
                self.out_of_time = True
                self.run_log.say(f"{OUT_OF_TIME}: the ranks save and leave")
                self._ask(ranks, Asked(reason=OUT_OF_TIME, out_of_time=True))
            if first and now < first + TWICE:
                del asked[1:]
            late = first and (len(asked) > 1 or now > first + self.options.grace)
            if (late or time_limit.here()) and now > killed + TWICE:
                killed = now
                ranks.kill()
            time.sleep(0.2)
        return state

    def _ask(self, ranks: Ranks, asked: Asked) -> None:
        """Ranks that are training save and leave. Those that load, or are not there yet, have nothing to save."""
        with suppress(OSError), atomic(self.run / STOP) as temporary:  # of a full disk: a signal does
            temporary.write_text(asked.model_dump_json())
        owner = living(self.run)
        if owner is None:
            ranks.kill()
        for process in psutil.Process().children(recursive=True):
            if owner and process.pid == owner.pid:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()

    def _ended(self, why: str, kind: type[Unfinished]) -> Unfinished:
        line = f"{self.name} was ended ({why}) with nothing saved; the same command goes on from its last checkpoint"
        return kind(line)

    def _unfinished(self, left: Left) -> Unfinished:
        kind = OutOfTime if left.out_of_time else Unfinished
        where = f"step {left.step}/{left.steps}"
        return kind(f"{self.name} stopped at {where} as asked ({left.reason}); the same command goes on")

    def _requeue(self, left: OutOfTime) -> NoReturn:
        """Put the Slurm job that this process is in back into the queue, which ends the process.

        Raises:
            OutOfTime: it may not be.
        """
        job, limit = self.allocation, self.options.requeues
        assert job is not None
        if not job.requeue:
            raise OutOfTime(f"{left} (Slurm job {job.job} may not be requeued: slurm-requeue of the profile)") from None
        if job.restarts >= limit:
            raise OutOfTime(f"{left} (launch.requeues: {limit} are spent)") from None
        self.run_log.say(f"{left}, in this job: back into the queue")
        slurm.ask("scontrol", "requeue", job.job)
        time.sleep(self.options.leave)
        raise left

    def _cause(self, state: str, ranks: Ranks) -> str:
        """In one line. Nobody kills itself with -9, so that comes before what a rank said that missed its peer."""
        if (self.run / ERROR).exists():
            return (self.run / ERROR).read_text() or disk_full(str(self.run))  # which left room for its name alone
        if ranks.refused:
            return ranks.refused
        signals = [f"rank {rank} was ended by {number}" for rank, number in ranks.dead.items()]
        if "SIGKILL" in ranks.dead.values():
            message = f"{', '.join(signals)} (the kernel does so when memory runs out)"
        else:
            message = _crash(self.run) or ", ".join(signals) or "the ranks ended without saying why"
        reason = " ".join(message.split())[:500]
        logs = self.run / "logs"
        return f"{self.name} {state}: {reason}; logs in {logs}; the same command goes on from the last checkpoint"


def _crash(run: Path) -> str:
    """The exception of the rank that failed first, as torchrun has it from each machine."""
    found = []
    for path in run.glob(CRASH):
        with suppress(OSError, ValueError, KeyError, TypeError):
            message = json.loads(path.read_text())["message"]
            when = message["extraInfo"]["timestamp"] if isinstance(message, dict) else "0"
            found.append((int(when), message["message"] if isinstance(message, dict) else message))
    return str(min(found)[1]) if found else ""
