"""A run's process under its supervisor: alone, ended in time, and told apart from others' runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from m3po_bench.leaderboard import lock as locks
from m3po_bench.leaderboard import remote, supervision
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.lock import Lock
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.remote import RemoteRun
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import ERROR, LOCKS, LOG, PROGRESS, Store
from m3po_bench.leaderboard.suite_files import load_suite
from m3po_bench.leaderboard.supervision import (
    BUSY,
    COMPLETE,
    Outcome,
    SupervisedProcess,
    make_run,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@pytest.fixture
def spec(suite_file: Path) -> RunSpec:
    """One that takes a second or two."""
    return load_suite(str(suite_file)).runs()[0]


def _lock_file(store: Store, spec: RunSpec, term: int) -> Path:
    return store.root / LOCKS / f"{spec.run_id}.{term}"


def _ended(process: SupervisedProcess) -> Outcome:
    end = time.monotonic() + 300
    while (outcome := process.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return outcome


def test_what_another_makes_is_left_alone(store: Store, spec: RunSpec) -> None:
    lock = store.acquire(spec)
    assert lock is not None
    process = SupervisedProcess(spec, store, RunOptions())
    assert process.poll() == BUSY
    process.stop()
    assert not store.folder(spec).exists()
    assert store.maker(spec) is not None


def test_what_another_has_finished_is_not_made(store: Store, spec: RunSpec) -> None:
    Run(spec, store).execute()
    assert SupervisedProcess(spec, store, RunOptions()).poll() == COMPLETE
    assert not (store.folder(spec) / LOG).exists()
    assert store.maker(spec) is None


def test_a_run_that_was_taken_over_is_ended_and_left_to_the_other(
    store: Store, spec: RunSpec
) -> None:
    process = SupervisedProcess(spec, store, RunOptions())
    while not (store.folder(spec) / PROGRESS).exists():
        assert process.poll() is None
        time.sleep(0.02)
    _lock_file(store, spec, 2).write_text(_lock_file(store, spec, 1).read_text())
    assert process.poll() == BUSY
    assert process._process is not None
    assert process._process.poll() is not None
    assert not (store.folder(spec) / ERROR).exists()
    assert store.maker(spec) is not None


def test_a_stopped_run_is_no_failure_and_is_given_back(store: Store, spec: RunSpec) -> None:
    process = SupervisedProcess(spec, store, RunOptions())
    began = time.monotonic()
    process.stop()
    assert time.monotonic() < began + supervision._PATIENCE + 1
    assert store.maker(spec) is None
    assert not (store.folder(spec) / ERROR).exists()


def test_every_signal_has_a_name() -> None:
    assert supervision._how_it_ended(-9) == "its process was ended by SIGKILL"
    assert supervision._how_it_ended(-40) == "its process was ended by signal 40"


def test_where_the_folder_cannot_be_made_the_run_has_failed(tmp_path: Path, spec: RunSpec) -> None:
    (tmp_path / "file").touch()
    outcome = _ended(SupervisedProcess(spec, Store(tmp_path / "file"), RunOptions()))
    assert outcome.kind == "failed"
    assert "Not a directory" in outcome.reason


def test_a_lost_machines_lock_is_waited_for(
    store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE", 2.0)
    assert store.acquire(spec) is not None
    file = _lock_file(store, spec, 1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "machine": "lost"}))
    assert Lock.acquire(file.with_name("seed0")) is None
    began = time.monotonic()
    assert make_run(spec, store.root, RunOptions()) == COMPLETE
    assert time.monotonic() > began + 2.0


def test_who_is_busy_for_long_is_told_so(
    store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "STALE", 0.0)
    monkeypatch.setattr(supervision, "HEARTBEAT", 0.5)
    assert store.acquire(spec) is not None
    assert make_run(spec, store.root, RunOptions()) == BUSY


class _Told(RemoteRun):
    """A run of which an engine says what it is told to."""

    says: Outcome | None = COMPLETE

    def outcome(self) -> Outcome | None:
        return self.says

    def stop(self) -> None:
        return None


def test_what_does_not_arrive_in_the_folder_has_failed(
    store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run = _Told(spec, store)
    assert run.poll() is None
    clock[0] += remote.VISIBLE_SECONDS + 1
    outcome = run.poll()
    assert outcome is not None
    assert "do all machines share it?" in outcome.reason
    assert "do all machines share it?" in (store.folder(spec) / ERROR).read_text()
    Run(spec, store).execute()
    assert run.poll() == COMPLETE


def test_a_remote_failure_keeps_the_error_that_is_there(store: Store, spec: RunSpec) -> None:
    run = _Told(spec, store)
    run.says = Outcome("failed", "the node died")
    run.poll()
    error = store.folder(spec) / ERROR
    assert error.read_text() == "the node died\n"
    error.write_text("Traceback")
    run.poll()
    assert error.read_text() == "Traceback"
