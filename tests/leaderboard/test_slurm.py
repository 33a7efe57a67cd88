"""Runs as submitit's jobs, which its local executor makes here; the way to them is Slurm's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.scheduler import State, run_all
from m3po_bench.leaderboard.slurm_executor import JOBS, SlurmExecutor
from m3po_bench.leaderboard.store import ERROR, ROWS, Store
from m3po_bench.leaderboard.suite_files import load_suite
from m3po_bench.leaderboard.supervision import COMPLETE

pytest.importorskip("submitit", reason="needs the extra slurm")

DRIVER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from m3po_bench.leaderboard.suite_files import load_suite
from m3po_bench.leaderboard.scheduler import run_all
from m3po_bench.leaderboard.slurm_executor import SlurmExecutor
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.options import RunOptions

store = Store(Path(sys.argv[2]))
display = SimpleNamespace(update=lambda state: None, message=lambda text: None)
executor = SlurmExecutor(store, 2, RunOptions(minutes=20), 0, cluster="local")
run_all(load_suite(sys.argv[1]).runs(), store, executor, display)
"""


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pids"
    folder.mkdir()
    monkeypatch.setenv("TOY_PIDS", str(folder))
    return folder


def _executor(store: Store) -> SlurmExecutor:
    return SlurmExecutor(store, 2, RunOptions(minutes=20), 0, cluster="local")


def _run_all(runs: Sequence[RunSpec], store: Store, retries: int = 0) -> State:
    display = SimpleNamespace(update=lambda state: None, message=lambda text: None)
    return run_all(runs, store, _executor(store), display, retries)


def _slow(suite: Path, steps: int = 200) -> list[RunSpec]:
    """One run that takes some seconds."""
    suite.write_text(suite.read_text().replace("steps = 60", f"steps = {steps}"))
    return [spec for spec in load_suite(str(suite)).runs() if spec.agent == "ToySlow"][:1]


def _wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def _has_rows(store: Store, spec: RunSpec) -> bool:
    path = store.folder(spec) / ROWS
    return path.exists() and len(path.read_text().splitlines()) > 1


def _task(controller: int) -> int:
    """The process of a job in which it is supervised."""
    path = Path(f"/proc/{controller}/task/{controller}/children")
    return int(_wait_for(path.read_text).split()[0])


def test_rows_are_those_of_a_calm_machine(suite_file: Path, tmp_path: Path, outcomes: Any) -> None:
    expected = outcomes.undisturbed(suite_file, tmp_path / "calm")
    store = Store(tmp_path / "out")
    state = _run_all(load_suite(str(suite_file)).runs(), store)
    assert (state.failures, len(state.finished)) == ([], 4)
    assert outcomes.of(store.root).items() <= expected.items()
    assert len(outcomes.of(store.root)) == 8
    assert list((store.root / JOBS).glob("*result.pkl"))
    assert _run_all(load_suite(str(suite_file)).runs(), store).skipped == 4


def test_a_preempted_job_is_queued_again_and_doubles_nothing(
    suite_file: Path, tmp_path: Path, pids: Path, outcomes: Any
) -> None:
    (spec,) = _slow(suite_file)
    store = Store(tmp_path / "out")
    (run,) = _executor(store).start([spec])
    _wait_for(lambda: _has_rows(store, spec))
    os.kill(_task(run._job._process.pid), signal.SIGUSR2)  # as Slurm does before it preempts
    assert _wait_for(run.poll) == COMPLETE
    assert len(list(pids.iterdir())) == 2
    assert "Requeued" in "".join(path.read_text() for path in (store.root / JOBS).glob("*.out"))
    calm = outcomes.undisturbed(suite_file, tmp_path / "calm")
    assert outcomes.of(store.root).items() <= calm.items()


def test_a_killed_job_has_failed_and_can_be_tried_again(suite_file: Path, tmp_path: Path) -> None:
    (spec,) = _slow(suite_file)
    store = Store(tmp_path / "out")
    (run,) = _executor(store).start([spec])
    _wait_for(lambda: _has_rows(store, spec))
    os.kill(_task(run._job._process.pid), signal.SIGKILL)
    outcome = _wait_for(run.poll)
    assert outcome.kind == "failed"
    assert "UncompletedJobError" in outcome.reason
    assert "UncompletedJobError" in (store.folder(spec) / ERROR).read_text()
    state = _run_all([spec], store)
    assert (state.failures, state.finished) == ([], [spec])


def test_a_stopped_job_ends_and_gives_its_run_back(
    suite_file: Path, tmp_path: Path, pids: Path
) -> None:
    (spec,) = _slow(suite_file, steps=100_000)
    store = Store(tmp_path / "out")
    (run,) = _executor(store).start([spec])
    _wait_for(lambda: list(pids.iterdir()))
    assert store.maker(spec) is not None
    run.stop()
    _wait_for(lambda: store.maker(spec) is None)
    (learner,) = pids.iterdir()
    _wait_for(lambda: not Path(f"/proc/{learner.name}").exists())


def test_jobs_outlive_their_driver_and_the_next_one_waits_for_them(
    suite_file: Path, tmp_path: Path, pids: Path
) -> None:
    runs, store = load_suite(str(suite_file)).runs(), Store(tmp_path / "out")
    command = [sys.executable, "-c", DRIVER, str(suite_file), str(store.root)]
    driver = subprocess.Popen(command)
    _wait_for(lambda: len(list(pids.iterdir())) == 2)
    driver.kill()
    driver.wait()
    state = _run_all(runs, store)
    assert state.failures == []
    assert all(store.is_finished(spec) for spec in runs)
    assert len(list(pids.iterdir())) == len(runs)


def test_what_cannot_be_submitted_has_failed(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "out")
    store.root.mkdir()
    (store.root / JOBS).write_text("no folder")
    state = _run_all(load_suite(str(suite_file)).runs(), store)
    assert len(state.failures) == 4
    assert "FileExistsError" in state.failures[0].reason


def test_slurm_is_asked_for_one_array_that_may_be_queued_again(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, asked = tmp_path / "bin", tmp_path / "asked"
    commands.mkdir()
    for name in ("srun", "sbatch"):
        (commands / name).write_text(f'#!/bin/sh\ncp "$1" {asked}\necho Submitted batch job 123\n')
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    options = RunOptions(minutes=50.5, memory_gb=3.5)
    executor = SlurmExecutor(Store(tmp_path / "out"), 3, options, gpus=1)
    runs = executor.start(load_suite(str(suite_file)).runs())
    assert [run._job.job_id for run in runs] == [f"123_{i}" for i in range(4)]
    script = asked.read_text().splitlines()
    for line in ("array=0-3%3", "requeue", "time=61", "mem=4GB", "gpus-per-node=1",
                 "cpus-per-task=1", "signal=USR2@90"):  # fmt: skip
        assert f"#SBATCH --{line}" in script
