"""One dimension of VBench, in VBench's environment, where of regdpo's requirements only torch's are sure to be.

    python -m regdpo.evaluate.vbench_worker JOB RESULTS

JOB is ``Job`` as JSON. RESULTS becomes VBench's list of one entry a video, ``[{video_path, video_results}, ...]``.
Nothing is downloaded: a program that would, and a connection to anywhere, is refused.
"""

import importlib
import json
import os
import socket
import sys
import types
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.runtime.torchvision_stub import torchvision_operators

DOWNLOADERS = frozenset(("wget", "curl", "git", "gdown", "aria2c", "unzip", "hf", "huggingface-cli"))
"""Programs that VBench and what it imports get files with."""
LINKS = {
    "torch/hub/checkpoints/dino_vitbase16_pretrain.pth": "dino_model/dino_vitbase16_pretrain.pth",
    "torch/hub/checkpoints/cotracker2.pth": "cotracker/cotracker2.pth",
    "torch/hub/facebookresearch_co-tracker_main": "cotracker/facebookresearch_co-tracker_main",
    "models": "dreamsim",
    "huggingface": "huggingface",
}
"""Where torch's hub, DreamSim and transformers look, below the job's folder -> where it lies below the weights."""
TRUSTED = "facebookresearch_dino\nfacebookresearch_co-tracker\n"
"""Code of the hub that is run without a question: it is there because somebody fetched it on purpose."""


@dataclass(frozen=True)
class Job:
    """One dimension of some videos, of which all but the weights lies in the working directory."""

    dimension: str
    package: str  # vbench, or vbench2_beta_i2v
    device: str  # as `launch.device`
    info: str  # VBench's list of prompts and their videos
    ratio: str = ""  # folder of VBench-I2V's images
    static: bool = False  # only videos count that stand still, the first few of each prompt
    keep: int = 5
    leaves_out: bool = False  # whether there may be nothing to say of any video


class OfflineError(UserError):
    """Something would have been downloaded."""


def main(job: str, results: str) -> None:
    offline()
    asked = Job(**json.loads(Path(job).read_text(encoding="utf-8")))
    link(Path(os.environ["VBENCH_CACHE_DIR"]))
    torchvision_operators()
    missing_modules()
    from regdpo.models import device

    found = measure(asked, device.pick(asked.device).type)  # by its name, which VBench compares
    Path(results).write_text(json.dumps(found, default=_plain), encoding="utf-8")


def offline() -> None:
    """Refuse what would download, in this process and by another program.

    Raises:
        OfflineError: then, at the place that asked for it.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
            given = arguments[1] if event == "subprocess.Popen" else [arguments[0]]
            command = [given] if isinstance(given, str | bytes | os.PathLike) else list(given)
            if os.path.basename(os.fsdecode(command[0])).partition(" ")[0] in DOWNLOADERS:
                raise OfflineError(f"would have been downloaded: {' '.join(map(os.fsdecode, command))}")
        elif (
            event == "os.system"
            and os.fsdecode(arguments[0]).split()[:1]
            and (os.path.basename(os.fsdecode(arguments[0]).split()[0]) in DOWNLOADERS)
        ):
            raise OfflineError(f"would have been downloaded: {os.fsdecode(arguments[0])}")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            raise OfflineError(f"would have been asked for: {arguments[0]}")
        elif event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
            raise OfflineError(f"would have been asked for: {arguments[1]}")

    sys.addaudithook(refuse)


def link(weights: Path) -> None:
    """Weights where those look who do not look in VBench's folder."""
    for name, target in LINKS.items():
        place = Path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if (weights / target).exists():
            place.symlink_to(weights / target)
    hub = Path("torch/hub")
    hub.mkdir(parents=True, exist_ok=True)
    (hub / "trusted_list").write_text(TRUSTED)


def missing_modules() -> None:
    """Modules that VBench imports and never uses, and that no package has any more: a printing function of numpy 1, a
    drawing class of CoTracker that VBench's package leaves out."""
    for name, attribute in (
        ("numpy.lib.function_base", "disp"),
        ("vbench2_beta_i2v.third_party.cotracker.utils.visualizer", "Visualizer"),
    ):
        with suppress(ImportError):
            importlib.import_module(name)
            continue
        module = types.ModuleType(name)
        setattr(module, attribute, None)
        sys.modules[name] = module


def measure(job: Job, device: str) -> list[dict[str, Any]]:
    """VBench's entries, one a video; of those that do not stand still, where only such count, none."""
    utils = importlib.import_module(f"{job.package}.utils")
    module = importlib.import_module(f"{job.package}.{job.dimension}")
    options = {"resolution": job.ratio} if job.ratio else {}
    models = utils.init_submodules([job.dimension], local=True, read_frame=False, **options)[job.dimension]
    info = keep_static(job, device) if job.static else job.info
    try:
        _, found = getattr(module, f"compute_{job.dimension}")(info, device, models)
    except ZeroDivisionError:
        if not job.leaves_out:
            raise
        found = []  # its mean, over no videos
    return list(found)


def keep_static(job: Job, device: str) -> str:
    """VBench's list, with the first videos of each prompt that stand still."""
    from easydict import EasyDict
    from tqdm import tqdm

    static_filter = importlib.import_module("vbench.cli.static_filter")
    vars(static_filter)["DEVICE"] = device
    model = os.path.join(os.environ["VBENCH_CACHE_DIR"], "raft_model/models/raft-things.pth")
    options = EasyDict(model=model, small=False, mixed_precision=False, alternate_corr=False)
    judge = static_filter.StaticFilter(options, device)
    prompts = json.loads(Path(job.info).read_text(encoding="utf-8"))
    for prompt in tqdm(prompts, desc="which stand still"):
        still: list[str] = []
        for video in prompt["video_list"]:
            if len(still) < job.keep and judge.infer(video):
                still.append(video)
        prompt["video_list"] = still
    path = Path("static.json")
    path.write_text(json.dumps(prompts), encoding="utf-8")
    return str(path)


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    return value.item()


if __name__ == "__main__":
    errors.run(lambda: main(*sys.argv[1:]))
