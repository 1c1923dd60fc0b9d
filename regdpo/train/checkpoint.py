"""Checkpoints of a run folder, written in the background: under a temporary name, renamed when complete. The last few
and the best are kept.

Noise, timesteps, order and learning rate derive from (seed, step, pair), and the generators of every rank are seeded
anew each step: so the step is all there is to save of them. A checkpoint is loaded on any number of ranks.
"""

import pickle
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from regdpo.core.errors import UserError
from regdpo.train.checkpoint_files import DISTRUST, Damaged, Planner, Reader, Writer, verify

OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """Saves and loads on all ranks together.

    Args:
        averages: what belongs to a checkpoint beside model and optimiser: sharded tensors by name, loaded in place.
    """

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        averages: dict[str, dict[str, Tensor]],
        keep: int,
    ):
        self.folder, self.model, self.optimizer, self.keep = run / "checkpoints", model, optimizer, keep
        self.averages = averages
        self.group = dist.new_group(backend="gloo")  # the background thread's own
        self.pending: tuple[Future[Any], Path, Path] | None = None

    def save(self, step: int) -> None:
        """Copy the state and go on; it is on disk after the next ``finish``."""
        weights, state = get_state_dict(self.model, self.optimizer, options=OPTIONS)
        self._write({"model": weights, "optimizer": state, **self.averages}, f"step_{step:07d}")

    def save_best(self, step: int) -> None:
        """The weights alone, as they were evaluated."""
        self._write({"model": get_model_state_dict(self.model, options=OPTIONS)}, f"best_{step:07d}")

    def finish(self) -> None:
        """Wait for what is being written, give it its name, and drop what it replaces.

        Raises:
            Exception: it could not be written, a full disk above all; what was there before is untouched.
        """
        if self.pending is None:
            return
        future, temporary, final = self.pending
        self.pending = None
        try:
            future.result()
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if dist.get_rank() == 0:  # its result is there when all ranks have written
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            self._drop()
        dist.barrier()

    def load(self) -> int:
        """Load the last complete checkpoint; its step, or 0 if there is none. One that was damaged is put aside, and
        the one before it taken. A best one beyond it is dropped, since the run comes by again, and so is what a killed
        start has left unfinished.

        Raises:
            UserError: it is none of ours.
        """
        while step := self._last("step"):
            if not (damage := self._damage(folder := self.folder / f"step_{step:07d}")):
                break
            if dist.get_rank() == 0:
                aside = folder.with_name(f"damaged_{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                print(f"{damage}; {folder.name} is put aside, the one before it is taken", file=sys.stderr, flush=True)
            dist.barrier()
        if dist.get_rank() == 0:
            beyond = [best for best in self.folder.glob("best_*") if _step(best) > step]
            for left in (*beyond, *self.folder.glob(".*")):
                shutil.rmtree(left)
        if not step:
            return 0
        weights, state = get_state_dict(self.model, self.optimizer, options=OPTIONS)
        self._read({"model": weights, "optimizer": state, **self.averages}, folder)
        set_state_dict(self.model, self.optimizer, model_state_dict=weights, optim_state_dict=state, options=OPTIONS)
        return step

    def load_best(self) -> int:
        """Load the weights of the best evaluation; its step, or 0 if there was none.

        Raises:
            UserError: they were damaged, or are none of ours.
        """
        step = self._last("best")
        if not step:
            return 0
        folder = self.folder / f"best_{step:07d}"
        if damage := self._damage(folder):
            raise UserError(f"{damage}; remove {self.folder.parent} to train again, or set train.settings.export: last")
        weights = get_model_state_dict(self.model, options=OPTIONS)
        self._read({"model": weights}, folder)
        set_model_state_dict(self.model, weights, options=OPTIONS)
        return step

    def _damage(self, folder: Path) -> str:
        """What is wrong with a checkpoint's files, each looked at by one rank; empty if nothing.

        Raises:
            UserError: it is none of ours.
        """
        rank, ranks = dist.get_rank(), dist.get_world_size()
        damage = foreign = ""
        try:
            verify(folder, rank, ranks)
            if rank == 0:
                Reader(folder).read_metadata()
        except Damaged as error:
            damage = str(error)
        except UserError as error:
            foreign = str(error)
        shared = [("", "")] * ranks
        dist.all_gather_object(shared, (damage, foreign))
        damage, foreign = (next(filter(None, lines), "") for lines in zip(*shared, strict=True))
        if foreign and not damage:
            raise UserError(foreign)
        return damage

    def _read(self, state: dict[str, Any], folder: Path) -> None:
        try:
            dcp.load(state, storage_reader=Reader(folder), planner=Planner())
        except CheckpointException as error:
            if any(isinstance(failure, pickle.UnpicklingError) for failure, _ in error.failures.values()):
                raise UserError(f"{folder}: holds more than a training of ours writes; {DISTRUST}") from None
            raise

    def _last(self, kind: str) -> int:
        """The step of the last complete one, as the first rank sees it; 0 if there is none."""
        shared = [max(map(_step, self.folder.glob(f"{kind}_*")), default=0) if dist.get_rank() == 0 else 0]
        dist.broadcast_object_list(shared, 0)
        return shared[0]

    def _drop(self) -> None:
        """What is no longer needed. A best one goes when a better one cannot be lost any more to a kill."""
        steps, bests = sorted(self.folder.glob("step_*")), sorted(self.folder.glob("best_*"))
        safe = [best for best in bests if steps and _step(best) <= _step(steps[-1])]
        for old in (*steps[: -self.keep], *safe[:-1]):
            shutil.rmtree(old)

    def _write(self, state: dict[str, Any], name: str) -> None:
        self.finish()
        temporary = self.folder / f".{name}"
        if dist.get_rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        stager = DefaultStager(StagingOptions(False, False, False, False))  # what torch takes where none is named
        future = dcp.async_save(state, storage_writer=Writer(temporary), process_group=self.group, async_stager=stager)
        assert isinstance(future, Future)
        future.add_done_callback(lambda _: stager.close())
        self.pending = future, temporary, self.folder / name


def _step(folder: Path) -> int:
    return int(folder.name.partition("_")[2])


def complete(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step_*"))
