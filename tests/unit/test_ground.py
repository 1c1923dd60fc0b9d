"""The ground floor: store, provenance, errors."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from regdpo.core import code_digest, digests, environment, errors, manifests, progress, temporaries
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow
from regdpo.core.store import Store, kept_at
from regdpo.core.temporaries import atomic
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.workflow import params


def caption(clip_id: str, text: str = "a cat") -> CaptionRow:
    return CaptionRow(clip_id=clip_id, caption=text, captioner="sidecar:a.txt")


def test_store_shows_nothing_half_written(tmp_path):
    store = Store(tmp_path)
    path = store.relative("clips", "ab12", ".mp4")

    def fail() -> None:
        with store.writing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.rglob("*.mp4"))
    with store.writing(path) as temporary:
        temporary.write_text("whole")
    assert store.existing(path).read_text() == "whole"


def killed_while_it_writes(final: Path) -> None:
    """-9, with a half-written file or, where there is no suffix, folder."""
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        return
    with atomic(final) as temporary:
        temporary.write_text("half") if final.suffix else (temporary / "half").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_killed_processes_left_is_removed_by_who_writes_there_next(tmp_path, monkeypatch):
    """In the store and elsewhere; of another machine after a day."""
    monkeypatch.setattr(temporaries, "_swept", set())
    store, manifest = Store(tmp_path / "store"), tmp_path / "results/captions.parquet"
    clip = store.relative("clips", "ab12", ".mp4")
    folder = store.resolve(clip).parent
    whole = {folder / ".keep", folder / "abcd.mp4", folder / ".0123abcd-half.parquet"}
    folder.mkdir(parents=True)
    for path in whole:
        path.write_text("whole")
    with monkeypatch.context() as first:
        first.setattr(temporaries, "sweep", lambda folder: None)
        for final in (store.resolve(clip), kept_at(store.resolve(clip)), folder / "export", manifest):
            killed_while_it_writes(final)
    left = {path for path in tmp_path.rglob(".*") if path not in whole}
    assert sorted(path.suffix for path in left) == ["", ".mp4", ".parquet", ".sha256"]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(temporaries, "place", lambda: "another boot")
        away = [temporaries.temporary_of(store.resolve(clip)) for _ in range(2)]
    for path in (*away, mine := temporaries.temporary_of(store.resolve(clip))):
        path.write_text("half")
    os.utime(away[1], (time.time() - 2 * 86400,) * 2)
    os.utime(mine, (time.time() - 2 * 86400,) * 2)  # this process lives
    with store.writing(clip) as temporary:
        temporary.write_text("whole")
    manifests.write(manifest, [caption("a")], CaptionRow)
    assert set(folder.iterdir()) == {*whole, store.resolve(clip), away[0], mine}
    assert set(manifest.parent.iterdir()) == {manifest}
    assert not [path for path in left if path.exists()]


def test_a_folder_of_this_machine_goes_with_who_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporaries, "_swept", set())
    killed_while_it_writes(tmp_path / "scratch")
    with temporaries.scratch() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "results.json").touch()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "clips/../../x", ""])
def test_store_keeps_paths_inside(tmp_path, path):
    with pytest.raises(UserError, match="leads out of the store"):
        Store(tmp_path / "store").resolve(path)


def test_store_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"missing from the store.*same command again"):
        Store(tmp_path).existing("clips/ab/ab12.mp4")


def test_an_artefact_has_the_bytes_that_its_manifest_names(tmp_path, monkeypatch):
    """A flipped bit, or the winner in the loser's place; the line names the file and the command."""
    store = Store(tmp_path)
    winner, loser = "clips/ab/winner.mp4", "negatives/ab/loser.mp4"
    for path in (winner, loser):
        with store.writing(path) as temporary:
            temporary.write_text(path)
    digest = digests.file_digest(store.existing(loser))
    assert store.checked(loser, digest).read_text() == loser
    monkeypatch.setattr("regdpo.core.store.file_digest", lambda path: pytest.fail("read again"))
    store.checked(loser, digest)
    monkeypatch.undo()
    store.existing(winner).replace(store.existing(loser))
    with pytest.raises(
        UserError,
        match=r"/negatives/ab/loser.mp4 is damaged \(sha256 .*\); delete it, .* with --forcerun render_negatives$",
    ):
        Store(tmp_path).checked(loser, digest)


def test_what_is_found_in_the_store_has_the_bytes_that_it_had(tmp_path):
    store, path = Store(tmp_path), "latents/ab/pair.safetensors"

    def written(text: str) -> str:
        with store.writing(path) as temporary:
            temporary.write_text(text)
        return store.digest(path)

    digest = written("tensors")
    assert digest == store.digest(path) == digests.file_digest(store.existing(path))
    store.existing(path).write_text("tensorz")
    with pytest.raises(UserError, match=r"pair.safetensors is damaged \(sha256 .*--forcerun encode_latents$"):
        store.digest(path)
    store.existing(path).unlink()
    assert written("made again, with other bytes") != digest


def test_a_folder_that_is_found_in_the_store_has_the_bytes_that_it_had(tmp_path):
    store, path = Store(tmp_path), "models/ab/made"
    with store.writing(path) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("random")
    assert store.digest(path) == store.digest(path) == digests.folder_digest(store.existing(path))
    (store.existing(path) / "weights").write_text("randoM")
    with pytest.raises(UserError, match=r"models/ab/made is damaged \(sha256 .*--forcerun base_from_scratch$"):
        store.digest(path)


def test_a_model_has_the_bytes_that_its_file_names(tmp_path):
    store = Store(tmp_path / "store")
    base, adapters, tuned = (store.relative(kind, kind * 9) for kind in ("models", "runs", "other"))
    folder = tmp_path / "folder"
    for place in (store.resolve(base), store.resolve(adapters), store.resolve(tuned), folder):
        place.mkdir(parents=True)
        (place / "weights").write_bytes(b"good")
    content = digests.folder_digest(folder)
    path = tmp_path / "model.json"
    common = {"family": "wan", "task": "i2v", "text_length": 8, "digest": "d", "content": content}
    arm = {**common, "where": "store", "path": base, "lora": adapters, "lora_content": content}
    arm |= {"transformer": tuned, "transformer_content": content}
    cases = [
        ("base", {**common, "where": "store", "path": base}, store.resolve(base), "base_from_scratch"),
        ("base", {**common, "where": "folder", "path": str(folder)}, folder, "base_by_name"),
        ("sft/seed0", arm, store.resolve(adapters), "train_arm"),
        ("sft/seed0", arm, store.resolve(tuned), "pretrain"),
    ]
    for name, ref, place, rule in cases:
        path.write_text(
            ModelFile(
                name=name, ref=ModelRef(**ref), digest="d", arm=name.partition("/seed")[0] if "/" in name else ""
            ).model_dump_json()
        )
        ModelFile.read(path, store)
        (place / "weights").write_bytes(b"hood")
        with pytest.raises(UserError, match=rf"{place}.*--forcerun {rule}"):
            ModelFile.read(path, store)
        (place / "weights").write_bytes(b"good")


def test_digest_cache_reads_a_file_once(tmp_path, monkeypatch):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"frames")
    cache = digests.DigestCache(tmp_path / "digests.json")
    wanted = cache.digest(path)
    cache.save()
    monkeypatch.setattr(digests, "file_digest", lambda path: pytest.fail("read again"))
    assert digests.DigestCache(tmp_path / "digests.json").digest(path) == wanted


@pytest.mark.parametrize("text", ["[]", '"x"', "{", '{"a": 1}', "[" * 100_000])
def test_a_broken_digest_cache_is_an_empty_one(tmp_path, text):
    path = tmp_path / "digests.json"
    path.write_text(text)
    cache = digests.DigestCache(path)
    assert cache.digest(__file__) == digests.file_digest(__file__)
    cache.save()
    assert len(digests.DigestCache(path).known) == 1


def test_digest_caches_are_read_together_and_saved_apart(tmp_path):
    one, two = (digests.DigestCache(tmp_path / name / "digests.json") for name in ("one", "two"))
    for cache, name in ((one, "a"), (two, "b")):
        (tmp_path / name).write_text(name)
        cache.digest(tmp_path / name)
        cache.save()
    both = digests.DigestCache(one.path, two.path)
    assert both.knows(tmp_path / "a")
    assert both.knows(tmp_path / "b")
    both.save()
    assert json.loads(one.path.read_text()) == one.known | two.known
    assert json.loads(two.path.read_text()) == two.known


def test_a_digest_cache_that_cannot_be_written_is_no_failure():
    cache = digests.DigestCache("/proc/none/digests.json")
    cache.digest(__file__)
    cache.save()


CODE = '''
"""A module."""

from regdpo.thing import helper


def main(x):
    """Say it."""
    return helper(x)  # twice
'''
HELPER = """
def helper(x):
    return 2 * x


def other(x):
    return 3 * x
"""


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of a script in a package of its own, after replacing text in the sources."""

    def of(*replacements: tuple[str, str], entries: tuple[str, ...] = (), tables: frozenset[str] = frozenset()) -> str:
        package = tmp_path / "regdpo"
        package.mkdir(exist_ok=True)
        texts = {tmp_path / "script.py": CODE, package / "thing.py": HELPER}
        for path, text in texts.items():
            for old, new in replacements:
                text = text.replace(old, new)
            path.write_text(text)
        for cached in (code_digest._tree, code_digest.source_of, code_digest._imports):
            cached.cache_clear()
        monkeypatch.setattr(code_digest, "ROOT", package)
        monkeypatch.setattr(code_digest, "TABLES", tables)
        return code_digest.code_digest(str(tmp_path / "script.py"), *entries)

    return of


def test_comments_docstrings_and_layout_do_not_count(digest):
    plain = digest()
    assert (
        digest(("# twice", "# two times"), ("Say it.", "Tell."), ("(x)  #", "( x )  #"), ("A module.", "The")) == plain
    )


def test_nothing_is_imported_to_be_digested():
    """The workflow asks for many digests each time that it starts."""
    ask = "import sys; from regdpo.core.code_digest import code_digest; code_digest('regdpo.plan.layouts')"
    done = subprocess.run([sys.executable, "-c", f"{ask}; print('torch' in sys.modules)"], stdout=subprocess.PIPE)
    assert done.stdout == b"False\n"


def test_code_and_imported_code_count(digest):
    plain = digest()
    assert digest(("helper(x)  #", "helper(x + 1)  #")) != plain
    assert digest(("2 * x", "4 * x")) != plain


def test_of_a_table_only_the_chosen_counts(digest):
    options = {"entries": ("regdpo.thing:helper",), "tables": frozenset({"regdpo.thing"})}
    plain = digest(**options)
    assert digest(("3 * x", "4 * x"), **options) == plain
    assert digest(("2 * x", "4 * x"), **options) != plain


def test_the_real_closures():
    """A new key of the configuration makes nothing stale; the trainer's closure holds the trainer and the chosen loss."""
    scripts = Path(code_digest.ROOT).parent / "scripts"
    train = (str(scripts / "train.py"), params.RANK, params.TRAINERS["train"], "regdpo.models.wan")
    losses = {
        name: code_digest.code_digest(*train, f"regdpo.objectives.losses:{name}") for name in ("sft", "dpo", "reg_dpo")
    }
    assert len(set(losses.values())) == 3
    assert {"config", "core", "runs"} <= set(code_digest.PLUMBING)


def test_environment_digest_follows_the_named_packages(tmp_path):
    lock = tmp_path / "a.lock"
    lock.write_text("torch==2.13.0\nnumpy==2.4.6 ; python_version < '3.13' \\\n    --hash=sha256:00\npandas==3.1.1\n")
    both = environment.environment_digest([lock], "torch", "numpy")
    other = tmp_path / "b.lock"
    other.write_text(lock.read_text().replace("3.1.1", "3.1.2"))
    assert environment.environment_digest([other], "torch", "numpy") == both
    third = tmp_path / "c.lock"
    third.write_text(lock.read_text().replace("2.4.6", "2.4.7"))
    assert environment.environment_digest([third], "torch", "numpy") != both


def test_a_users_mistake_is_one_line_and_exit_code_2(capsys):
    def mistake() -> None:
        raise UserError("clips.fps: is zero")

    with pytest.raises(SystemExit) as left:
        errors.run(mistake)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: clips.fps: is zero\n"


def test_what_may_not_be_written_is_one_line(capsys):
    def refused() -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), "results/pairs.parquet")

    with pytest.raises(SystemExit) as left:
        errors.run(refused)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: results/pairs.parquet: may not be read or written (Read-only file system)")
    assert said.count("\n") == 1


def test_a_full_disk_is_one_line_that_says_where(tmp_path):
    """A real full device, /dev/full, whose error does not say it."""
    code = """
import sys
from regdpo.core import errors, temporaries
def main():
    with temporaries.atomic(sys.argv[1]) as temporary, open("/dev/full", "w") as full:
        temporary.write_text("half")
        full.write("x")
errors.run(main)"""
    path = tmp_path / "pairs.parquet"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: no space left on the device while writing {path}: free some or point `paths` "
    )
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_that_comes_while_a_program_is_started_is_not_lost():
    code = """
import os, signal, time
from regdpo.core import errors
def main():
    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
    if os.fork() == 0:
        os._exit(0)
    time.sleep(600)
errors.run(main)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted: ")


def test_a_log_tells_what_is_left(monkeypatch, capsys):
    """25 items of four minutes each, by a clock of the test's own. The first waits half an hour for the model."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for item in progress.track(range(25), "negatives"):
        now[0] += 1800 if item == 0 else 240
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["negatives: 1/25", "negatives: 2/25", "negatives: 3/25, about 1 h 28 min left"]
    assert lines[-1] == "negatives: 24/25, about 4 min left"
    for item in progress.track(range(300), "clips"):  # the first hundred are there already
        now[0] += 0.001 if item < 100 else 60
    assert capsys.readouterr().err.splitlines()[-100] == "clips: 200/300, about 1 h 40 min left"
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    for _ in progress.track(range(25), "negatives"):
        now[0] += 240
    assert "25/25 [00:00, about 0 s left]" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in progress.track(iter(range(25)), "videos"):
        now[0] += 4
    assert capsys.readouterr().err.splitlines()[0] == "videos: 3 done"
    assert [progress.duration(seconds) for seconds in (0, 89, 91, 3600, 200_000)] == [
        *("0 s", "89 s", "2 min", "1 h 0 min", "2 days 8 h")
    ]
