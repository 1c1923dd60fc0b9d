"""The report stage: manifests, curves and chosen videos in, one self-contained page out."""

from pathlib import Path

from regdpo.config.stage_inputs import ReportStage
from regdpo.core.store import Store
from regdpo.report import gather, page


def write(stage: ReportStage, store: Store, files: gather.Files, out: Path) -> None:
    """Write the page; the same inputs give the same bytes."""
    page.write(gather.gather(stage.ordered(), store, files), out)
