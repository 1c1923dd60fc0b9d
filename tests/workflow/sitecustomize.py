"""Python reads this as it starts, where it is on the path. Snakemake, scripts, torchrun and ranks hand themselves to the
process of `warm.py` and end as what is forked there does; what else is started goes on."""

import json
import os
import signal
import socket
import sys
from pathlib import Path


def wanted(command: list[str]) -> bool:
    """Whether that process runs it."""
    first, *rest = command or [""]
    if first == "-m":
        return rest[0].startswith(("regdpo.", "torch."))
    return Path(first).name == "snakemake" or Path(first).parent.name == "scripts"


def hand_on(address: str, command: list[str]) -> None:
    """Give it the command, all that a program has from who started it, and wait for its end."""
    with socket.socket(socket.AF_UNIX) as server:
        files = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
        files.remove(server.fileno())
        server.connect(address)
        asked = {"command": command, "environment": dict(os.environ), "folder": os.getcwd(), "files": files}
        asked |= {"path": sys.path, "executable": sys.executable}
        socket.send_fds(server, [b"!"], files)
        server.sendall(json.dumps(asked).encode() + b"\n")
        status = int(server.recv(16) or 1)
    if status < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


packages, _, place = os.environ.get("REGDPO_WARM", "").partition(":")
if packages in sys.path:
    asked_for = sys.orig_argv[2:] if sys.orig_argv[1:2] == ["-u"] else sys.orig_argv[1:]
    if wanted(asked_for):
        hand_on(place, asked_for)
