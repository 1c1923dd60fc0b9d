"""The captioners, each declared once: what it is, what it needs, and the function that answers a shard's clips.

Configuration, rules, checks and documents derive from ``CAPTIONERS``. A new captioner is a function and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

CAPTIONERS_ARE = "regdpo.data.captioners"


@dataclass(frozen=True)
class Captioner:
    """A source of captions."""

    function: str
    """``module:name``, which takes a ``captioners.answers.Task`` and gives one row a clip, in their order."""
    description: str
    """What it is, for the list of the configuration's words."""
    needs: tuple[str, ...] = ()
    """Keys of ``captions`` that have to be given."""
    packages: tuple[str, ...] = ()
    """Whose locked versions shape what it says."""
    gpu: bool = False
    environment: bool = False
    """Whether it runs by the interpreter that ``captions.python`` names."""
    model: bool = False
    """Whether it is a model, whose job is worth a node of the cluster; else files are read where the workflow runs."""

    @property
    def module(self) -> str:
        """Its code."""
        return self.function.partition(":")[0]

    def answer(self) -> Callable[[Any], list[Any]]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[[Any], list[Any]] = getattr(import_module(module), name)
        return found


CAPTIONERS: dict[str, Captioner] = {
    "sidecar": Captioner(f"{CAPTIONERS_ARE}.text_files:read", "text files beside the videos"),
    "table": Captioner(f"{CAPTIONERS_ARE}.listed:read", "the column `caption` of `videos.table`"),
    "transformers": Captioner(
        f"{CAPTIONERS_ARE}.vision:answer",
        "a vision-language model that transformers runs here (Qwen3-VL, Qwen2.5-VL, SmolVLM2)",
        needs=("model",),
        packages=("transformers", "torch", "av"),
        gpu=True,
        environment=True,
        model=True,
    ),
    "endpoint": Captioner(
        f"{CAPTIONERS_ARE}.endpoint:answer",
        "an OpenAI-compatible server (vLLM, SGLang)",
        needs=("model", "server"),
        packages=("opencv-python-headless", "av"),
        model=True,
    ),
}
"""Word of ``captions.source`` -> declaration."""
