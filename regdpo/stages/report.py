"""The report stage: manifests, curves and chosen videos in, one self-contained page out."""

from pathlib import Path

from regdpo.config.stage_inputs import ReportStage
from regdpo.core.store import Store
from regdpo.report import contents, gather, page


def write(stage: ReportStage, store: Store, files: gather.Files, out: Path) -> None:
    """Write the page; the same inputs give the same bytes."""
    inputs = gather.gather(stage.ordered(), store, files)
    page.write(inputs, contents.shape(inputs), out)
