"""A throw-away Slurm on this machine: accounting, two partitions, and nodes that know only themselves.

    python tests/slurm/sandbox.py up FOLDER [--nodes 3] [--gpus 2]
    python tests/slurm/sandbox.py down FOLDER
    python tests/slurm/sandbox.py lacking | missing

Everything lies in FOLDER and nothing else of the machine is changed: clients find it by SLURM_CONF. A node is a slurmd
in namespaces of its own: its host name, its processes, its mounts, its /etc/slurm; so it dies as a machine does, all at
once. What is mounted under FOLDER/shared is seen by all. Needs root, Linux namespaces and the packages of `PACKAGES`.
"""

import argparse
import csv
import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

HERE = Path(__file__).parent
PACKAGES = {"slurm-wlm": "slurmctld", "munge": "munged", "slurmdbd": "slurmdbd", "mariadb-server": "mariadbd"}
"""Debian package -> program that it brings."""
PORT = 17000
"""Of slurmctld; slurmdbd and the nodes have the next ones."""
CPUS, MEMORY = 4, 1_200_000
"""What a node says it has: more than is here, so that jobs wait for one another as rarely as on a cluster. MB."""
FIELDS = "JobID,JobName,Comment,State,ExitCode,Partition,NNodes,NodeList,ReqTRES,AllocTRES,Timelimit"
NODE = """
hostname {name}
mount --bind {etc}/slurm /etc/slurm
mount --bind {etc}/hosts /etc/hosts
for path in {private}; do mount -t tmpfs tmpfs "$path"; done
slurmd -D -N {name}
"""  # the shell stays as the node's first process and reaps


def lacking() -> list[str]:
    """Packages that are not installed."""
    return [package for package, program in PACKAGES.items() if not shutil.which(program)]


def missing() -> str:
    """Why there can be no Slurm here, in one line; empty if there can."""
    if os.geteuid():
        return "it takes root"
    if packages := lacking():
        return f"it takes Debian's packages {', '.join(packages)}"
    if subprocess.run(["unshare", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "namespaces are not permitted here"
    return ""


def running() -> list[str]:
    """Configurations of the Slurms that run on this machine."""
    environments = (process.environ() for process in psutil.process_iter() if process.name() == "slurmctld")
    return [environment["SLURM_CONF"] for environment in environments if "SLURM_CONF" in environment]


class Sandbox:
    """A Slurm with nodes n1, n2, ... and the account `default`; as context manager, from its start to its end.

    Args:
        folder: empty, not there, or of a sandbox that is down. The one of a running sandbox attaches to that.
    """

    def __init__(self, folder: Path, nodes: int = 3, gpus: int = 2):
        self.folder = folder.resolve()
        self.shared = self.folder / "shared"
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.gpus = gpus
        self._record = self.folder / "processes.json"
        self._children: dict[int, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this Slurm needs in its environment."""
        return {"SLURM_CONF": str(self.folder / "etc/slurm/slurm.conf")}

    def __enter__(self) -> "Sandbox":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Start everything and wait until all nodes are idle.

        Raises:
            RuntimeError: it cannot be had here, or something is in its place.
        """
        if reason := missing():
            raise RuntimeError(f"no Slurm: {reason}")
        if self.folder.exists() and any(self.folder.iterdir()) and not self._record.exists():
            raise RuntimeError(f"{self.folder}: is not empty and no sandbox")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                raise RuntimeError(f"port {PORT} is taken: is a sandbox up ({', '.join(running())})?")
        self.down()
        for name in ("etc/slurm", "run", "log", "state", "spool", "dev", "shared"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        try:
            self._configure()
            self._mount("--bind", self.shared, self.shared)
            self._mount("--make-shared", self.shared)
            self._accounting()
            self._start("slurmctld", "slurmctld", "-D")
            self._start_nodes(self.nodes)
        except TimeoutError as error:
            self.down()
            raise TimeoutError(f"{error}; see {self.folder}/log") from None
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End what `up` started, by process id and time of start; the logs and the shared folder stay."""
        for name in reversed(list(self._processes())):
            self._stop(name)
        if self._record.exists():
            subprocess.run(["umount", "--recursive", "--lazy", str(self.shared)], capture_output=True, check=False)
        for name in ("database", "state", "spool"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def stop_node(self, name: str) -> None:
        """As a power cut would: slurmd and all processes of the node's jobs are gone, with -9 and at once.

        Slurm notices after some 20 s; jobs that may be requeued wait 10 s more.
        """
        self._stop(name)

    def start_node(self, name: str, private: Sequence[Path] = ()) -> None:
        """Bring a stopped node back, and wait until it is idle.

        Args:
            private: folders that are empty on this node, whatever lies there elsewhere.
        """
        if name in self._processes():
            raise ValueError(f"{name} is up: stop it first")
        self._start_nodes([name], private)

    def process(self, node: str) -> int:
        """Id, here, of a node's first process."""
        return psutil.Process(self._processes()[node][0]).children()[0].pid

    def wait_idle(self, seconds: float = 60) -> None:
        """Until no job waits or runs and the nodes that are up are idle."""

        def idle() -> bool:
            return not self.jobs() and set(self._idle()) >= set(self.nodes) & set(self._processes())

        wait_until(idle, "Slurm is not idle", seconds)

    def jobs(self) -> list[dict[str, str]]:
        """Jobs that wait or run, with id, state, comment (rule and wildcards), nodes and reason."""
        columns = {"id": "%i", "state": "%T", "comment": "%k", "nodes": "%N", "reason": "%r"}
        lines = self.run("squeue", "--noheader", "--format", "|".join(columns.values())).splitlines()
        return [dict(zip(columns, line.split("|"), strict=True)) for line in lines]

    def sacct(self, job: str = "", fields: str = FIELDS, steps: bool = False) -> list[dict[str, str]]:
        """Of all jobs, or of one: a row for each time that it ran."""
        options = [*(["--jobs", job] if job else []), *([] if steps else ["--allocations"])]
        said = self.run(
            "sacct",
            "--noconvert",
            "--duplicates",
            "--parsable2",
            "--starttime",
            "now-1days",
            "--format",
            fields,
            *options,
        )
        return list(csv.DictReader(said.splitlines(), delimiter="|"))

    def run(self, *command: str) -> str:
        """A command of Slurm; what it printed."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout

    def _configure(self) -> None:
        devices = self.folder / "dev"
        # Slurm sets CUDA_VISIBLE_DEVICES for character devices alone: these are /dev/null under another name
        for number in range(self.gpus):
            os.mknod(devices / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        known = {"folder": self.folder, "port": PORT, "database": PORT + 1, "host": socket.gethostname()}
        config, gres = (HERE / "slurm.conf").read_text().format(**known), ""
        for number, name in enumerate(self.nodes):
            (self.folder / "spool" / name).mkdir()
            config += (
                f"NodeName={name} NodeAddr=127.0.0.1 Port={PORT + 2 + number} CPUs={CPUS} RealMemory={MEMORY}"
                f" Gres=gpu:fake:{self.gpus}\n"
            )
            gres += "".join(f"NodeName={name} Name=gpu Type=fake File={devices}/gpu{gpu}\n" for gpu in range(self.gpus))
        etc = self.folder / "etc"
        (etc / "slurm/slurm.conf").write_text(config)
        (etc / "slurm/gres.conf").write_text(gres)
        database = etc / "slurm/slurmdbd.conf"
        database.touch(mode=0o600)
        database.write_text((HERE / "slurmdbd.conf").read_text().format(**known))
        (etc / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()} {' '.join(self.nodes)}\n")

    def _accounting(self) -> None:
        data, run = self.folder / "database", self.folder / "run"
        key = run / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        paths = [f"--{what}={run}/munge.{what.partition('-')[0]}" for what in ("key-file", "pid-file", "seed-file")]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={run}/munge", *paths)
        small = ["--no-defaults", "--user=root", f"--datadir={data}", "--innodb-log-file-size=4M"]
        with (self.folder / "log/mariadb-install.log").open("w") as log:
            subprocess.run(["mariadb-install-db", *small, "--skip-test-db"], stdout=log, stderr=log, check=True)
        self._start("mariadbd", "mariadbd", *small, f"--socket={run}/mariadb", "--skip-networking")
        client = ["mariadb", "--no-defaults", f"--socket={run}/mariadb", "--execute"]
        wait_until(lambda: works(*client, "create database if not exists slurm_acct_db"), "MariaDB does not start")
        self._start("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=f"{run}/mariadb")
        add = [*self._client("sacctmgr"), "--immediate", "add"]
        wait_until(lambda: works(*add, "cluster", "sandbox"), "slurmdbd does not start")
        for what in (["account", "default", "Cluster=sandbox"], ["user", "root", "Account=default"]):
            subprocess.run([*add, *what], stdout=subprocess.DEVNULL, check=True)

    def _client(self, program: str) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self.environment.items()), program]

    def _start_nodes(self, names: Sequence[str], private: Sequence[Path] = ()) -> None:
        covered = shlex.join(str(path) for path in private)
        for name in names:
            script = NODE.format(name=name, etc=shlex.quote(str(self.folder / "etc")), private=covered)
            space = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave", "--uts"]
            self._start(name, *space, "sh", "-ec", script)
        wait_until(lambda: set(self._idle()) >= set(names), f"{', '.join(names)} do not get idle")

    def _idle(self) -> list[str]:
        done = subprocess.run(
            [*self._client("sinfo"), "--noheader", "--Node", "--partition=cpu", "--states=idle", "--format=%N %T"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" idle")]

    def _start(self, name: str, *command: str, **environment: str) -> None:
        with (self.folder / f"log/{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                env={**os.environ, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[child.pid] = child
        self._save({**self._processes(), name: [child.pid, started(child.pid)]})

    def _stop(self, name: str) -> None:
        """The children first: the end of a node's first process is that of all its processes."""
        processes = self._processes()
        pid, _ = processes.pop(name)
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not any(started(process.pid) for process in family), f"{name} does not end")
        if child := self._children.pop(pid, None):
            child.wait()
        self._save(processes)

    def _processes(self) -> dict[str, list[int]]:
        """Name -> process id and time of start, of what this sandbox has started and still lives."""
        if not self._record.exists():
            return {}
        recorded = json.loads(self._record.read_text())
        return {name: which for name, which in recorded.items() if started(which[0]) == which[1]}

    def _save(self, processes: dict[str, list[int]]) -> None:
        self._record.write_text(json.dumps(processes))

    @staticmethod
    def _mount(*arguments: object) -> None:
        subprocess.run(["mount", *map(str, arguments)], check=True)


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; nothing if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def wait_until(holds: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
    """Look ten times a second.

    Raises:
        TimeoutError: with the text of ``otherwise``.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A throw-away Slurm on this machine.")
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="start it, and print what to export so that Slurm's commands find it")
    up.add_argument("folder", type=Path, help="where everything lies; new, or of a sandbox that is down")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--gpus", type=int, default=2, help="fake ones, of each node")
    actions.add_parser("down", help="end what `up` started").add_argument("folder", type=Path)
    actions.add_parser("lacking", help="print the Debian packages that are not installed")
    actions.add_parser("missing", help="print why there can be no Slurm here; nothing if there can")
    options = parser.parse_args()
    if options.action == "lacking":
        print(*lacking())
    elif options.action == "missing":
        print(missing())
    elif options.action == "down":
        Sandbox(options.folder).down()
    else:
        sandbox = Sandbox(options.folder, options.nodes, options.gpus)
        try:
            sandbox.up()
        except (RuntimeError, TimeoutError) as error:
            sys.exit(str(error))
        print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in sandbox.environment.items()))


if __name__ == "__main__":
    main()
