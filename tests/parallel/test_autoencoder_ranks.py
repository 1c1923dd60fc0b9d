"""The training of an autoencoder on one rank and on two: the same gradients; and killed, it ends with the same bytes."""

import json
import signal
import time
from pathlib import Path

import forked
import psutil
import pytest
import ranks
import tiny_autoencoder

from regdpo.core.digests import folder_digest
from regdpo.launch.options import LaunchOptions
from regdpo.models.spec import ModelFile

TOLERANCE = 1e-9
CRITIC = {"loss": {"mse": 0.5, "gan": 0.5, "gan_begins": 0.5}}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> tiny_autoencoder.Footage:
    return tiny_autoencoder.footage(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return tiny_autoencoder.model(tmp_path_factory.mktemp("wan"), "wan")


def test_two_ranks_are_one(footage, model, tmp_path):
    """In float64, gradients of autoencoder and critic in every step, and the weights in the end. Batches of six out of
    four clips have some twice, and crops are drawn."""
    jobs = [
        tiny_autoencoder.job(
            footage, model, tmp_path / str(count), steps=3, batch=6, windows=[2], crop=8, **CRITIC
        ).model_dump()
        for count in (1, 2)
    ]
    one, two = ranks.run(
        [{"ranks": count, "autoencoder": it} for count, it in zip((1, 2), jobs, strict=True)], tmp_path
    )
    assert {name.partition(" ")[0] for name in one} == {"0", "1", "2", "weights"}
    assert sum(name.startswith("1 critic.") for name in one) > 0 == sum(name.startswith("0 critic.") for name in one)
    difference = ranks.worst(two, one)
    print(f"\nan autoencoder on two ranks {difference:.1e}")
    assert difference < TOLERANCE


def test_a_killed_rank_goes_on_to_the_same_bytes(footage, model, tmp_path):
    settings = {"steps": 6, "windows": [1], "ema": 0.5, **CRITIC}
    whole, killed = (tiny_autoencoder.job(footage, model, tmp_path / name, **settings) for name in ("whole", "killed"))
    options = LaunchOptions(processes=2)
    forked.train(whole, options)
    launcher = forked.Launcher(killed, options)
    run = Path(killed.run)
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step_*")):
        assert launcher.poll() is None, launcher.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ranks_of = [it for it in psutil.Process(launcher.pid).children(recursive=True) if not it.children()]
    ranks_of[-1].send_signal(signal.SIGKILL)
    launcher.wait(60)
    assert launcher.returncode == 2
    assert "SIGKILL" in launcher.stderr.read()
    assert not (run / "export").exists(), "the kill came too late to test anything"
    forked.train(killed, options)
    rows = [
        [json.loads(line) for line in (Path(it.run) / "metrics.jsonl").read_text().splitlines()]
        for it in (whole, killed)
    ]
    said = [[(row["step"], row["loss"], row.get("critic")) for row in of] for of in rows]
    assert said[0] == said[1]
    assert len(said[0]) == 6
    assert folder_digest(run / "export") == folder_digest(Path(whole.run) / "export")
