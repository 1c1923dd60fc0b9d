"""What the store has lost, or a disk has changed: who makes it is told, once, and makes it again."""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from regdpo.core import damage, manifests
from regdpo.core.digests import file_digest, folder_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, LatentRow
from regdpo.core.store import ASIDE, Store, kept_at
from regdpo.runtime import inventory
from regdpo.runtime.lease import Lease

ROOT = Path(damage.__file__).parents[2]


class Made:
    """Two shards of clips, one of latents with an empty caption, and a training."""

    def __init__(self, folder: Path):
        self.results, self.store = folder / "results", Store(folder / "store")
        self.store.tell = partial(damage.tell, self.results, self.store)
        self.shards = [self.results / f"clips/{shard}.parquet" for shard in (0, 1)]
        self.paths = [self.store.relative("clips", f"{number:064x}", ".mp4") for number in range(4)]
        for path in self.paths:
            self.written(path)
        for shard, manifest in enumerate(self.shards):
            rows = [self.clip(number) for number in (2 * shard, 2 * shard + 1)]
            manifests.write(manifest, rows, ClipRow)
        self.latents = self.results / "latents/gt/0.parquet"
        self.pair, self.empty = (self.store.relative("latents", name * 32, ".safetensors") for name in ("aa", "ee"))
        names = {"path": self.pair, "sha256": self.written(self.pair)}
        names |= {"empty": self.empty, "empty_sha256": self.written(self.empty)}
        row = {"pair_id": "p", "split": "train", "clip_id": "c", "encoder": "e", "shape": "1", "has_loser": True}
        manifests.write(self.latents, [LatentRow.model_validate(row | names)], LatentRow)
        self.run = self.store.relative("runs", "ab" * 32)
        with self.store.writing(f"{self.run}/export") as export:
            export.mkdir()
            (export / "weights").write_text("trained")
        trained = self.store.digest(f"{self.run}/export")
        self.model = self.results / "train/dpo/seed0/model.json"
        self.model.parent.mkdir(parents=True)
        self.model.write_text(
            json.dumps(
                {"name": "dpo", "ref": {"lora": f"{self.run}/export", "lora_content": trained, "path": "models/x"}}
            )
        )

    def written(self, path: str) -> str:
        with self.store.writing(path) as temporary:
            temporary.write_text(f"content of {path}")
        return self.store.digest(path)

    def clip(self, number: int) -> ClipRow:
        path = self.paths[number]
        digest = file_digest(self.store.resolve(path))
        return ClipRow(
            clip_id=str(number), status="accepted", source="a.mp4", source_digest="", path=path, sha256=digest
        )

    def flip(self, path: str) -> None:
        file = self.store.resolve(path)
        data = bytearray(file.read_bytes())
        data[3] ^= 1
        file.write_bytes(data)

    def stale(self) -> set[str]:
        """The outputs whose rule has a parameter that it had not before."""
        known = (*self.shards, self.latents, self.model)
        return {path.relative_to(self.results).as_posix() for path in known if damage.digest(path)}


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)


def test_a_flipped_byte_makes_one_shard_stale(made):
    digest = made.store.digest(made.paths[2])
    made.flip(made.paths[2])
    for _ in range(2):  # jobs side by side find the same
        store = Store(made.store.root)
        store.tell = made.store.tell
        with pytest.raises(UserError, match=r"is damaged \(sha256 .*\); give the same command again, which makes it a"):
            store.checked(made.paths[2], digest)
    assert made.stale() == {"clips/1.parquet"}
    assert Path(f"{made.shards[1]}{damage.SUFFIX}").read_text() == f"{made.paths[2]}\n"


def test_what_was_told_makes_stale_once_and_a_new_find_once_more(made):
    """The parameter stays as it is when the shard was made again, and changes with the next find alone."""
    made.store.resolve(made.paths[0]).unlink()
    before = damage.digest(made.shards[0])
    with pytest.raises(UserError, match="missing from the store"):
        made.store.existing(made.paths[0])
    told = damage.digest(made.shards[0])
    assert told != before
    made.written(made.paths[0])
    later = time.time() + 5
    os.utime(made.shards[0], (later, later))  # made again
    assert damage.digest(made.shards[0]) == told
    made.store.resolve(made.paths[0]).unlink()
    with pytest.raises(UserError):
        made.store.existing(made.paths[0])
    assert damage.digest(made.shards[0]) not in (told, before)


def test_of_a_store_that_lost_much_all_is_told_at_once(made):
    for path in (made.paths[1], made.paths[3], made.empty):
        made.store.resolve(path).unlink()
    with pytest.raises(UserError, match="give the same command again, which makes it anew"):
        made.store.existing(made.paths[1])
    assert made.stale() == {"clips/0.parquet", "clips/1.parquet", "latents/gt/0.parquet"}


def test_weights_of_a_training_are_told_to_it(made):
    (made.store.resolve(made.run) / "export/weights").write_text("trainee")
    with pytest.raises(UserError, match="which makes it anew"):
        made.store.digest(f"{made.run}/export")
    assert made.stale() == {"train/dpo/seed0/model.json"}


def test_where_no_rule_makes_it_the_line_says_what_to_do(made):
    with pytest.raises(UserError, match=r"missing from the store .* --forcerun cut_clips$"):
        made.store.existing("clips/ff/ff.mp4")
    assert made.stale() == set()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_who_makes_it_finds_it_not_whole(made, kind, capsys):
    """It is put aside, and made again under its name."""
    path = made.pair if kind == "file" else f"{made.run}/export"
    there = made.store.resolve(path)
    whole = made.store.digest(path)
    assert made.store.has(path)
    assert made.store.digest(path) == whole
    changed = there if kind == "file" else there / "weights"
    changed.write_text("other")
    assert not made.store.has(path)
    assert "is damaged; it is put aside as" in capsys.readouterr().err
    assert not there.exists()
    assert not kept_at(there).exists()
    aside = made.store.root / ASIDE / path
    assert (aside if kind == "file" else aside / "weights").read_text() == "other"
    assert not made.store.has(path)
    with made.store.writing(path) as temporary:
        if kind == "folder":
            temporary.mkdir()
        (temporary if kind == "file" else temporary / "weights").write_text("again")
    assert made.store.has(path)
    assert made.store.digest(path) == (file_digest(there) if kind == "file" else folder_digest(there))


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / f"scripts/{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_a_check_reads_all_and_tells_who_makes_it(made):
    made.store.used_by(made.results.parent, made.results)
    done = run("store_check", "--store", made.store.root)
    assert (done.returncode, done.stdout) == (0, "")
    made.flip(made.paths[0])
    made.store.resolve(made.pair).unlink()
    (made.store.resolve(made.run) / "export/weights").write_text("other")
    done = run("store_check", "--store", made.store.root)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert f"{made.store.root / made.paths[0]}: is altered (sha256 " in lines[0]
    assert lines[1] == f"{made.store.root / made.pair}: is missing ({made.latents})"
    assert f"{made.run}/export: is altered" in lines[2]
    assert lines[3].startswith("3 artefacts; the workflow's command, given again, makes them anew, by 3 jobs")
    assert made.stale() == {"clips/0.parquet", "latents/gt/0.parquet", "train/dpo/seed0/model.json"}


def test_what_nobody_names_is_dead_and_what_spares_work_is_not(made):
    """Of every kind one that stays and one that goes; a living training holds what no manifest names."""
    store, old = made.store, time.time() - 10 * 86400

    def there(relative: str, changed: float = old) -> str:
        path = store.resolve(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 100)
        os.utime(path, (changed, changed))
        return relative

    dead = [there("clips/00/old.mp4"), there("negatives/00/old.mp4"), there("damaged/clips/00/aside.mp4")]
    dead.append(there("latents/00/lonely.safetensors.sha256"))
    others = {"remembered": there("shots/00/a.npz"), "unfinished": there("clips/00/new.mp4", time.time() + 60)}
    there("runs/00/going/checkpoints/step1/x")
    there("runs/00/done/export/x")
    there("runs/00/held/export/x")
    there("strange/00/x")
    lease = Lease.acquire(store.resolve("runs/00/held"))
    states = {item.relative: item.state for item in inventory.take(store, [made.results])}
    lease.release()
    assert {states[name] for name in (*made.paths, made.pair, made.empty, made.run)} == {"named"}
    assert [states.get(name) for name in dead] == ["dead", "unfinished", "dead", "dead"]
    assert {state: states[name] for state, name in others.items()} == {state: state for state in others}
    assert states["runs/00/going"] == "resumable"
    assert states["runs/00/done"] == "dead"
    assert states["runs/00/held"] == "held"
    assert not any(name.startswith(("strange", ".store", "used_by")) for name in states)


def test_what_is_dead_goes_once_it_is_confirmed(made):
    store, old = made.store, time.time() - 10 * 86400
    store.identity()
    store.used_by(made.results.parent, made.results)
    for relative in ("clips/00/dead.mp4", "shots/00/a.json"):
        path = store.resolve(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (old, old))
    before = {path for path in store.root.rglob("*") if path.is_file()}

    def gone() -> set[str]:
        return {path.name for path in before if not path.exists()}

    done = run("store_gc", "--store", store.root)
    assert done.returncode == 0, done.stderr
    assert "to delete: 1 artefacts" in done.stdout
    done = run("store_gc", "--store", store.root, "--delete")
    assert done.returncode == 2
    assert done.stderr == "error: --delete asks; where nobody can answer give --yes\n"
    assert gone() == set()
    assert run("store_gc", "--store", store.root, "--delete", "--yes").returncode == 0
    assert gone() == {"dead.mp4"}
    assert run("store_gc", "--store", store.root, "--delete", "--yes", "--also", "remembered").returncode == 0
    assert gone() == {"dead.mp4", "a.json"}
    made.shards[0].write_bytes(made.shards[0].read_bytes()[:-9])  # which may name what is in the store
    done = run("store_gc", "--store", store.root, "--delete", "--yes")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {made.shards[0]}: cannot be read (")
