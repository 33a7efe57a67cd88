from __future__ import annotations

import contextlib
import json
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3po_bench import registry
from m3po_bench.leaderboard.grid import (
    Budget,
    RunSpec,
    Suite,
    SuiteError,
    Variant,
    check_envs,
    check_variants,
)
from m3po_bench.leaderboard.suite_files import MAX_BYTES, load_suite, parse_suite, suite_names
from m3po_bench.registry import UnknownNameError, agent_spec

KEYS = (
    "name", "envs", "schedule", "agents", "seeds", "steps", "preset", "checkpoints",
    "eval_episodes", "final_episodes", "budgets", "variants", "description", "like",
)  # fmt: skip


@pytest.fixture
def table(toys: Any) -> dict[str, Any]:
    return tomllib.loads(toys.SUITE.text)


def test_grid_is_every_combination_once(table: dict[str, Any]) -> None:
    suite = parse_suite({**table, "schedule": ["hazard", "static"], "seeds": 3})
    ids = [run.run_id for run in suite.runs()]
    assert len(ids) == len(set(ids)) == 2 * 2 * 3
    assert "Line-static/Toy/seed2" in ids


def test_envs_that_would_share_a_folder_are_refused(table: dict[str, Any]) -> None:
    suite = parse_suite(table)
    with pytest.raises(SuiteError, match="M3PO/Line-v0 and Mine/Line-v1 share a folder's name"):
        replace(suite, envs=("M3PO/Line-v0", "Mine/Line-v1"))


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
        ({"agents": ["Toy", "Toy"]}, "Toy is there twice; expected each once"),
        ({"envs": ["PointFwdBwd", "M3PO/PointFwdBwd-v0"]}, "M3PO/PointFwdBwd-v0 is there twice"),
        ({"envs": ["PointFwdBwt"]}, "unknown env 'PointFwdBwt'; nearest: PointFwdBwd"),
        ({"name": "../up"}, "name '../up'"),
        ({"budgets": {"Toi": {}}}, "unknown agent in [budgets] 'Toi'"),
        ({"budgets": {"Toy": {"stepz": 1}}}, "unknown key in [budgets.Toy] 'stepz'"),
        ({"budgets": {"Toy": {"steps": -1}}}, "steps = -1"),
        ({"budgets": 3}, "budgets = 3: expected a table"),
        ({"variants": {"V": {"kwargs": {}}}}, "expected a table with the key agent"),
        ({"variants": {"V": {"agent": "Toi"}}}, "unknown agent 'Toi'"),
        ({"variants": {"Toy": {"agent": "ToyTold"}}}, "Toy means a registered agent; expected a"),
        ({"variants": {"all": {"agent": "Toy"}}}, "all means every agent; expected a name of its"),
        ({"variants": {"V": {"agent": "Toy", "kwargs": {"env": "x"}}}}, "kwargs has env; expected"),
        ({"variants": {"V": {"agent": "Toy", "kwargs": {"seed": 1}}}}, "kwargs has seed; expected"),
        ({"variants": {"V": {"agent": "Toy", "kwargs": {"policy": "x"}}}}, "kwargs has policy; "),
        ({"variants": {"V": {"agent": ["Toy"]}}}, "agent = ['Toy']: expected a name"),
        ({"variants": {"V": {"agent": "Toy", "kwargs": {"a": date(2020, 1, 1)}}}}, "expected num"),
        ({"variants": {"V": {"agent": "Toy", "kwargs": {"a": float("nan")}}}}, "expected numbers"),
        ({"seeds": 10**9}, "seeds = 1000000000: expected at most 100,000"),
        ({"steps": 10**40}, "steps = 10000000000000000000: expected at most 1,000,000,000,000"),
        ({"preset": ["tiny"]}, "unknown preset ['tiny']"),
        ({"schedule": "../up"}, "name '../up'"),
        ({"name": "x" * 300}, "expected letters, digits"),
        ({"like": "lit"}, "unknown suite 'lit'; nearest: lite"),
        ({"like": ["lite"]}, "unknown suite ['lite']"),
        ({"like": "lite", "budgets": 3}, "budgets = 3: expected a table"),
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


def test_suite_takes_from_the_one_it_is_like_what_it_leaves_out() -> None:
    own = {"name": "mine", "like": "lite", "steps": 500, "budgets": {"MAML": {"steps": 700}}}
    mine, lite = parse_suite(own), load_suite("lite")
    assert (mine.name, mine.description) == ("mine", "")
    assert (mine.envs, mine.agents, mine.seeds) == (lite.envs, lite.agents, lite.seeds)
    assert mine.budget == replace(lite.budget, steps=500)
    assert mine.budgets["MAML"] == replace(lite.budgets["MAML"], steps=700)
    assert mine.budgets["GrBAL"] == replace(lite.budgets["GrBAL"], steps=500)
    assert mine.budgets["RL2"] == lite.budgets["RL2"]


def test_suite_needs_a_name_of_its_own() -> None:
    with pytest.raises(SuiteError, match="name is missing"):
        parse_suite({"like": "lite"})


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


def test_hash_depends_on_the_revision_of_the_preset(
    table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parse_suite(table).runs()[0]
    before, spec = run.config_hash, agent_spec(run.variant.agent)
    assert "revision" not in run.config
    for preset, changes in ((run.budget.preset, True), ("quick", False)):
        revised = replace(spec, revisions={preset: 1})
        monkeypatch.setattr(registry, "_AGENTS", {spec.name: revised})
        assert (run.config_hash != before) == changes


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


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.dates(),
    st.text(max_size=20), st.sampled_from(["Toy", "../x", "/etc/passwd", "Toy/Line-v0", "tiny"]),
)  # fmt: skip
HOSTILE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Toy", "agent", "kwargs", "steps", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from([*KEYS, "unheard_of"]), value=HOSTILE)
def test_any_value_is_taken_or_refused_in_one_line(
    table: dict[str, Any], key: str, value: Any
) -> None:
    try:
        suite = parse_suite({**table, key: value})
    except (SuiteError, UnknownNameError) as refused:
        said = str(refused)
    else:
        said = ""
        first = suite.runs()[0]
        assert first.run_id.count("/") == 2
        assert ".." not in first.run_id.split("/")
        assert len(first.config_hash) == 12
    assert "\n" not in said


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=80), at=st.integers(0, 200))
def test_any_text_in_a_suite_is_survived(toys: Any, tmp_path: Path, text: str, at: int) -> None:
    path = tmp_path / "suite.toml"
    whole = toys.SUITE.text
    path.write_text(whole[:at] + text + whole[at:], encoding="utf-8", errors="replace")
    with contextlib.suppress(SuiteError, UnknownNameError):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = " + b"[" * 50_000, "nested too deeply"),
        (b"a." * 20_000 + b"b = 1", "suite "),
        (b"# " + b"x" * MAX_BYTES, "more than 1,000,000 bytes"),
        (b"seeds = " + b"9" * 10_000, "suite "),
        (b"seeds = nan", "suite "),
        (b"\xff", "not a text file"),
    ],
)
def test_hostile_files_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(content)
    with pytest.raises((SuiteError, UnknownNameError)) as caught:
        load_suite(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.symlink_to("/dev/zero")
    with pytest.raises(SuiteError, match="not a file"):
        load_suite(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(SuiteError, match="not a file"):
        load_suite(str(path))


def test_arguments_of_variants_must_exist(table: dict[str, Any]) -> None:
    def suite(agent: str, **kwargs: Any) -> Suite:
        variants = {"V": {"agent": agent, "kwargs": kwargs}}
        return parse_suite({**table, "agents": ["V"], "variants": variants})

    check_variants(suite("M3PO", gamma=0.5))
    check_variants(suite("SAC", gamma=0.5))  # an argument of the class it passes all others on to
    check_variants(suite("GHP-MDP", support=3))
    for agent, wrong in (("M3PO", "gama"), ("SAC", "gama"), ("GHP-MDP", "suport")):
        with pytest.raises(
            UnknownNameError, match=f"unknown argument of {agent} '{wrong}'; nearest"
        ):
            check_variants(suite(agent, **{wrong: 1}))
