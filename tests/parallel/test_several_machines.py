"""Two machines' launchers, as `srun` starts them, here on one: where they can be reached."""

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import forked
import psutil
import pytest
import tiny

from regdpo.launch import backends
from regdpo.runs.stop import UNFINISHED


def network() -> tuple[str, str]:
    """An interface that is no loopback's, and its address."""
    for name, addresses in psutil.net_if_addrs().items():
        for it in addresses:
            if it.family == socket.AF_INET and not it.address.startswith("127."):
                return name, it.address
    pytest.skip("this machine has no network")


def launcher(number: int, interface: str, arguments: list[str], said: Path) -> None:
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 1)
    os.environ |= {"SLURM_PROCID": str(number), "GLOO_SOCKET_IFNAME": interface}
    sys.argv = ["backends", *arguments]
    with forked.forking(forked.LIGHT):
        backends.main()


def test_machines_listen_at_the_named_interface_alone(light, tmp_path):
    interface, address = network()
    job = tiny.job(light, tmp_path / "run", objective="sft", steps=10_000)
    run = Path(job.run)
    run.mkdir()
    (run / "job.json").write_text(job.model_dump_json())
    with socket.create_server((address, 0)) as free:
        port = str(free.getsockname()[1])
    arguments = [str(run), backends._digest(run), "2", "1", address, port, "17.0"]
    machines, files = [], [tmp_path / "0", tmp_path / "1"]
    with ExitStack() as stack:
        for number, file in enumerate(files):
            machines.append(forked.CONTEXT.Process(target=launcher, args=(number, interface, arguments, file)))
            machines[-1].start()
            stack.callback(machines[-1].kill)
        deadline = time.monotonic() + 180
        while not (run / "metrics.jsonl").exists():
            assert all(machine.is_alive() for machine in machines), [file.read_text() for file in files]
            assert time.monotonic() < deadline, [path.read_text() for path in run.rglob("*.log")]
            time.sleep(0.1)
        parents = [psutil.Process(machine.pid) for machine in machines]
        family = [it for parent in parents for it in (parent, *parent.children(recursive=True))]
        sockets = [it for process in family for it in process.net_connections("inet") if not it.raddr]
        assert {it.laddr.ip for it in sockets} == {address}, "strangers can reach it"
        assert int(port) in {it.laddr.port for it in sockets}
        (run / "stop").touch()
        for machine in machines:
            machine.join(120)
    assert [machine.exitcode for machine in machines] == [0, 0], [file.read_text() for file in files]
    assert (run / UNFINISHED).exists()
