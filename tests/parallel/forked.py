"""Launchers, torchruns and ranks without the cost of their start, which is more than all that tests do with them.

Launchers are forked from a process that has everything imported (multiprocessing's forkserver); what they start by
`python -m MODULE` is forked of them in turn, where subprocess would have called exec. Pids, parents, sessions, signals, files
and exit codes are those of processes that were started. What they hide: an order that a seed for hashes decides (all have one
here), what is handed on in memory, and the seconds in which a process imports and heeds no signal. So
`test_killed_and_resumed_is_undisturbed`, `test_asked_before_the_first_step`, tests/workflow and tests/slurm start them for real.
"""

import inspect
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, TypeVar
from unittest.mock import patch

import ending
import pytest

from regdpo.core import errors
from regdpo.launch import backends, launcher
from regdpo.launch.options import LaunchOptions
from regdpo.runs.job import Job, Work

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = (
    "regdpo.train.rank",
    "regdpo.train.trainer",
    "regdpo.models.wan",
    "torch.utils.tensorboard",
    "regdpo.runs.rendezvous",
    "forked",
)
LIGHT = "light_rank"
"""The module of ranks that train the toy."""
STARTED = subprocess.Popen._execute_child  # type: ignore[attr-defined]
TESTS = Path(__file__).parents[1]
T = TypeVar("T")


@pytest.fixture(scope="session", autouse=True)
def server() -> Iterator[None]:
    """The process that all others are forked from."""
    paths = os.pathsep.join([str(TESTS), str(TESTS / "parallel"), os.environ.get("PYTHONPATH", "")])
    CONTEXT.set_forkserver_preload(list(IMPORTED))
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}):
        forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def train(job: Work, options: LaunchOptions, module: str = backends.MODULE) -> None:
    """As `launcher.train`, with what it raises."""
    call(_train, job, options, "", module)


def call(function: Callable[..., T], *arguments: object) -> T:
    """In a process of its own; what the function returns or raises."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        return pool.submit(function, *arguments).result()


class Launcher:
    """`launcher.train` in a process and a session of its own, as a terminal starts one; what subprocess.Popen has."""

    def __init__(self, job: Work, options: LaunchOptions, name: str = "", module: str = backends.MODULE):
        reading, writing = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_launched, args=(writing, job, options, name, module))
        self._process.start()
        writing.close()
        self.stderr = os.fdopen(os.dup(reading.fileno()))
        self.pid, self.terminate, self.kill = self._process.pid, self._process.terminate, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        assert self.poll() is not None, f"it lives after {timeout} s"


START = """
import sys
from regdpo.core import errors
from regdpo.launch import backends, launcher
from regdpo.launch.options import LaunchOptions
from regdpo.runs.job import Job, Work
job, options, name, backends.MODULE = sys.argv[1:]
errors.run(lambda: launcher.train(Job.read(job), LaunchOptions.model_validate_json(options), name))
"""


def started(job: Job, options: LaunchOptions, name: str = "", module: str = backends.MODULE) -> "subprocess.Popen[str]":
    """What `Launcher` is, really started, as are its torchrun and ranks: for what happens while they import."""
    asked = Path(f"{job.run}.asked.json")
    asked.write_text(job.model_dump_json())
    command = [sys.executable, "-c", START, str(asked), options.model_dump_json(), name, module]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _launched(writing: Connection, job: Work, options: LaunchOptions, name: str, module: str) -> None:
    os.setsid()
    os.dup2(writing.fileno(), 2)
    writing.close()
    sys.stderr = ending.text(2)
    errors.run(lambda: _train(job, options, name, module))


def _train(job: Work, options: LaunchOptions, name: str, module: str) -> None:
    with forking(module):
        launcher.train(job, options, name)


@contextmanager
def forking(module: str) -> Iterator[None]:
    """What is started is forked; ranks are of a module."""
    with patch.object(subprocess.Popen, "_execute_child", _forked), patch.object(backends, "MODULE", module):
        yield


def _forked(self: subprocess.Popen, *arguments: object) -> None:
    """In place of Popen's fork and exec: a fork, of `python -m MODULE ARGUMENTS`."""
    given = inspect.signature(STARTED).bind(self, *arguments).arguments
    command = list(given["args"])
    if command[:2] not in ([sys.executable, "-m"], [sys.executable, "-u"]):
        return STARTED(self, *arguments)
    self.pid = os.fork()
    if not self.pid:
        _become(command, given)
    self._child_created = True  # type: ignore[attr-defined]
    self._close_pipe_fds(*(given[name] for name in PIPES))  # type: ignore[attr-defined]
    return None


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _become(command: list[str], given: dict) -> NoReturn:
    def program() -> None:
        if given["start_new_session"]:
            os.setsid()
        for number, file in enumerate((given["p2cread"], given["c2pwrite"], given["errwrite"])):
            if file != -1:
                os.dup2(file, number)
        if given["cwd"]:
            os.chdir(given["cwd"])
        if given["env"] is not None:
            os.environ.clear()
            os.environ.update(given["env"])
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.argv = command[command.index("-m") + 1 :]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

    ending.run(program)
