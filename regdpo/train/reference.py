"""The reference: the policy before training, or one that follows it. All ways of asking it give the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regdpo.core.temporaries import atomic
from regdpo.train.build import adapters


@contextmanager
def without_adapters(policy: nn.Module) -> Iterator[nn.Module]:
    """The policy with its adapters switched off, by their own flag.

    peft's ``disable_adapters`` would also touch ``requires_grad``, from which FSDP2 takes its gradient dtype at the
    first forward pass.
    """
    layers = adapters(policy)
    assert layers, "a fully tuned policy needs a copy of its start"
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield policy
    finally:
        for layer in layers:
            layer._disable_adapters = False


@torch.no_grad()
def follow(copy: nn.Module, policy: nn.Module, decay: float) -> None:
    """Move the copy's weights towards the policy's: ``copy = decay * copy + (1 - decay) * policy``."""
    moved = dict(policy.named_parameters())
    for name, parameter in copy.named_parameters():
        if moved[name].requires_grad:
            parameter.lerp_(moved[name].to(parameter), 1 - decay)


class Cache:
    """Errors of the reference on every pair of every step, asked once before step 1, when the policy still is the
    reference. The same forward passes as asking each time, without the memory of a copy. What is known is kept in the
    run folder as it comes, so a resumed run goes on asking where it was."""

    def __init__(self, run: Path, steps: int):
        self.path, self.steps = run / "reference.safetensors", steps
        self.errors = torch.zeros(0)  # (steps that are known, pairs of a step, 2[, F]), winner and loser
        self.validation = torch.zeros(0)
        if self.path.exists():
            tensors = load_file(self.path)
            self.errors, self.validation = tensors["errors"], tensors["validation"]

    @property
    def complete(self) -> bool:
        return len(self.errors) == self.steps

    def extend(
        self, measured: list[tuple[list[int], list[int], Tensor]], batch: int, validation: Tensor | None
    ) -> None:
        """Add the errors of the next steps, on all ranks.

        Args:
            measured: of each step, the positions in its batch and the halves (0, 1) that this rank answers for, and
                their errors (positions, halves), or (positions, halves, F).
            validation: the reference's errors on the validation pairs, at the first call.
        """
        own = measured[0][2].new_zeros(len(measured), batch, 2, *measured[0][2].shape[2:])
        seen = torch.zeros_like(own)
        for step, (positions, halves, errors) in enumerate(measured):
            where = (step, torch.tensor(positions)[:, None], torch.tensor(halves)[None])
            own[where], seen[where] = errors, 1
        dist.all_reduce(own)
        dist.all_reduce(seen)  # several ranks may answer for the same
        known = (own / seen.clamp_min(1)).cpu()  # nobody answers for the losers of labelled samples
        self.errors = torch.cat([self.errors, known]) if len(self.errors) else known
        if validation is not None:
            self.validation = validation.cpu()
        if dist.get_rank() == 0:
            with atomic(self.path) as temporary:
                save_file({"errors": self.errors, "validation": self.validation}, temporary)
        dist.barrier()
