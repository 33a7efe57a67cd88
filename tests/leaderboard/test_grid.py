from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.grid import (
    Budget,
    RunSpec,
    SuiteError,
    Variant,
    check_envs,
    load_suite,
    parse_suite,
    suite_names,
)
from m3po_bench.registry import UnknownNameError


@pytest.fixture
def table(toys: Any) -> dict[str, Any]:
    return tomllib.loads(toys.SUITE.text)


def test_grid_is_every_combination_once(table: dict[str, Any]) -> None:
    suite = parse_suite({**table, "schedule": ["hazard", "static"], "seeds": 3})
    ids = [run.run_id for run in suite.runs()]
    assert len(ids) == len(set(ids)) == 2 * 2 * 3
    assert "Line-static/Toy/seed2" in ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "unknown key 'stepz'; nearest: steps"),
        ({"steps": 0}, "steps = 0: expected a whole number of at least 1"),
        ({"steps": True}, "steps = True"),
        ({"steps": "many"}, "steps = 'many'"),
        ({"seeds": 0}, "seeds = 0"),
        ({"checkpoints": 61}, "at most one per step"),
        ({"final_episodes": 1}, "final_episodes = 1"),
        ({"preset": "tny"}, "unknown preset 'tny'; nearest: tiny"),
        ({"agents": ["Toi"]}, "unknown agent 'Toi'; nearest: Toy"),
        ({"agents": []}, "agents = []"),
        ({"agents": ["Toy", "Toy"]}, "a name is there twice"),
        ({"envs": ["PointFwdBwt"]}, "unknown env 'PointFwdBwt'; nearest: PointFwdBwd"),
        ({"name": "../up"}, "name '../up'"),
        ({"budgets": {"Toi": {}}}, "unknown agent in [budgets] 'Toi'"),
        ({"budgets": {"Toy": {"stepz": 1}}}, "unknown key in [budgets.Toy] 'stepz'"),
        ({"budgets": {"Toy": {"steps": -1}}}, "steps = -1"),
        ({"budgets": 3}, "budgets = 3: expected a table"),
        ({"variants": {"V": {"kwargs": {}}}}, "expected a table with the key agent"),
        ({"variants": {"V": {"agent": "Toi"}}}, "unknown agent 'Toi'"),
    ],
)
def test_impossible_suites_are_refused(
    table: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_suite({**table, **change})
    assert isinstance(caught.value, (SuiteError, UnknownNameError))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_key_is_named(table: dict[str, Any]) -> None:
    del table["seeds"]
    with pytest.raises(SuiteError, match="seeds is missing"):
        parse_suite(table)


def test_budgets_lie_over_the_suite(table: dict[str, Any]) -> None:
    suite = parse_suite({**table, "budgets": {"Toy": {"steps": 5, "checkpoints": 1}}})
    assert suite.budgets["Toy"] == Budget(5, checkpoints=1, eval_episodes=2)
    assert {r.budget.steps for r in suite.runs() if r.agent == "ToySlow"} == {60}


def test_variant_runs_its_agent_with_its_arguments(table: dict[str, Any]) -> None:
    variants = {"Toy-late": {"agent": "Toy", "kwargs": {"pause": 0.5}}}
    suite = parse_suite({**table, "agents": ["Toy", "Toy-late"], "variants": variants})
    run = suite.runs()[-1]
    assert (run.agent, run.variant.agent) == ("Toy-late", "Toy")
    assert run.config["kwargs"] == {"pause": 0.5}
    assert len({r.config_hash for r in suite.runs()}) == 2


def test_hash_depends_on_everything_but_the_seed(table: dict[str, Any]) -> None:
    run = parse_suite(table).runs()[0]
    same = replace(run, seed=7)
    others = [
        replace(run, budget=replace(run.budget, steps=61)),
        replace(run, budget=replace(run.budget, eval_episodes=3)),
        replace(run, schedule="static"),
        replace(run, variant=Variant(run.variant.agent, {"pause": 0.3})),
        replace(run, variant=Variant("Toy")),
    ]
    assert same.config_hash == run.config_hash
    assert len({run.config_hash, *(other.config_hash for other in others)}) == 6


def test_run_survives_json(table: dict[str, Any]) -> None:
    run = parse_suite(table).runs()[0]
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_selection(table: dict[str, Any]) -> None:
    suite = parse_suite(table)
    assert suite.select(agents=["ToyTold"], seeds=4).runs()[0].env_kwargs["told"]
    assert "M3PO" in suite.select(agents=["all"]).agents
    assert suite.select(envs=["PointFwdBwd"]).envs == ("M3PO/PointFwdBwd-v0",)
    with pytest.raises(UnknownNameError, match="nearest: Toy"):
        suite.select(agents=["Toi"])


@pytest.mark.parametrize("name", suite_names())
def test_packaged_suites_can_be_run(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    assert all(run.config_hash for run in suite.runs())
    check_envs(suite.envs, suite.schedules)


def test_quick_keeps_its_promise() -> None:
    assert all(run.budget.steps <= 3000 for run in load_suite("quick").runs())


def test_unreadable_files(tmp_path: Path) -> None:
    binary, broken = tmp_path / "binary.toml", tmp_path / "broken.toml"
    binary.write_bytes(bytes(range(256)))
    broken.write_text("name = ")
    for path, message in (
        (binary, "not a text file"),
        (broken, "not valid TOML"),
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "unknown suite"),
    ):
        with pytest.raises(ValueError, match=message):
            load_suite(str(path))


def test_unknown_schedule_is_the_envs_to_refuse(toys: Any) -> None:
    with pytest.raises(SuiteError, match="unknown schedule 'hazrd'; nearest: hazard"):
        check_envs([toys.ENV], ["hazrd"])
    with pytest.raises(SuiteError, match="hazard"):
        check_envs(["M3PO/PointFwdBwd-v0"], ["hazrd"])
