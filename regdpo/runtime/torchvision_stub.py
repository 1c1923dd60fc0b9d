"""torchvision beside a torch of another build.

torchvision from the package registry is built for a CUDA torch. Beside a CPU torch its compiled operators do not
load, and importing it fails with "operator torchvision::nms does not exist", although nothing here ever calls one.
transformers' video processors and VBench only need the import.
"""

import importlib
import sys

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_keep_alive: list[object] = []


def torchvision_operators() -> None:
    """Make ``import torchvision`` work: where its operators are missing, declare their names. Calling one still fails.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(operator + SIGNATURE)
        _keep_alive.append(library)
        importlib.import_module("torchvision")
