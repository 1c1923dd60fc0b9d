"""What makes sampling cheaper, a row each, as far as passes of the denoiser tell."""

from typing import Any

from regdpo.config.schema import Sampling
from regdpo.models.registry import CACHES, FAMILIES


def choices(sampling: Sampling, family: str) -> dict[str, Sampling]:
    """What to write -> the sampling with it: each key that is off now, alone, of those that the family can."""
    declared, steps = FAMILIES[family], max(1, sampling.steps // 2)
    changed: dict[str, dict[str, Any]] = {}
    if sampling.guided and sampling.guidance_interval == (0, 1):
        changed["guidance_interval: [0, 0.5]"] = {"guidance_interval": (0.0, 0.5)}
    changed |= {
        f"steps: {steps}, solver: {solver}": {"steps": steps, "solver": solver}
        for solver in declared.solvers
        if solver != sampling.solver
    }
    if sampling.cache.kind == "off":
        changed |= {f"cache: {{kind: {kind}}}": {"cache": {"kind": kind}} for kind in CACHES if kind in declared.caches}
    if not sampling.compile and declared.compiles:
        changed["compile: true"] = {"compile": True}
    values = sampling.model_dump()
    return {name: Sampling.model_validate({**values, **change}) for name, change in changed.items()}


def table(sampling: Sampling, family: str, embedded: bool, pass_hours: float) -> str:
    """Markdown: passes of a video and GPU-hours of all, blank where only a measurement tells.

    Args:
        embedded: the denoiser is given the guidance scale. pass_hours: GPU-hours of one pass over all videos.
    """
    lines = ["| `negatives.sampling` | passes a video | GPU-hours | saved |", "|---|---:|---:|---:|"]
    now = sampling.passes(embedded)
    for name, it in {"as configured": sampling, **choices(sampling, family)}.items():
        if (embedded and "guidance_interval" in name) or (it.guided and not embedded and "pyramid" in name):
            continue
        passes = it.passes(embedded)
        counted = it.counted and not (it.compile and not sampling.compile)
        told = f"{passes} | {passes * pass_hours:,.0f} | {1 - passes / now:.0%}" if counted else " |  | "
        lines.append(f"| {name if it is sampling else f'`{name}`'} | {told} |")
    return "\n".join(lines)
