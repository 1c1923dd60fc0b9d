"""What all tests share."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before torch is imported: what it computes here is so small that a second thread only waits for the first, and does so busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import tiny

if TYPE_CHECKING:
    import report_inputs

    from regdpo.report import gather

signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts start what is in their background without it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden anew, or this machine into it")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> "report_inputs.Made":
    """What a report is made from."""
    import report_inputs  # here: it loads what decodes videos

    return report_inputs.make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def inputs(made: "report_inputs.Made") -> "gather.Inputs":
    """It, read."""
    from regdpo.report import gather

    return gather.gather(made.values, made.store, made.files)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    return tiny.world(tmp_path_factory.mktemp("world"))
