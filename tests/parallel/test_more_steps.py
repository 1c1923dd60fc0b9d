"""A training that goes on from one of fewer steps ends with the bytes of one that did all of them."""

import json
from pathlib import Path

import forked
import tiny

from regdpo.core.digests import folder_digest
from regdpo.launch.options import LaunchOptions

SETTINGS = {"objective": "dpo", "parallel": {"reference": "cached"}, "ema": 0.9, "warmup": 7, "export": "best"}
MEASURED = ("seconds", "tokens_per_s", "peak_memory_bytes")


def rows(run: Path, name: str) -> list[dict]:
    """Of a log, without what a clock or a meter tells."""
    found = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in found]


def test_it_ends_with_the_same_bytes(light, tmp_path):
    """A cached reference is asked about more steps, the average and the warm-up go on, the extra evaluation is gone."""

    def trained(run: Path, steps: int) -> Path:
        job = tiny.job(light, run, steps=steps, **SETTINGS).model_copy(update={"but_for_steps": "the same"})
        forked.train(job, LaunchOptions(processes=1), forked.LIGHT)
        return run

    runs = light.store.root / "runs" / "of_this_test"
    whole = trained(tmp_path / "elsewhere", 11)
    few = trained(runs / "few", 5)
    assert [row["step"] for row in rows(few, "eval")] == [2, 4, 5]
    assert min(rows(few, "eval"), key=lambda row: row["error"])["step"] < 5, "the best is the extra one"
    more = trained(runs / "more", 11)
    assert "had come to step 5: going on from there" in (more / "log.txt").read_text()
    assert folder_digest(more / "export") == folder_digest(whole / "export")
    assert rows(more, "metrics") == rows(whole, "metrics")
    assert rows(more, "eval") == rows(whole, "eval")
    assert [row["step"] for row in rows(more, "eval")] == [2, 4, 6, 8, 10, 11]
