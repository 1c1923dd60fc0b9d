"""The report stage: manifests, curves and chosen videos in; one self-contained page and its content as JSON out."""

from pathlib import Path

from regdpo.config.stage_inputs import ReportStage
from regdpo.core.store import Store
from regdpo.report import contents, document, gather, page


def write(
    stage: ReportStage, store: Store, files: gather.Files, codes: dict[str, str], out: Path, content: Path
) -> None:
    """Write the page, and the content that it is drawn from; the same inputs give the same bytes.

    Args:
        codes: digests of the stages' code, by what they are of. out: the page. content: the JSON.
    """
    found = contents.shape(gather.gather(stage.ordered(), store, files), codes)
    document.write(found, content)
    page.write(found, store, out)
