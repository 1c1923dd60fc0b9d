"""What autoencoders gave back of held-out clips, as the stage of its totals wrote it."""

from collections import defaultdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from regdpo.core.errors import UserError
from regdpo.core.temporaries import atomic
from regdpo.evaluate.measures import Metric
from regdpo.evaluate.stats import Interval
from regdpo.report.parts import part


@part
class Lost:
    """A metric of a setting."""

    mean: Interval | None
    """Over clips; null: it is missing."""
    missing: str
    """Why there is no value, or not of all clips."""


@part
class Setting:
    """An autoencoder at one size of clips."""

    model: str
    """``base``, or the name of a generator."""
    resolution: int
    """Shorter side that was asked for, in pixels."""
    frames: int
    """Of a clip, that were asked for."""
    sizes: list[str]
    """Width x height of what was encoded; empty: nothing was."""
    clips: int
    """That were asked for."""
    cells: dict[str, Lost]
    """Metric -> its value."""

    @property
    def title(self) -> str:
        return f"{self.model}, {self.resolution}, {self.frames} frames"


@part
class Reconstruction:
    """All of it."""

    metrics: dict[str, Metric]
    """How each is read."""
    settings: list[Setting]
    """By autoencoder, resolution and frames."""

    @property
    def notes(self) -> list[str]:
        """Why values or intervals are missing, each reason once: with the settings, unless it is of all."""
        titles: dict[tuple[str, str], list[str]] = defaultdict(list)
        for it in self.settings:
            labels: dict[str, list[str]] = defaultdict(list)
            for key, cell in it.cells.items():
                if cell.missing:
                    labels[cell.missing].append(self.metrics[key].label)
                elif cell.mean and cell.mean.why:
                    labels[f"no interval: {cell.mean.why}"].append(self.metrics[key].label)
            for reason, those in labels.items():
                titles[", ".join(those), reason].append(it.title)
        return [
            f"{labels}: {reason}{'' if len(those) == len(self.settings) else '; '.join(['', *those])}"
            for (labels, reason), those in titles.items()
        ]


_RECONSTRUCTION = TypeAdapter(Reconstruction)


def write(found: Reconstruction, path: str | Path) -> None:
    """As JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(_RECONSTRUCTION.dump_json(found, indent=1) + b"\n")


def read(path: Path) -> Reconstruction:
    """What ``write`` wrote.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _RECONSTRUCTION.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `snakemake vae` writes it") from None
    except ValidationError:
        raise UserError(f"{path}: holds no reconstruction; make it anew with `snakemake vae`") from None
