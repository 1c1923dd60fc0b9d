"""What breaks under a training on a cluster, and what is lost: nothing but the steps since the last checkpoint.

`pytest tests/slurm -s` prints how long each took; docs/how-to/cluster.md has the table.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from project import Project
from sandbox import Sandbox
from slurm_project import SETTINGS

from regdpo.core import manifests, portable
from regdpo.core.digests import folder_digest
from regdpo.runs.job import Job
from regdpo.workflow.timeline.rows import JobRow

STEPS, EVERY = 120, 15
STEADY = {**SETTINGS["train"]["settings"], "steps": STEPS, "checkpoint_every": EVERY, "eval_every": STEPS}
MODEL = "results/train/dpo/seed0/model.json"

HERE = """
import sys
from regdpo.launch.launcher import train
from regdpo.launch.options import LaunchOptions
from regdpo.runs.job import Job
train(Job.read(sys.argv[1]), LaunchOptions(processes=2, scheduler="local_cwd"))
"""


class Training:
    """One arm of a finished project, trained anew over two machines."""

    def __init__(self, project: Project, cluster: Sandbox):
        self.project, self.cluster, self.folder = project, cluster, project.folder
        self.begun = time.monotonic()
        for path in self.runs():
            shutil.rmtree(path)
        shutil.rmtree(self.folder / "results/train/dpo", ignore_errors=True)
        self.configure()
        self.profile()

    def configure(self, **launch) -> None:
        train = SETTINGS["train"] | {"settings": STEADY}
        self.project.configure(SETTINGS | {"train": train, "launch": {"processes": 2, "nodes": 2, **launch}})

    def profile(self, **resources) -> None:
        """The profile as it is, but for what the training asks for."""
        path = self.folder / "profiles/slurm/profile.v9+.yaml"
        original = path.with_suffix(".original")
        if not original.exists():
            shutil.copy(path, original)
        values = yaml.safe_load(original.read_text())
        values["set-resources"]["train_arm"].update(resources)
        path.write_text(yaml.safe_dump(values))

    def runs(self) -> list[Path]:
        """Run folders of the arm."""
        found = (self.folder / "store/runs").glob("*/*/job.json")
        return [path.parent for path in found if '"objective": "dpo"' in path.read_text()]

    @property
    def run(self) -> Path:
        (run,) = self.runs()
        return run

    def steps(self) -> int:
        return sum(
            (run / "metrics.jsonl").read_text().count("\n") for run in self.runs() if (run / "metrics.jsonl").exists()
        )

    def log(self) -> str:
        """What was said at all starts."""
        return "".join((run / "log.txt").read_text() for run in self.runs())

    def started_from(self) -> list[int]:
        """The step that each start went on from."""
        return [int(step) for step in re.findall(r"from step (\d+);", self.log())]

    def start(self, *arguments: str) -> "Workflow":
        return Workflow(self, [*arguments, MODEL])

    def ranks(self, number: int | None = None) -> list[psutil.Process]:
        """The living ranks, or one of them, wherever they are."""
        ranks = [it for it in self.processes() if "regdpo.runs.rendezvous" not in it.info["cmdline"]]
        return [it for it in ranks if number in (None, int(it.environ().get("RANK", -1)))]

    def processes(self) -> list[psutil.Process]:
        """The living ranks, and torchruns."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "regdpo.train.rank" in command and any(word.startswith(str(self.folder)) for word in command):
                found.append(process)
        return found

    def listens_at(self) -> set[str]:
        """Addresses of this machine at which the training can be reached."""
        sockets = [it for process in self.processes() for it in process.net_connections("inet")]
        return {it.laddr.ip for it in sockets if not it.raddr}

    def job(self) -> str:
        (job,) = [job["id"] for job in self.cluster.jobs() if "train_arm" in job["comment"]]
        return job

    def states(self, job: str) -> list[str]:
        """Of a job, each time that it ran."""
        return [row["State"].split()[0] for row in self.cluster.sacct(job, "State")]

    def trains_again(self, workflow: "Workflow", fault: str) -> None:
        """Until the ranks have started once more; how long that took since now is printed."""
        begun, starts = time.monotonic(), len(self.started_from())
        workflow.until(lambda: len(self.started_from()) > starts)
        print(f"{fault}: trains again after {time.monotonic() - begun:.0f} s")

    def goes_on_after_its_time(self, workflow: "Workflow") -> None:
        job = self.near_its_end(workflow)
        workflow.until(lambda: "back into the queue" in self.log())
        self.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
        self.trains_again(workflow, "time limit")
        workflow.end()
        assert self.states(job) == ["REQUEUED", "COMPLETED"]
        step = re.findall(r"stopped at step (\d+)/\d+ as asked \(the time limit", self.log())[-1]
        assert self.started_from()[-1] == int(step)

    def outlives_snakemake(self) -> None:
        """To the training's end, which the next Snakemake waits for."""
        starts = len(self.started_from())
        workflow = self.start("--retries", "0")
        workflow.until(lambda: len(self.started_from()) > starts)
        job = self.job()
        self.cluster.run("scontrol", "suspend", job)  # until the next run has found it
        os.kill(workflow.process.pid, signal.SIGKILL)
        workflow.process.wait()
        assert "LockException" in self.start().end(1)
        assert f"Slurm job {job} suspended train_arm" in self.unlock()
        workflow = self.start()
        workflow.until(lambda: "waiting for it" in self.log())
        self.cluster.run("scontrol", "resume", job)
        workflow.end()
        assert len(self.started_from()) == starts + 1

    def unlock(self) -> str:
        """What it says that the dead run has left."""
        done = subprocess.run(
            [sys.executable, "scripts/unlock.py"],
            cwd=self.folder,
            env={**self.project.command()[1]["env"], **self.cluster.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def near_its_end(self, workflow: "Workflow") -> str:
        """The job, which now has half a minute left or a little more; Slurm's limits are whole minutes."""
        workflow.until_step((self.started_from() or [0])[-1] + 5)
        job = self.job()
        (used,) = self.cluster.run("squeue", "--noheader", "--jobs", job, "--format=%M").split()
        minutes, seconds = map(int, used.split(":"))
        self.cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes + 1 + (seconds > 30)}")
        return job

    def ended_as_undisturbed(self, undisturbed: Path) -> None:
        """Losses of every step, and the bytes of the export."""
        assert (self.folder / MODEL).exists()
        assert losses(self.run) == losses(undisturbed)
        assert len(losses(self.run)) == STEPS
        assert folder_digest(self.run / "export") == folder_digest(undisturbed / "export")
        print(f"{time.monotonic() - self.begun:6.0f} s", end=" ")


class Workflow:
    """Snakemake, in the background."""

    def __init__(self, training: Training, arguments: list[str]):
        self.training = training
        command, options = training.project.command(*arguments)
        options["env"] |= training.cluster.environment
        self.output = training.folder / "snakemake.log"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
            )

    def until(self, holds: Callable[[], object], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, f"{self.said()}\n{self.training.log()}"
            time.sleep(0.1)

    def until_step(self, step: int) -> None:
        self.until(lambda: self.training.steps() >= step)

    def said(self) -> str:
        return self.output.read_text()[-5000:]

    def end(self, code: int = 0) -> str:
        assert self.process.wait(timeout=400) == code, f"{self.said()}\n{self.training.log()}"
        return self.output.read_text()


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def training(finished: Project, cluster: Sandbox):
    """Whatever the test did, nothing of it runs on."""
    training = Training(finished, cluster)
    yield training
    for job in cluster.jobs():
        cluster.run("scancel", job["id"].split("+")[0])
    cluster.wait_idle()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(training.folder) and "snakemake" in " ".join(process.info["cmdline"] or []):
            process.kill()
    training.project.snakemake("--unlock")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Training], Path]:
    """The same training on this machine, without a cluster."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"

    def of(training: Training) -> Path:
        if not run.exists():
            job = run.with_name("job.json")
            values = Job.read(training.run / "job.json").model_copy(update={"run": str(run)})
            job.write_text(values.model_dump_json())
            options = training.project.command()[1]
            options["env"] = portable.environment(options["env"])
            subprocess.run([sys.executable, "-c", HERE, str(job)], check=True, **options)
        return run

    return of


def test_memory_a_rank_killed_cancelled_and_a_machine_lost(training: Training, cluster: Sandbox, undisturbed) -> None:
    """One after another in the same training; Snakemake goes on by itself."""
    before = len(cluster.sacct())
    training.profile(mem_mb="300 if attempt == 1 else 4000")
    workflow = training.start("--retries", "3")
    workflow.until_step(2 * EVERY + 5)
    short, more = cluster.sacct(fields="State,ReqTRES")[before:]
    assert ["mem=600M" in short["ReqTRES"], "mem=8000M" in more["ReqTRES"]] == [True, True], (short, more)
    assert short["State"] != "COMPLETED"
    begun = len(training.started_from())
    assert training.listens_at() == {"127.0.0.1"}, "strangers can reach it"  # what the nodes' names stand for

    training.ranks(1)[0].kill()
    killed = training.job()
    training.trains_again(workflow, "a rank killed")
    assert "training dpo/seed0 failed: rank 1 was ended by SIGKILL" in training.log()
    assert training.states(killed) == ["FAILED"]
    start = training.started_from()[-1]
    assert start >= EVERY
    assert start % EVERY == 0

    workflow.until_step(start + 5)
    cancelled = training.job()
    cluster.run("scancel", cancelled)
    training.trains_again(workflow, "cancelled, two machines")
    assert training.states(cancelled) == ["CANCELLED"]
    assert training.started_from()[-1] >= start + 5  # saved as it was told to end

    workflow.until_step(training.started_from()[-1] + 5)
    lost = training.job()
    cluster.stop_node("n2")
    training.trains_again(workflow, "a machine lost")
    workflow.end()
    cluster.start_node("n2")
    assert training.states(lost) == ["NODE_FAIL", "COMPLETED"]
    assert " on n3," in training.log()
    assert len(training.started_from()) == begun + 3
    training.ended_as_undisturbed(undisturbed(training))


def test_one_machine(training: Training, cluster: Sandbox, undisturbed) -> None:
    """Snakemake's own `srun` holds launcher and ranks: cancelled, then out of time."""
    training.configure(nodes=1, leave=90)
    workflow = training.start("--retries", "1")
    workflow.until_step(2 * EVERY + 5)
    cancelled = training.job()
    cluster.run("scancel", cancelled)
    training.trains_again(workflow, "cancelled, one machine")
    assert training.states(cancelled) == ["CANCELLED"]
    assert training.started_from()[1] >= EVERY
    training.goes_on_after_its_time(workflow)
    training.ended_as_undisturbed(undisturbed(training))


def test_full_disk_then_snakemake_killed(training: Training, cluster: Sandbox, undisturbed) -> None:
    """The disk of the run folders: the base's is there already."""
    runs = training.folder / "store/runs"
    kept = shutil.copytree(runs, training.folder / "kept")
    used = sum(path.stat().st_size for path in runs.rglob("*") if path.is_file())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + 600_000}", "tmpfs", str(runs)], check=True)
    try:
        shutil.copytree(kept, runs, dirs_exist_ok=True)
        assert "no space left on the device" in training.start("--retries", "0").end(1)
        subprocess.run(["mount", "-o", "remount,size=100m", str(runs)], check=True)
        training.outlives_snakemake()
        training.ended_as_undisturbed(undisturbed(training))
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)
        shutil.rmtree(kept)


def test_a_machine_without_the_store(training: Training, cluster: Sandbox) -> None:
    store = training.folder / "store"
    for name in ("n2", "n3"):
        cluster.stop_node(name)
        cluster.start_node(name, private=[store])
    training.start("--retries", "0").end(1)
    assert re.search(r"machine n[23] does not see \S+ as n1 does: paths.store must be on a file system", training.log())
    for name in ("n2", "n3"):
        cluster.stop_node(name)
        cluster.start_node(name)


def test_a_job_of_its_own(training: Training, cluster: Sandbox, undisturbed) -> None:
    """torchx's Slurm scheduler from a local rule: Snakemake dies, the job goes on and is found again; Ctrl-C ends it."""
    training.configure(scheduler="slurm")
    workflow = training.start()
    workflow.until_step(5)
    workflow.until(training.started_from)  # the launcher looks into the job's log now and then
    (first,) = {job["id"].split("+")[0] for job in cluster.jobs()}
    cluster.run("scontrol", "suspend", first)  # until the next run has found it
    for process in [*psutil.Process(workflow.process.pid).children(recursive=True), workflow.process]:
        process.kill()
    workflow.process.wait()
    assert re.search(rf"Slurm job {first}\S* suspended train_arm dpo_0", training.unlock())
    workflow = training.start()
    workflow.until(lambda: "found as Slurm job" in training.log())
    cluster.run("scontrol", "resume", first)
    os.killpg(workflow.process.pid, signal.SIGINT)
    workflow.end(1)
    cluster.wait_idle()
    assert len(training.started_from()) == 1
    workflow = training.start()
    workflow.end()
    assert {row["State"] for row in cluster.sacct(first, "State")} == {"COMPLETED"}
    training.ended_as_undisturbed(undisturbed(training))
    rows = manifests.read(training.folder / "logs/timeline.parquet", JobRow)
    mine = [row for row in rows if row.job.split("+")[0] == first]
    assert [(row.rule, row.wildcards, row.state, row.gpus) for row in mine] == 2 * [
        ("train_arm", "arm=dpo, seed=0", "COMPLETED", 1)
    ]
