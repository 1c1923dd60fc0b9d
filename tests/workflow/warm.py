"""The processes of a workflow without the cost of their start, which is most of what a small one does: to import torch,
diffusers and Snakemake takes each of them up to ten seconds, and there are a hundred.

    python warm.py ADDRESS

imports what the environment has, nothing of regdpo, and forks of itself what `sitecustomize.py` hands on: it imports the
project's own modules from the project, in its own folder, with its own arguments, environment and files. What that hides: ids
of processes, groups and parents, and the seconds in which a process imports. So `Project.started`, of which tests look at
signals and kills, and tests/slurm start everything for real.
"""

import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

IMPORTED = (
    *("snakemake.cli", "snakemake.dag", "snakemake.scheduling", "snakemake.report", "pyarrow.parquet", "pydantic"),
    *("torch.distributed.run", "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp"),
    *(
        "torch.utils.tensorboard",
        "torchx.runner",
        "av",
        "imageio_ffmpeg",
        "peft",
        "diffusers.pipelines.wan.pipeline_wan",
    ),
    *("diffusers.pipelines.wan.pipeline_wan_i2v", "diffusers.training_utils", "transformers.models.umt5.modeling_umt5"),
)


def main(address: str) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert "regdpo" not in sys.modules
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        try:
            while True:
                connection, _ = listening.accept()
                with connection:
                    if not os.fork():
                        listening.close()
                        keep(connection)
                reap()
        finally:
            reap()


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(connection: socket.socket) -> None:
    """Run what is asked for, and tell how it ended; who asked is not outlived."""
    os.setsid()
    _, given, _, _ = socket.recv_fds(connection, 1, 256)
    with connection.makefile("rb") as said:
        asked = json.loads(said.readline())
    worker = os.fork()
    if not worker:
        connection.close()
        become(asked, given)
    for number in given:
        os.close(number)
    ended = os.pidfd_open(worker)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(worker, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(str(code).encode())
    os._exit(0)


def become(asked: dict, given: list[int]) -> None:
    """The program that was asked for."""
    # To numbers that are free first: one that is given may have the number that another is to have.
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 512) for number in given]
    os.closerange(3, 512)
    for number, wanted in zip(moved, asked["files"], strict=True):
        os.dup2(number, wanted)
        os.close(number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.stdin = os.fdopen(0, closefd=False)
    first, *arguments = asked["command"]
    sys.executable = asked["executable"]
    sys.path[:] = [os.getcwd() if first == "-m" else os.path.realpath(os.path.dirname(first)), *asked["path"]]
    importlib.invalidate_caches()
    if first == "-m":
        sys.argv = arguments
        ending.run(lambda: runpy.run_module(arguments[0], run_name="__main__", alter_sys=True))
    sys.argv = [first, *arguments]
    ending.run(lambda: runpy.run_path(first, run_name="__main__"))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import ending

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    main(sys.argv[1])
