"""What a training of more steps takes over; tests/parallel/test_more_steps.py shows that it ends with the same bytes."""

import json
from pathlib import Path

import pytest

from regdpo.launch.earlier import take_over
from regdpo.runs.job import Job
from regdpo.runtime.lease import Lease

STAGE = {"objective": "sft", "seed": 3}
REF = {"family": "wan", "task": "t2v", "where": "hub", "path": "a", "text_length": 8, "digest": "d"}


def job(store: Path, name: str, steps: int, but_for_steps: str = "same", **settings: object) -> Job:
    return Job.model_validate(
        {
            "stage": {**STAGE, "settings": {"steps": steps, **settings}},
            "model": {"name": "base", "ref": REF, "digest": "d"},
            "latents": "",
            "store": str(store),
            "run": str(store / "runs/ab" / name),
            "device": "cpu",
            "parallel": {},
            "micro_batch": 1,
            "checkpoint_every": 2,
            "eval_every": 2,
            "keep": 2,
            "but_for_steps": but_for_steps,
        }
    )


def left(made: Job, steps: tuple[int, ...], errors: dict[int, float | None], best: int = 0) -> Path:
    """As a training leaves its run folder."""
    run = Path(made.run)
    for name in [f"step_{step:07d}" for step in steps] + [f"best_{best:07d}"] * bool(best):
        (run / "checkpoints" / name).mkdir(parents=True)
        (run / "checkpoints" / name / "__0_0.distcp").write_text(name)
    (run / "job.json").write_text(made.model_dump_json())
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(1, max(steps) + 1)))
    rows = [{"step": step, "error": error} for step, error in errors.items()]
    (run / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "er')
    (run / "tensorboard").mkdir()
    (run / "reference.safetensors").write_text(f"{made.stage.settings.steps} steps")
    return run


def taken(made: Job) -> tuple[list[str], str]:
    """The checkpoints that a training starts with, and what was said."""
    said: list[str] = []
    take_over(made, said.append)
    return sorted(path.name for path in Path(made.run).glob("checkpoints/*")), " ".join(said)


def test_the_most_advanced_checkpoint_below_is_taken(tmp_path):
    left(job(tmp_path, "few", 3), (2, 3), {2: 0.5, 3: 0.4})
    more = left(job(tmp_path, "more", 5), (4, 5), {2: 0.5, 4: 0.4, 5: 0.3})
    left(job(tmp_path, "other", 7, "other beta"), (6, 7), {})
    (tmp_path / "runs/ab/not_ours").mkdir()
    (tmp_path / "runs/ab/not_ours/job.json").write_text("[]")
    made = job(tmp_path, "new", 9)
    checkpoints, said = taken(made)
    assert checkpoints == ["step_0000005"]
    assert said == (
        "a training of 5 steps, that differs in train.settings.steps alone, had come to step 5: going on from there"
    )
    run = Path(made.run)
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert [json.loads(line)["step"] for line in (run / "eval.jsonl").read_text().splitlines()] == [2, 4], "5 is extra"
    assert (run / "tensorboard").is_dir()
    assert (run / "reference.safetensors").read_text() == "5 steps"
    file = "checkpoints/step_0000005/__0_0.distcp"
    assert (run / file).samefile(more / file)
    assert taken(made) == (checkpoints, ""), "it has begun"


def test_fewer_steps_begin_with_an_earlier_checkpoint(tmp_path):
    left(job(tmp_path, "stopped", 90), (4, 6), {2: 0.5, 4: 0.4, 6: 0.3})
    assert taken(job(tmp_path, "new", 6))[0] == ["step_0000004"]
    assert not (tmp_path / "runs/ab/new/reference.safetensors").exists(), "it has errors of 90 steps"
    assert taken(job(tmp_path, "less", 4)) == ([], "")


def test_a_rate_that_followed_the_steps_starts_anew(tmp_path):
    left(job(tmp_path, "few", 4, schedule="cosine"), (2, 4), {})
    checkpoints, said = taken(job(tmp_path, "new", 9, schedule="cosine"))
    assert not checkpoints
    assert said == (
        "a training of 4 steps, that differs in train.settings.steps alone, cannot be gone on with, since its learning "
        "rate followed their number (schedule cosine): starting anew"
    )


def test_what_somebody_trains_in_is_left_alone(tmp_path):
    lease = Lease.acquire(left(job(tmp_path, "few", 4), (2, 4), {}))
    assert taken(job(tmp_path, "new", 9)) == ([], "")
    lease.release()
    assert taken(job(tmp_path, "new", 9))[0] == ["step_0000004"]


@pytest.mark.parametrize(
    ("errors", "kept", "expected"),
    [
        ({2: 0.4, 4: 0.5, 5: 0.6}, 2, ["best_0000002", "step_0000005"]),
        ({2: 0.4, 4: 0.4, 5: None}, 2, ["best_0000002", "step_0000005"]),
        ({2: 0.5, 4: 0.4, 5: 0.3}, 5, []),  # those of step 4 were dropped for an evaluation that the new one has not
    ],
)
def test_the_best_weights_are_those_of_a_training_from_the_start(tmp_path, errors, kept, expected):
    left(job(tmp_path, "few", 5, export="best"), (4, 5), errors, kept)
    checkpoints, said = taken(job(tmp_path, "new", 9, export="best"))
    assert checkpoints == expected
    assert (
        "the weights of step 4, the best that one of 9 steps would have evaluated so far, were not kept" in said
    ) == (not expected)
