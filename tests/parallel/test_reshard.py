"""A checkpoint goes on in another layout, on another number of ranks, as the same training."""

import pytest
import ranks
import tiny

ROUTES = {
    "4 -> 2 -> 8": [(4, {"pair": 2, "tensor": 2}, 2), (2, {"context": 2}, 4), (8, {"pair": 2, "context": 2}, 6)],
    "4 -> 1 -> 2": [(4, {"replicate": 2, "tensor": 2}, 2), (1, {}, 4), (2, {"tensor": 2}, 6)],
    "1": [(1, {}, 6)],
}
TUNINGS = {"full": ("4 -> 2 -> 8", "4 -> 1 -> 2"), "lora": ("4 -> 1 -> 2",)}


@pytest.fixture(scope="module")
def found(world, tmp_path_factory):
    """(route, tuning) -> weights after the same steps on the route and on one rank, and the exported average."""
    folder = tmp_path_factory.mktemp("reshard")
    cases, last = [], {}
    for tuning, names in TUNINGS.items():
        for name in (*names, "1"):
            run = folder / f"{tuning}-{len(last)}"
            run.mkdir()
            for count, parallel, until in ROUTES[name]:
                settings = {"tuning": tuning, "steps": 6, "ema": 0.9, "warmup": 2, "schedule": "cosine"}
                job = tiny.job(world, run, lora={"targets": ["to_q", "to_v"]}, parallel=parallel, **settings)
                cases.append({"ranks": count, "job": job.model_dump(mode="json"), "until": until})
            last[name, tuning] = len(cases) - 1
    answers = ranks.run(cases, folder)
    return {key: answers[index] for key, index in last.items()}


@pytest.mark.parametrize(("tuning", "route"), [(tuning, name) for tuning, names in TUNINGS.items() for name in names])
def test_a_checkpoint_goes_on_elsewhere(found, route, tuning):
    """AdamW divides by the root of the squared gradient, so rounding grows from step to step."""
    difference = ranks.worst(found[route, tuning], found["1", tuning])
    print(f"{route:12} {tuning:5} worst relative difference {difference:.1e}")
    assert difference < 1e-9
