"""What runs will cost is judged by finished ones, of the same env if there are any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from m3po_bench.leaderboard.costs import RUNS_COLUMNS, Costs, run_costs
from m3po_bench.leaderboard.grid import Budget, RunSpec, Variant
from m3po_bench.leaderboard.store import Store

POINT, PENDULUM = "M3PO/PointFwdBwd-v0", "M3PO/PendulumRandomParams-v0"
SPEC = RunSpec(POINT, "hazard", "SAC", Variant("SAC"), Budget(100, preset="tiny"), 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for spec, seconds in (
        (SPEC, 10.0),
        (replace(SPEC, seed=1), 30.0),
        (replace(SPEC, env=PENDULUM), 80.0),
    ):
        store.begin(spec)
        spent = {"training_seconds": {"cpu": seconds - 1}, "evaluation_seconds": {"cpu": 1.0}}
        store.finish(spec, {**spent, "env_steps": 100})
    store.begin(replace(SPEC, seed=2))
    store.finish(replace(SPEC, seed=2), {"env_steps": 0})  # says nothing
    return store


def test_costs_are_those_of_the_same_env_and_training_scales_with_steps(store: Store) -> None:
    costs = Costs([store])
    assert costs.core_seconds(replace(SPEC, seed=7)) == pytest.approx(20.0)
    longer = replace(SPEC, budget=Budget(1000, preset="tiny"))
    assert costs.core_seconds(longer) == pytest.approx(191.0)  # evaluation: one second, as before
    assert costs.core_seconds(replace(SPEC, env=PENDULUM)) == pytest.approx(80.0)


def test_another_env_is_better_than_nothing_but_not_another_preset(store: Store) -> None:
    costs = Costs([store])
    elsewhere = replace(SPEC, env="M3PO/PointActuatorFault-v0")
    assert costs.core_seconds(elsewhere) == pytest.approx(30.0)  # the median of all
    assert costs.core_seconds(replace(SPEC, budget=Budget(100, preset="quick"))) is None
    assert costs.core_seconds(replace(SPEC, variant=Variant("M3PO"))) is None
    assert Costs([]).core_seconds(SPEC) is None


def test_every_run_is_listed_with_what_it_took(store: Store) -> None:
    table = run_costs(store.finished())
    assert tuple(table.columns) == RUNS_COLUMNS
    assert list(table["env"]) == [PENDULUM, POINT, POINT, POINT]
    assert list(table["seed"]) == [0, 0, 1, 2]
    minutes = table["training_core_minutes"]
    assert list(minutes[:3]) == pytest.approx([79 / 60, 9 / 60, 29 / 60])
    assert list(table["evaluation_core_minutes"][:3]) == pytest.approx([1 / 60] * 3)
    assert table["training_wall_minutes"].isna().all()  # these records do not tell
    assert pd.isna(minutes[3])
    assert table["config_hash"].nunique() == 2  # seeds of one entry share theirs
