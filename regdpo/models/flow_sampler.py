"""The sampler of a flow: the scheduler that the checkpoint names, on the grid that its pipeline asks it for."""

import math
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from regdpo.config.schema import Solver
from regdpo.core.errors import UserError

SCHEDULERS: dict[str, Any] = {
    "UniPCMultistepScheduler": UniPCMultistepScheduler,
    "FlowMatchEulerDiscreteScheduler": FlowMatchEulerDiscreteScheduler,
}
"""Those that ``scheduler/scheduler_config.json`` may name; their steps draw no noise."""
SOLVERS: dict[str, Any] = {"unipc": UniPCMultistepScheduler, "dpm++": DPMSolverMultistepScheduler}
"""Those that may step in the place of the checkpoint's own, with diffusers' defaults: two answers, second order."""
FIRST = 1 - 1e-6
"""The largest sigma of a solver: at 1 the logarithm of the signal's share, in which it steps, is not finite."""


def check(config: dict[str, Any], where: str) -> None:
    """Refuse the scheduler of a checkpoint that is not for a flow.

    Args:
        config: as its ``scheduler_config.json`` has it, with ``_class_name``.

    Raises:
        UserError: it is of another kind, or predicts something else.
    """
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise UserError(f"{where}: scheduler_config.json names {name}, known are {', '.join(SCHEDULERS)}")
    if name == "UniPCMultistepScheduler" and not (
        config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction"
    ):
        raise UserError(
            f"{where}: its scheduler predicts {config.get('prediction_type')}, a flow needs flow_prediction"
        )


def make(
    config: dict[str, Any],
    sigmas: np.ndarray,
    shift: float | None,
    tokens: int,
    device: torch.device,
    solver: Solver = "checkpoint",
) -> Any:
    """The scheduler with its timesteps set; another solver steps on the same sigmas and tells the same timesteps.

    A shift s moves a sigma to ``s sigma / (1 + (s - 1) sigma)``. Each scheduler shifts once what it is given as
    ``sigmas``; Euler's own grid of a number of steps is shifted already and would be once more.

    Args:
        config: as for ``check``. sigmas: of the steps before the shift, falling from 1. shift: in the place of the
            checkpoint's, if not None. tokens: of the video, by which some checkpoints shift. solver: who steps.

    Raises:
        UserError: a scheduler that stretches its grid to an end of its own was asked for a single step.
    """
    own = _own(config, sigmas, shift, tokens, device)
    if solver == "checkpoint" or isinstance(own, SOLVERS[solver]):
        return own
    other: Any = SOLVERS[solver](prediction_type="flow_prediction", use_flow_sigmas=True)
    other.set_timesteps(len(sigmas), device=device)
    other.sigmas, other.timesteps = own.sigmas.cpu().clamp(max=FIRST), own.timesteps
    other.set_begin_index(0)  # timesteps may be alike, and tell no place
    return other


def _own(config: dict[str, Any], sigmas: np.ndarray, shift: float | None, tokens: int, device: torch.device) -> Any:
    """The checkpoint's."""
    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    if config["_class_name"] == "UniPCMultistepScheduler":
        changed = {} if shift is None else {"flow_shift": shift, "use_dynamic_shifting": False}
        unipc: Any = UniPCMultistepScheduler.from_config({**settings, **changed})
        unipc.set_timesteps(sigmas=sigmas, device=device)
        return unipc
    changed = {"stochastic_sampling": False}
    changed |= {} if shift is None else {"shift": shift, "use_dynamic_shifting": False}
    euler: Any = FlowMatchEulerDiscreteScheduler.from_config({**settings, **changed})
    mu = shift_by_length(euler.config, tokens) if euler.config.use_dynamic_shifting else None
    if len(sigmas) == 1 and euler.config.shift_terminal:
        raise UserError("sampling.steps: 1 is too few for this checkpoint's scheduler, which fixes the last step")
    euler.set_timesteps(sigmas=sigmas, mu=mu, device=device)
    return euler


def shift_by_length(config: Any, tokens: int) -> float:
    """``mu`` for a video: a straight line in its tokens; the shift is ``exp(mu)``, or mu itself for ``linear``."""
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
    assert math.isfinite(mu)
    return mu
