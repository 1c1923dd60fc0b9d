"""Ask tests/parallel/worker.py."""

import json
import os
from pathlib import Path

import forked
import torch

Tensors = dict[str, torch.Tensor]


def run(cases: list[dict], folder: Path) -> list[Tensors]:
    """The answers to cases, in their order; cases of as many ranks one after another share their processes."""
    (folder / "cases.json").write_text(json.dumps(cases))
    worker = forked.CONTEXT.Process(target=work, args=(folder,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0, (folder / "said").read_text()[-4000:]
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(len(cases))]


def work(folder: Path) -> None:
    os.dup2(os.open(folder / "said", os.O_CREAT | os.O_WRONLY), 2)
    import worker

    worker.main(folder)


def worst(found: Tensors, wanted: Tensors) -> float:
    """The worst relative difference over all parameters."""
    assert found.keys() == wanted.keys()
    assert all(tensor.isfinite().all() for tensor in (*found.values(), *wanted.values()))
    largest = max(float(tensor.abs().max()) for tensor in wanted.values())
    assert largest > 0
    return max(float((found[n] - wanted[n]).abs().max() / max(wanted[n].abs().max(), 1e-9 * largest)) for n in wanted)
