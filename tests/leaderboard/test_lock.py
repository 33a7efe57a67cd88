"""Only one process holds a lock, whoever dies, wakes up or competes for it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard import lock as locks
from m3po_bench.leaderboard.lock import HEARTBEAT, STALE, Lock, holder

HOLDER = """
import sys, time
from pathlib import Path
from m3po_bench.leaderboard.lock import Lock
assert Lock.acquire(Path(sys.argv[1])) is not None
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "seed0"


def _hold_elsewhere(path: Path) -> Lock:
    """A lock that a process on another machine holds."""
    lock = Lock.acquire(path)
    assert lock is not None
    file = path.with_name(f"seed0.{lock.term}")
    owner = json.loads(file.read_text())
    file.write_text(json.dumps({**owner, "machine": "elsewhere", "host": "node7"}))
    return Lock(path, lock.term)


def _age(lock: Lock, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(lock.path.with_name(f"{lock.path.name}.{lock.term}"), (then, then))


def test_one_holder_until_it_is_given_back(path: Path) -> None:
    assert holder(path) is None
    first = Lock.acquire(path)
    assert first is not None
    assert f"process {os.getpid()} on " in str(holder(path))
    assert Lock.acquire(path) is None
    first.release()
    assert holder(path) is None
    second = Lock.acquire(path)
    assert second is not None
    assert (second.term, first.is_lost(), second.is_lost()) == (2, True, False)


def test_a_link_that_was_made_but_answered_twice_is_ours(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system may, when an answer is lost on the way."""
    link = os.link

    def answered_twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", answered_twice)
    assert Lock.acquire(path) is not None
    assert Lock.acquire(path) is None


def test_giving_back_what_was_taken_over_changes_nothing(path: Path) -> None:
    first = _hold_elsewhere(path)
    _age(first, STALE + 5)
    second = Lock.acquire(path)
    assert second is not None
    assert not first.beat()
    first.release()
    assert Lock.acquire(path) is None


@pytest.mark.parametrize("begun_anew", [False, True])
def test_who_deletes_the_folder_takes_the_lock_too(path: Path, begun_anew: bool) -> None:
    first = _hold_elsewhere(path)
    shutil.rmtree(path.parent)
    second = Lock.acquire(path) if begun_anew else None
    assert first.is_lost()
    assert not first.beat()
    first.release()
    if second is not None:
        assert second.term == first.term
        assert not second.is_lost()
        assert Lock.acquire(path) is None


def test_a_killed_holder_of_this_machine_is_dead_at_once(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert Lock.acquire(path) is None
    os.kill(process.pid, signal.SIGSTOP)  # late, but alive
    os.utime(path.with_name("seed0.1"), (0, 0))
    assert Lock.acquire(path) is None
    os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while (lock := Lock.acquire(path)) is None:  # a zombie by then: nobody has waited for it
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lock.term == 2
    process.communicate()


def test_another_process_of_the_same_id_is_another(path: Path) -> None:
    Lock.acquire(path)
    file = path.with_name("seed0.1")
    owner = json.loads(file.read_text())
    file.write_text(json.dumps({**owner, "birth": "1"}))
    assert Lock.acquire(path) is not None


def test_a_holder_elsewhere_lives_by_its_heartbeat(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = _hold_elsewhere(path)
    _age(lock, STALE - 10)
    assert "node7" in str(holder(path))
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert lock.beat()  # not due
    _age(lock, STALE + 5)
    clock[0] += HEARTBEAT + 1
    assert lock.beat()
    assert Lock.acquire(path) is None
    _age(lock, STALE + 5)
    assert holder(path) is None
    assert Lock.acquire(path) is not None


def test_clocks_of_machines_need_not_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hold_elsewhere(path)
    here = time.time()
    monkeypatch.setattr(time, "time", lambda: here + 3600)
    assert Lock.acquire(path) is None


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "{}"])
def test_an_unreadable_holder_lives_by_its_heartbeat(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.with_name("seed0.1").write_text(content)
    assert Lock.acquire(path) is None
    os.utime(path.with_name("seed0.1"), (1, 1))
    assert Lock.acquire(path) is not None


def test_without_proc_only_the_heartbeat_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_machine", lambda: None)
    lock = Lock.acquire(path)
    assert lock is not None
    assert Lock.acquire(path) is None
    _age(lock, STALE + 5)
    assert Lock.acquire(path) is not None


def _compete(path: Path, barrier: Any, rounds: int, won: Any) -> None:
    for turn in range(rounds):
        barrier.wait()
        lock = Lock.acquire(path.with_name(f"seed{turn}"))
        if lock is not None:
            won.put(turn)
        barrier.wait()  # the winner stays alive until all have tried


def test_one_of_many_takes_a_dead_holders_lock_over(path: Path) -> None:
    rounds, rivals = 40, 5
    for turn in range(rounds):
        lock = Lock.acquire(path.with_name(f"seed{turn}"))
        assert lock is not None
        file = path.with_name(f"seed{turn}.1")
        file.write_text(json.dumps({**json.loads(file.read_text()), "birth": "1"}))
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(rivals), context.Queue()
    processes = [
        context.Process(target=_compete, args=(path, barrier, rounds, won)) for _ in range(rivals)
    ]
    for process in processes:
        process.start()
    winners = sorted(won.get(timeout=60) for _ in range(rounds))
    for process in processes:
        process.join(60)
    assert winners == list(range(rounds))
    assert won.empty()
