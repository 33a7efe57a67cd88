"""Whole suites of toys in real processes, killed in every way."""

from __future__ import annotations

import json
import signal
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from m3po_bench.leaderboard.scheduler import State, longest_first, run_all
from m3po_bench.leaderboard.store import ERROR, RUN, Store
from m3po_bench.leaderboard.suite_files import load_suite, parse_suite


def _wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pids"
    folder.mkdir()
    monkeypatch.setenv("TOY_PIDS", str(folder))
    return folder


def test_finished_runs_are_not_made_again(
    command_line: Any, tmp_path: Path, pids: Path, toys: Any
) -> None:
    out = tmp_path / "out"
    assert command_line.run(out)[0] == 0
    assert len(list(pids.iterdir())) == toys.SUITE.runs
    (out / "Line-hazard/Toy/seed1" / RUN).unlink()
    status, stdout, stderr = command_line.run(out)
    assert status == 0
    assert "leaderboard.csv" in stdout
    assert stderr.count("started") == stderr.count("finished Line") == 1
    assert len(list(pids.iterdir())) == toys.SUITE.runs + 1


def test_killed_worker_hurts_nobody_else(
    command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toys: Any
) -> None:
    out, faults = tmp_path / "out", tmp_path / "faults"
    faults.mkdir()
    (faults / "kill-1-0").touch()
    monkeypatch.setenv("TOY_FAULTS", str(faults))
    status, stdout, stderr = command_line.run(out)
    assert status == 1
    assert len(list(out.glob(f"*/*/*/{RUN}"))) == toys.SUITE.runs - 1
    (error,) = out.glob(f"*/*/*/{ERROR}")
    assert "SIGKILL" in error.read_text()
    assert "1 of 4 runs failed" in stderr
    assert "1 of 2" in stdout  # the table marks the entry that lacks a seed
    assert command_line.run(out)[0] == 0
    assert not list(out.glob(f"*/*/*/{ERROR}"))


def test_failing_agent_leaves_its_error(command_line: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, stdout, stderr = command_line.run(out, "--agents", "ToyFails,Toy", "--seeds", "1")
    assert status == 1
    assert "ArithmeticError: the toy broke" in stderr
    assert "Traceback" in (out / "Line-hazard/ToyFails/seed0" / ERROR).read_text()
    assert "Toy," in (out / "leaderboard.csv").read_text()
    assert "| Toy * " in stdout  # the suite's file asks for two
    assert "1 of 2" in stdout
    status, stdout, _ = command_line.run(tmp_path / "none", "--agents", "ToyFails", "--json")
    said = json.loads(stdout)
    assert (status, said["leaderboard"], said["files"]) == (1, [], [])
    assert {reason.partition(":")[0] for reason in said["failed"].values()} == {"ArithmeticError"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_with_their_parent(
    command_line: Any, suite_file: Path, tmp_path: Path, pids: Path, number: signal.Signals
) -> None:
    endless = suite_file.read_text().replace("steps = 60", "steps = 100_000")
    suite_file.write_text(endless)
    process = command_line.start(tmp_path / "out")
    _wait_for(lambda: len(list(pids.iterdir())) == 2)
    process.send_signal(number)  # to the parent alone
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert "Traceback" not in stderr
    _wait_for(lambda: not any(_alive(int(path.name)) for path in pids.iterdir()), 10)


def test_two_at_once_share_the_work(
    command_line: Any, tmp_path: Path, pids: Path, toys: Any
) -> None:
    out = tmp_path / "out"
    both = [command_line.start(out) for _ in range(2)]
    for process in both:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert len(list(pids.iterdir())) == toys.SUITE.runs


def test_other_configuration_is_set_aside_with_a_message(
    command_line: Any, suite_file: Path, tmp_path: Path
) -> None:
    out, select = tmp_path / "out", ("--agents", "Toy", "--seeds", "1")
    assert command_line.run(out, *select)[0] == 0
    suite_file.write_text(suite_file.read_text().replace("steps = 60", "steps = 30"))
    status, _, stderr = command_line.run(out, *select)
    assert status == 0
    assert "another configuration; now in" in stderr
    assert len(list(out.glob("Line-hazard/Toy/seed0*"))) == 2


def test_what_is_published_is_taken_over_once_misfits_are_aside(
    suite_file: Path, tmp_path: Path
) -> None:
    spec = load_suite(str(suite_file)).runs()[0]
    here, published = Store(tmp_path / "here"), Store(tmp_path / "published")
    old = replace(spec, budget=replace(spec.budget, steps=30))
    for store, run in ((here, old), (published, spec)):
        store.begin(run)
        store.finish(run, {})
    said: list[str] = []
    display = SimpleNamespace(update=lambda state: None, message=said.append)
    state = run_all([spec], here, SimpleNamespace(slots=1), display, published=published)
    assert (state.skipped, state.finished, state.failures) == (1, [], [])
    assert "another configuration; now in" in said[0]
    assert said[1:] == [f"{spec.run_id}: finished in {published.root}"]
    assert here.is_finished(spec)


def test_longest_first_then_in_the_suites_order(suite_file: Path, toys: Any) -> None:
    table = {**tomllib.loads(toys.SUITE.text), "agents": ["ToySlow", "Toy", "ToyTold"]}
    suite = parse_suite({**table, "budgets": {"ToyTold": {"steps": 1000}}})
    order = [(run.agent, run.seed) for run in longest_first(suite.runs())]
    assert order == [(agent, seed) for agent in ("ToyTold", "ToySlow", "Toy") for seed in (0, 1)]


def test_estimate_follows_each_agents_pace(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    slow, fast = (r for r in load_suite(str(suite_file)).runs() if r.seed == 0)
    state = State([replace(slow, seed=1), replace(fast, seed=1)])
    assert state.seconds_left(2) is None
    state.began(slow)
    clock[0] = 60.0
    state.ended(slow)
    state.began(fast)
    clock[0] = 66.0
    state.running[fast.run_id] = 30
    # left: 60 s for the slow one; 30 + 60 steps at 0.2 s for the fast ones; on two workers
    assert state.seconds_left(2) == pytest.approx((60 + 90 * 0.2) / 2)
    state.waiting.append(replace(slow, agent="ToyNew"))
    common = 66 / 90 * 60  # no pace of its own yet
    assert state.seconds_left(2) == pytest.approx((60 + 90 * 0.2 + common) / 2)
    state.expected = lambda spec: 1000.0
    assert state.seconds_left(2) == pytest.approx((60 + 90 * 0.2 + 1000) / 2)
