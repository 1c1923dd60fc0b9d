"""Two runs of one configuration are compared byte for byte."""

import importlib.util
import shutil
from pathlib import Path

from regdpo.core import manifests
from regdpo.core.rows import NegativeRow

SCRIPT = Path(__file__).parents[2] / "scripts/reproduce.py"


def script():
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_differs_between_two_runs_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reproduce, first, second = script(), Path("first"), Path("second")
    row = {"negative_id": "a.n0", "clip_id": "a", "generator": "base", "family": "wan", "model": "m", "caption": "x"}
    row |= {"task": "t2v", "seed": 1, "steps": 1, "guidance": 1.0, "shift": None, "frames": 5, "fps": 25.0}
    row |= {"width": 32, "height": 32, "path": "negatives/ab/ab.mp4", "sha256": "0"}
    manifests.write(first / "results/negatives/base/0.parquet", [NegativeRow(**row)], NegativeRow)
    (first / "results/report").mkdir()
    (first / "results/report/timeline.html").write_text("one time")
    (first / "store/negatives/ab").mkdir(parents=True)
    (first / "store/negatives/ab/ab.mp4").write_bytes(b"video")
    shutil.copytree(first, second)
    (second / "results/report/timeline.html").write_text("another time")
    (second / "store/negatives/ab/other.mp4").write_bytes(b"what no manifest names")
    found = reproduce.contents(first), reproduce.contents(second)
    assert reproduce.different(*found) == []
    assert [line.split() for line in reproduce.table(*found)[1:]] == [
        ["results/negatives", "1", "1"],
        ["store/negatives", "1", "1"],
    ]
    (second / "store/negatives/ab/ab.mp4").write_bytes(b"vide0")
    (second / "results/scores.parquet").write_bytes(b"")
    assert reproduce.different(reproduce.contents(first), reproduce.contents(second)) == [
        "results/scores.parquet: second alone has it",
        "store/negatives/ab/ab.mp4: differs",
    ]
