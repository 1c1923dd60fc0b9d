"""Two machines' launchers, as `srun` starts them, here on one: where they can be reached."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import tiny

from regdpo.launch.backends import _digest
from regdpo.runs.stop import UNFINISHED


def network() -> tuple[str, str]:
    """An interface that is no loopback's, and its address."""
    for name, addresses in psutil.net_if_addrs().items():
        for it in addresses:
            if it.family == socket.AF_INET and not it.address.startswith("127."):
                return name, it.address
    pytest.skip("this machine has no network")


def test_machines_listen_at_the_named_interface_alone(world, tmp_path):
    interface, address = network()
    settings = {"objective": "sft", "steps": 10_000, "tuning": "lora", "lora": {"rank": 2, "targets": ["to_q"]}}
    job = tiny.job(world, tmp_path / "run", **settings)
    run = Path(job.run)
    run.mkdir()
    (run / "job.json").write_text(job.model_dump_json())
    with socket.create_server((address, 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "regdpo.launch.backends", str(run), _digest(run), "2", "1", address, port, "17.0"]
    machines = []
    with ExitStack() as stack:
        for number in range(2):
            environment = os.environ | {"SLURM_PROCID": str(number), "GLOO_SOCKET_IFNAME": interface}
            machines.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
            stack.callback(machines[-1].communicate)
            stack.callback(machines[-1].kill)
        deadline = time.monotonic() + 180
        while not (run / "metrics.jsonl").exists():
            assert all(machine.poll() is None for machine in machines), [machine.communicate() for machine in machines]
            assert time.monotonic() < deadline, [path.read_text() for path in run.rglob("*.log")]
            time.sleep(0.1)
        parents = [psutil.Process(machine.pid) for machine in machines]
        family = [it for parent in parents for it in (parent, *parent.children(recursive=True))]
        sockets = [it for process in family for it in process.net_connections("inet") if not it.raddr]
        assert {it.laddr.ip for it in sockets} == {address}, "strangers can reach it"
        assert int(port) in {it.laddr.port for it in sockets}
        (run / "stop").touch()
        said = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert (run / UNFINISHED).exists()
