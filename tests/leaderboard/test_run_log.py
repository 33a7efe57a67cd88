"""Agents log where a user asks for it, with their test returns; nowhere otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from m3po_bench.leaderboard.grid import Budget, RunSpec, SuiteError, Variant
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.run_log import TENSORBOARD, check_loggers
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import EVALUATION, Store


@pytest.fixture
def spec() -> RunSpec:
    budget = Budget(steps=240, preset="tiny", checkpoints=2, eval_episodes=1, final_episodes=1)
    return RunSpec("M3PO/PointFwdBwd-v0", "hazard", "M3PO", Variant("M3PO"), budget, 0)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a stand-in for wandb is given: arguments of init, logged points, the end."""
    given: list[Any] = []

    def init(**arguments: Any) -> Any:
        given.append(arguments)
        return SimpleNamespace(log=given.append, finish=lambda: given.append("finished"))

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return given


def test_logs_change_nothing_and_hold_returns(
    spec: RunSpec, tmp_path: Path, points: list[Any]
) -> None:
    for name, options in (
        ("plain", RunOptions()),
        ("logged", RunOptions(tensorboard=True, wandb="mine")),
    ):
        Run(spec, Store(tmp_path / name), options).execute()
    plain, logged = (tmp_path / name / spec.run_id for name in ("plain", "logged"))
    assert (plain / EVALUATION).read_bytes() == (logged / EVALUATION).read_bytes()
    assert not (plain / TENSORBOARD).exists()

    events = EventAccumulator(str(logged / TENSORBOARD)).Reload()
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [120, 240]
    assert "train/critic_loss" in events.Tags()["scalars"]

    first, *logged_points, last = points
    assert first["project"] == "mine"
    assert first["name"] == spec.run_id
    assert "/" not in first["id"]
    returns = [p for p in logged_points if "eval/mean_reward" in p]
    assert [point["env_steps"] for point in returns] == [120, 240]
    assert last == "finished"


def test_a_missing_package_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3po_bench.leaderboard.options.find_spec", lambda name: None)
    check_loggers(RunOptions())
    with pytest.raises(SuiteError, match="--tensorboard needs tensorboard"):
        check_loggers(RunOptions(tensorboard=True))
    with pytest.raises(SuiteError, match="--wandb needs wandb"):
        check_loggers(RunOptions(wandb="mine"))
