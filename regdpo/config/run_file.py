"""The file by which a run of the workflow tells its stages all that they are to know: what each reads of the
configuration, where the store is, and what the controlling process found.

Jobs find it by one environment variable, ``RUN``. Text of any length and with any character gets there as it was
written: neither Snakemake nor a shell sees it. Three variables remain beside it, for the shell that starts a stage:
``REGDPO_SCRIPTS``, the folder of the scripts (conda's post-deploy scripts read it too), ``REGDPO_VISION``, the
interpreter that has what vision-language models need, and ``REGDPO_CAPTIONER``, the captioner's; and within a training
what ranks need to meet (regdpo/runs/rendezvous.py).
"""

import json
import os
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from regdpo.core import damage
from regdpo.core.errors import UserError
from regdpo.core.section import Section
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic

RUN = "REGDPO_RUN"
SUFFIX = ".run"
KEPT = 30 * 24 * 3600.0
"""Seconds that the files of earlier runs are kept, whose jobs may still wait in a queue."""


class RunFile(Section):
    """What a run of the workflow tells its stages."""

    parts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What each stage reads of the configuration, by ``stage_inputs.part_name``."""
    store: str = "store"
    store_identity: str = ""
    results: str = ""
    """The folder of the results, where what is found damaged is told to the rules (``core.damage``)."""
    environment: str = ""
    """What the controlling process runs on (``core.environment``)."""
    device: str = "auto"
    portable: bool = False
    """Whether numbers made on the CPU are to be those of other machines too (``core.portable``)."""
    vbench: str = ".venv-vbench/bin/python"
    """Interpreter of VBench's environment."""
    vbench_weights: str = "weights/vbench"
    """Folder of what its dimensions need."""
    images: str = ""
    i2v_prompts: str = ""
    """As in ``scores.vbench``."""
    digests: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Of the rules' inputs that are no files of the workflow, so that jobs need not find them out once more."""
    codes: dict[str, str] = Field(default_factory=dict)
    """Digests of the rules' code (``workflow.params.Params.code``), for the same reason."""

    def write(self, path: Path) -> None:
        """Write it, and remove those of runs that were long ago."""
        with atomic(path) as temporary:
            temporary.write_text(self.model_dump_json(), encoding="utf-8")
        for other in path.parent.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                if other.stat().st_mtime < time.time() - KEPT:
                    other.unlink()

    @classmethod
    def read(cls, path: str | Path) -> "RunFile":
        """Raises UserError if it cannot be read or was not written by ``write``."""
        try:
            return cls.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); Snakemake writes it when a run starts"
            ) from None
        except (ValueError, RecursionError, ValidationError):
            raise UserError(f"{path}: is not what a run writes for its stages; start Snakemake again") from None


def current() -> RunFile:
    """That of the workflow's run which this process works for; one of defaults, where a stage is run by hand."""
    return _read(os.environ[RUN]) if RUN in os.environ else RunFile()


@cache
def _read(path: str) -> RunFile:
    return RunFile.read(path)


def open_store(root: str) -> Store:
    """The store. Where it is the workflow's, this machine has to see the same one as the controlling process.

    Raises:
        UserError: it does not.
    """
    run = current()
    mine = Path(root).resolve() == Path(run.store).resolve()
    return heeding(Store(root, run.store_identity if mine else ""))


def heeding(store: Store) -> Store:
    """The store, of which the workflow's run is told what is missing or damaged."""
    run = current() if Path(os.environ.get(RUN, "")).is_file() else RunFile()
    if run.results and store.root.resolve() == Path(run.store).resolve():
        store.tell = partial(damage.tell, Path(run.results), store)
    return store
