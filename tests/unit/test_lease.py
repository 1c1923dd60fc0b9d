"""A run folder has one living owner, whoever comes when; real processes, real files."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from regdpo.core.errors import UserError
from regdpo.runtime import lease
from regdpo.runtime.lease import Lease, Owner, living

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, seconds in {"BEAT": 0.05, "STALE": 0.5, "WATCH": 0.3}.items():
        monkeypatch.setattr(lease, name, seconds)


def held_by(run: Path, **changed: object) -> Path:
    """A lease of another process, by default one of this machine that is gone."""
    folder = run / lease.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner.me().model_copy(update={"pid": 2**22 + 1, **changed})
    assert lease._claim(folder, lease._last(folder) + 1, owner)
    return folder / f"{lease._last(folder):07d}.json"


def in_a_process(target, *arguments) -> multiprocessing.Process:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def hold(run: Path, ready) -> None:
    Lease.acquire(run)
    ready.set()
    time.sleep(60)


def compete(run: Path, start, won, done) -> None:
    start.wait()
    try:
        mine = Lease.acquire(run)
    except UserError:
        done.wait()
        return
    won.put(os.getpid())
    done.wait()
    assert mine.mine()
    os._exit(0)  # dies with its lease


def test_of_many_that_come_at_once_one_gets_it(tmp_path):
    """First into an empty folder, then again and again after the death of the last winner."""
    for _ in range(5):
        start, done, won = FORK.Barrier(12), FORK.Barrier(13), FORK.Queue()
        processes = [in_a_process(compete, tmp_path, start, won, done) for _ in range(12)]
        done.wait(30)
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 12
        winners = [won.get(timeout=60)]
        while not won.empty():
            winners.append(won.get())
        assert len(winners) == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0000005.json"]


def test_who_comes_too_late_for_a_number_withdraws(tmp_path):
    """It found number 1 dead and fell asleep; meanwhile 2 and 3 were made and 2 removed."""
    held_by(tmp_path)
    held_by(tmp_path)
    third = Lease.acquire(tmp_path)
    assert third.number == 3
    assert not lease._claim(tmp_path / lease.FOLDER, 2, Owner.me())
    assert third.mine()
    assert [path.name for path in third.folder.iterdir()] == ["0000003.json"]


def test_a_living_owner_is_named(tmp_path):
    ready = FORK.Event()
    process = in_a_process(hold, tmp_path, ready)
    assert ready.wait(30)
    assert living(tmp_path).pid == process.pid
    with pytest.raises(UserError, match=rf"process {process.pid} on \S+ is training there, last heartbeat 0 s ago; "):
        Lease.acquire(tmp_path)
    os.kill(process.pid, signal.SIGSTOP)  # suspended is not dead where one can look
    time.sleep(1)
    assert living(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    while lease.started(process.pid) is not None:
        time.sleep(0.01)
    assert living(tmp_path) is None  # nobody has reaped it yet
    assert Lease.acquire(tmp_path).mine()
    process.join()


def test_released_is_free_at_once_and_the_number_goes_on(tmp_path):
    assert living(tmp_path) is None
    for number in (1, 2, 3):
        held = Lease.acquire(tmp_path)
        assert held.number == number
        assert living(tmp_path) is not None
        held.release()
        held.release()
        assert living(tmp_path) is None
    assert len(list((tmp_path / lease.FOLDER).iterdir())) == 1


def test_another_process_with_the_same_pid_is_not_the_owner(tmp_path):
    held_by(tmp_path, pid=os.getpid(), start=Owner.me().start - 1)
    assert living(tmp_path) is None


def test_the_heartbeat_is_the_holders(tmp_path):
    held = Lease.acquire(tmp_path)
    before = held.path.stat().st_mtime_ns
    deadline = time.monotonic() + 60
    while held.path.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_on_another_machine_no_heartbeat_is_death(tmp_path):
    path = held_by(tmp_path, place="another boot")
    with pytest.raises(UserError, match=r"a dead one is found out 0 s after its last heartbeat"):
        Lease.acquire(tmp_path)
    time.sleep(0.7)
    assert living(tmp_path) is None
    assert Lease.acquire(tmp_path).number == 2
    assert not path.exists()


@pytest.mark.parametrize("clock", [-3600, 3600])
def test_a_machine_whose_clock_is_wrong_lives_while_its_heart_beats(tmp_path, clock):
    path = held_by(tmp_path, place="another boot")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            os.utime(path, (time.time() + clock,) * 2)

    thread = threading.Thread(target=beat)
    thread.start()
    time.sleep(0.2)
    try:
        assert living(tmp_path) is not None
    finally:
        over.set()
        thread.join()


def test_a_holder_that_was_suspended_finds_its_lease_taken(tmp_path, monkeypatch):
    held = Lease.acquire(tmp_path)
    held._over.set()  # suspended: no heartbeat
    time.sleep(0.7)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lease, "place", lambda: "another boot")
        taker = Lease.acquire(tmp_path)
    assert not held.mine()
    held.release()
    assert taker.mine()
    assert not Owner.model_validate_json(taker.path.read_text()).released


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path)]
)
def test_what_is_no_file_is_named(tmp_path, make):
    (tmp_path / "lease").mkdir()
    make(tmp_path / "lease/0000001.json")
    with pytest.raises(UserError, match=r"lease/0000001.json: is no lease; remove it if no training runs there"):
        Lease.acquire(tmp_path)


@pytest.mark.parametrize("text", [b"", "{}".encode("utf-16"), b"\xff", b"[1]", b'{"pid": "\xe4"}'])
def test_a_file_that_is_no_lease_is_named(tmp_path, text):
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease/0000001.json").write_bytes(text)
    with pytest.raises(UserError, match=r"lease/0000001.json: is no lease; remove it if no training runs there"):
        living(tmp_path)


@pytest.mark.parametrize(
    "name", ["1.json", "00000001.json", "x.json", "0000001.json~", "12345678901234567.json", "\u0660" * 7 + ".json"]
)
def test_a_file_of_another_name_is_left_alone(tmp_path, name):
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / name).write_text("")
    assert living(tmp_path) is None
    assert Lease.acquire(tmp_path).number == 1
    assert (tmp_path / "lease" / name).exists()


def test_a_lease_that_has_no_next_is_named(tmp_path):
    """Nothing is taken for ever."""
    (tmp_path / "lease").mkdir()
    path = tmp_path / "lease/9999999999999999.json"
    path.write_text(Owner.me().model_copy(update={"released": True}).model_dump_json())
    with pytest.raises(UserError, match=r"9999999999999999\.json: is no lease"):
        Lease.acquire(tmp_path)


def test_a_folder_of_leases_that_is_none_is_named(tmp_path):
    (tmp_path / "lease").touch()
    with pytest.raises(UserError, match="lease: is no lease"):
        Lease.acquire(tmp_path)


def test_a_dead_holder_is_found_out_though_the_clock_was_set_back(tmp_path):
    path = held_by(tmp_path, place="another boot")
    os.utime(path, (time.time() + 3600,) * 2)
    assert living(tmp_path) is None
