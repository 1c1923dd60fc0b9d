"""What all tests share."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny

signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts start what is in their background without it


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    return tiny.world(tmp_path_factory.mktemp("world"))
