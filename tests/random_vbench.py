"""Small random weights in the places of VBench's, made in VBench's environment: what is computed with them is no score.

.venv-vbench/bin/python tests/random_vbench.py FOLDER NAME...
"""

import sys
from pathlib import Path

import torch

from regdpo.evaluate.suites import WEIGHTS
from regdpo.evaluate.vbench_weights import RANDOM
from regdpo.runtime.torchvision_stub import torchvision_operators

HUBCONF = """
import torch

def dino_vitb16(pretrained=True, **kwargs):
    state = torch.hub.load_state_dict_from_url("https://no.where/dino_vitbase16_pretrain.pth")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model.load_state_dict(state)
    return model
"""
"""In the place of DINO's code: a convolution, whose weights are where the real one has its own."""


class Clip(torch.nn.Module):
    """What OpenAI's archives hold, as far as it is looked at: the state."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        for name, value in model.state_dict().items():
            module = self
            *folders, last = name.split(".")
            for folder in folders:
                if not hasattr(module, folder):
                    module.add_module(folder, torch.nn.Module())
                module = getattr(module, folder)
            module.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def clip(path: Path, width: int) -> None:
    from clip.model import CLIP

    model = CLIP(width, 224, 1, 64, 32, 77, 49408, 64, 1, 1)
    torch.jit.script(Clip(model)).save(str(path))


def dino_code(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "hubconf.py").write_text(HUBCONF)


def amt(path: Path) -> None:
    import vbench
    from omegaconf import OmegaConf
    from vbench.third_party.amt.utils.build_utils import build_from_cfg

    settings = Path(vbench.__file__).with_name("third_party") / "amt/cfgs/AMT-S.yaml"
    torch.save({"state_dict": build_from_cfg(OmegaConf.load(settings).network).state_dict()}, path)


def raft(path: Path) -> None:
    from easydict import EasyDict
    from vbench.third_party.RAFT.core.raft import RAFT

    model = RAFT(EasyDict(small=False, mixed_precision=False, alternate_corr=False))
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, path)


def musiq(path: Path) -> None:
    from pyiqa.archs.musiq_arch import MUSIQ

    torch.save(MUSIQ(pretrained=False, num_class=1).state_dict(), path)


def convolution(path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16)).state_dict(), path)


MAKERS = {
    "clip_b32": lambda path: clip(path, 512),
    "clip_l14": lambda path: clip(path, 768),
    "aesthetic": lambda path: torch.save(torch.nn.Linear(768, 1).state_dict(), path),
    "dino_code": dino_code,
    "dino": convolution,
    "amt": amt,
    "raft": raft,
    "musiq": musiq,
}


def main(folder: str, *names: str) -> None:
    torchvision_operators()
    torch.manual_seed(0)
    for name in names:
        path = Path(folder) / WEIGHTS[name].path
        path.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name](path)
    (Path(folder) / RANDOM).write_text("random numbers, for tests\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
