from __future__ import annotations

import gzip
import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from m3po_bench import registry
from m3po_bench.leaderboard.aggregate import (
    LEADERBOARD_COLUMNS,
    interval,
    leaderboard,
    load_rows,
    of_common_episodes,
    over_envs,
    score,
    seed_returns,
)
from m3po_bench.leaderboard.checksums import KEY
from m3po_bench.leaderboard.entry_metrics import entry_metrics
from m3po_bench.leaderboard.files import compressed, read_json, write_atomically
from m3po_bench.leaderboard.grid import Suite, SuiteError
from m3po_bench.leaderboard.references import (
    Reference,
    References,
    compute_references,
    dump_references,
    load_references,
    merged,
    parse_references,
)
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, COLUMNS, EVALUATION, ROWS, RUN, Store
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.registry import UnknownNameError, agent_spec

PNG = b"\x89PNG"


def _reference(mean: float) -> Reference:
    return Reference(mean, 3, 100, "m3po-bench run references", {"python": "3.11"})


@pytest.fixture
def references(toys: Any) -> References:
    return {(toys.ENV, "hazard"): {"random": _reference(-10.0), "oracle": _reference(10.0)}}


@pytest.fixture
def suite(toys: Any) -> Suite:
    return parse_suite({**tomllib.loads(toys.SUITE.text), "agents": ["Toy", "ToyTold"]})


@pytest.fixture
def store(tmp_path: Path, suite: Suite) -> Store:
    """Finished runs: seed s of the n-th agent returns 5n + s in its last step, -9 before."""
    store = Store(tmp_path / "out")
    store.write_suite(suite)
    for run in suite.runs():
        value = 5.0 * suite.agents.index(run.agent) + run.seed
        store.begin(run)
        store.add_rows(run, [(20, "online", "test", 0, -9.0, 10, 0)])
        # Episodes of different returns, whose mean is the seed's.
        store.add_rows(run, [(60, "online", "test", i, value + i - 1, 10, 0) for i in range(3)])
        store.finish(run, {"versions": {"python": "3.11"}})
    return store


def test_leaderboard_has_its_exact_columns(store: Store, references: References) -> None:
    table = leaderboard(load_rows(store.finished()), references, 2)
    assert tuple(table.columns) == LEADERBOARD_COLUMNS
    assert ",".join(LEADERBOARD_COLUMNS) == (
        "agent,env,schedule,setting,split,n_seeds,complete,return_mean,return_low,return_high,"
        "score,score_low,score_high"
    )
    best = table.iloc[0]
    assert best["agent"] == "ToyTold"
    assert (best["return_mean"], best["return_low"], best["return_high"]) == (5.5, 5.0, 6.0)
    assert (best["score"], best["score_low"], best["score_high"]) == (0.775, 0.75, 0.8)
    assert bool(best["complete"])
    assert not leaderboard(load_rows(store.finished()), references, 3)["complete"].any()


def test_only_the_last_checkpoint_counts(store: Store) -> None:
    returns = {key.agent: value for key, value in seed_returns(load_rows(store.finished())).items()}
    assert returns == {"Toy": {0: 0.0, 1: 1.0}, "ToyTold": {0: 5.0, 1: 6.0}}


def test_missing_or_useless_references_give_no_score() -> None:
    assert np.isnan(score(1.0, {"random": _reference(0.0)}))
    assert np.isnan(score(1.0, {"random": _reference(0.0), "oracle": _reference(0.0)}))
    assert score(1.0, {"random": _reference(0.0), "oracle": _reference(4.0)}) == 0.25


def test_interval_is_students_from_five_seeds_on() -> None:
    assert interval([3.0, 1.0, 2.0, 9.0]) == (1.0, 9.0)
    values = np.random.default_rng(1).normal(size=12)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert interval(list(values)) == pytest.approx(tuple(expected))
    assert interval([2.0] * 5) == (2.0, 2.0)
    draws = np.random.default_rng(2).normal(size=(2000, 5))
    inside = [low < 0.0 < high for low, high in map(interval, draws.tolist())]
    assert 0.93 < np.mean(inside) < 0.97  # a percentile bootstrap's: 0.84


def test_configurations_are_never_mixed(store: Store, suite: Suite) -> None:
    run = replace(suite.runs()[0], seed=5, budget=replace(suite.budget, steps=99))
    store.begin(run)
    store.finish(run, {})
    with pytest.raises(SuiteError, match="configured unlike other seeds"):
        load_rows(store.finished())


def test_damaged_rows_are_said(store: Store) -> None:
    finished = store.finished()
    (finished[0][0] / EVALUATION).write_bytes(b"no rows")  # of a run without checksums
    with pytest.raises(SuiteError, match=r"evaluation\.csv\.gz: .*; run the suite again"):
        load_rows(finished)


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no finished runs"):
        write_report(Store(tmp_path))


def test_report_writes_table_and_figure(store: Store, references: References) -> None:
    report = write_report(store, references)
    names = [str(path.relative_to(store.root)) for path in report.paths]
    assert names == [
        *(f"leaderboard.{kind}" for kind in ("md", "csv", "tex")),
        "runs.csv",
        "pairs.csv",
        "leaderboard.html",
        "figures/learning_curves_hazard.png",
        "figures/scores_hazard.png",
    ]
    assert all(path.exists() for path in report.paths)
    for path in report.paths[6:]:
        assert path.read_bytes().startswith(PNG)
    csv = pd.read_csv(report.paths[1])
    assert list(csv["agent"]) == ["ToyTold", "Toy"]
    assert csv["score"].tolist() == [0.775, 0.525]
    assert "each seed shown" in report.markdown
    assert "| 5.0, 6.0 " in report.markdown
    assert "random -10.0 (3 seeds, 100 steps)" in report.markdown
    assert "target" in report.markdown  # what ToyTold is told
    assert "*" not in report.markdown
    before = {path: path.read_bytes() for path in report.paths}
    write_report(store, references)
    assert {path: path.read_bytes() for path in report.paths} == before


def test_report_draws_what_it_is_handed_from_the_runs_own_measures(
    store: Store, suite: Suite
) -> None:
    toy = next(run for run in suite.runs() if run.seed == 1)
    folder = store.folder(toy)
    (folder / ROWS).write_bytes(gzip.decompress((folder / EVALUATION).read_bytes()))
    store.finish(toy, {"versions": {}, "diagnostics": {"gap/k1": 0.5}})
    handed: list[pd.DataFrame] = []

    def draw(measures: pd.DataFrame, colours: Mapping[str, Any]) -> bytes:
        assert set(colours) == set(measures["agent"])
        handed.append(measures.set_index(["agent", "seed"]))
        return PNG

    report = write_report(store, {}, {"drawn": draw, "nothing": lambda measures, colours: None})
    assert (store.root / "figures" / "drawn.png").read_bytes() == PNG
    assert not any("nothing" in path.name for path in report.paths)
    assert handed[0].loc[(toy.agent, 1), "gap/k1"] == 0.5
    assert handed[0]["gap/k1"].isna().to_dict()[(toy.agent, 0)]
    # Of the last checkpoint, episodes averaged: see ``store``.
    assert handed[0].loc[(toy.agent, 1), "return"] == pytest.approx(
        5.0 * suite.agents.index(toy.agent) + 1
    )


def test_report_without_references_and_seeds_says_so(store: Store, suite: Suite) -> None:
    store.write_suite(replace(suite, seeds=3))
    report = write_report(store, {})
    assert "No reference for random and oracle: no score." in report.markdown
    assert "| Toy * " in report.markdown
    assert "2 of 3" in report.markdown
    # No score; of the metrics behind it, the curve's area and the worst return.
    assert (
        "\nToy,Toy/Line-v0,hazard,online,test,2,False,0.5000,0.0000,1.0000,,,,-6.1667,,,-0.5000,"
        in report.paths[1].read_text()
    )


def test_five_seeds_get_brackets(store: Store, suite: Suite, references: References) -> None:
    for run in replace(suite, seeds=5).runs():
        store.begin(run)
        store.add_rows(run, [(60, "online", "test", 0, float(run.seed), 10, 0)])
        store.finish(run, {})
    markdown = write_report(store, references).markdown
    assert "95% intervals over seeds" in markdown
    assert "each seed shown" not in markdown
    assert "[" in markdown


@pytest.fixture
def played(store: Store, toys: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Finished runs of Random and Oracle, two seeds each, whose models are toys."""
    for name in ("Random", "Oracle"):
        spec = replace(agent_spec(name), entry_point="toy_bench:ToyAgent", env_kwargs={})
        monkeypatch.setitem(registry._AGENTS, name, spec)
    text = toys.SUITE.text.replace('"ToySlow"', '"Random"').replace('"Toy"', '"Oracle"')
    for run in parse_suite(tomllib.loads(text)).runs():
        model = toys.ToyAgent("", None)
        model.best = np.full(1, {"Random": -1.0, "Oracle": 0.2}[run.agent] - 0.1 * run.seed)
        store.begin(run)
        store.add_rows(run, [(60, "online", "test", 0, 0.0, 10, 0)])
        store.keep_model(run, model.save)
        store.finish(run, {"versions": {"python": "3.11"}})
    return store


def test_references_are_played_under_every_schedule_that_the_env_has(
    played: Store, toys: Any
) -> None:
    found = compute_references(played)
    assert set(found) == {(toys.ENV, "hazard"), (toys.ENV, "static")}
    # The toy plays best + 0.01 t against targets 0, 0.1, ... in episodes of 10 - i steps.
    expected = [
        np.mean(
            [
                -sum(abs(best + 0.01 * t - 0.1 * i) for t in range(1, toys.HORIZON - i + 1))
                for i in range(toys.N_EPISODES)
            ]
        )
        for best in (0.2, 0.1)
    ]
    oracle = found[toys.ENV, "hazard"]["oracle"]
    assert oracle.mean == pytest.approx(np.mean(expected), abs=1e-3)
    assert (oracle.n_seeds, oracle.steps, oracle.command) == (2, 60, "m3po-bench run toys")
    assert found[toys.ENV, "hazard"]["random"].mean < oracle.mean
    assert parse_references(dump_references(found)) == found


def test_references_of_the_wanted_envs_only(played: Store, toys: Any) -> None:
    assert compute_references(played, [toys.ENV]) == compute_references(played)
    with pytest.raises(SuiteError, match="no runs of HalfCheetahPier; there are some of: "):
        compute_references(played, ["HalfCheetahPier"])
    with pytest.raises(UnknownNameError, match="HalfCheetahPier"):
        compute_references(played, ["HalfCheetahPear"])


def test_references_without_runs_or_models_are_refused(store: Store, toys: Any) -> None:
    with pytest.raises(SuiteError, match="no finished runs of Random, Oracle, SAC under 'hazard'"):
        compute_references(store)
    text = toys.SUITE.text.replace('"ToySlow"', '"Random"')
    run = parse_suite(tomllib.loads(text)).runs()[0]
    store.begin(run)
    store.finish(run, {"versions": {}})
    with pytest.raises(SuiteError, match="no model at"):
        compute_references(store)


def test_an_optimum_known_in_closed_form_is_the_oracle(
    played: Store, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def optimal_action(env: Any) -> Any:
        return np.array([env.target])

    monkeypatch.setattr(toys.LineEnv, "optimal_action", optimal_action, raising=False)
    found = compute_references(played)[toys.ENV, "static"]
    assert (found["oracle"].mean, found["oracle"].n_seeds, found["oracle"].steps) == (0.0, 1, 0)
    assert (found["random"].n_seeds, found["random"].steps) == (2, 60)


def test_merging_keeps_what_is_not_replaced(references: References, toys: Any) -> None:
    key = (toys.ENV, "hazard")
    both = merged(references, {key: {"oracle": _reference(3.0)}, ("E", "static"): {}})
    assert both[key]["random"].mean == -10.0
    assert both[key]["oracle"].mean == 3.0
    assert ("E", "static") in both


def test_shipped_references_can_be_read_and_are_ordered() -> None:
    for roles in load_references().values():
        if {"random", "oracle"} <= set(roles):
            assert roles["random"].mean < roles["oracle"].mean


def test_scores_of_several_envs_are_taken_together(
    store: Store, suite: Suite, references: References, toys: Any
) -> None:
    assert over_envs(load_rows(store.finished()), references).empty  # one env is not several
    gym.register("Toy/Other-v0", entry_point="toy_bench:LineEnv")
    try:
        for run in replace(suite, envs=("Toy/Other-v0",), seeds=5).runs():
            store.begin(run)
            store.add_rows(run, [(60, "online", "test", 0, 10.0 * (run.agent == "Toy"), 10, 0)])
            store.finish(run, {"versions": {"python": "3.11"}})
    finally:
        gym.registry.pop("Toy/Other-v0")
    both = {**references, ("Toy/Other-v0", "hazard"): references[toys.ENV, "hazard"]}
    table = over_envs(load_rows(store.finished()), both).set_index("agent")
    # Toy: 0.5 and 0.55 on one env, five times 1 on the other; ToyTold: 0.75, 0.8, five times 0.5.
    assert table.loc["Toy", "iqm"] == pytest.approx((0.55 + 4 * 1.0) / 5)
    assert table.loc["Toy", "score_mean"] == pytest.approx((0.525 + 1.0) / 2)
    assert table.loc["Toy", "optimality_gap"] == pytest.approx((0.5 + 0.45) / 7)
    assert table.loc["ToyTold", "iqm"] == pytest.approx((4 * 0.5 + 0.75) / 5)
    assert list(table["n_seeds"]) == [2, 2]
    assert table["iqm_low"].isna().all()
    report = write_report(store, both)
    assert "## All envs, hazard, online, test" in report.markdown
    several = ("over_envs.csv", "figures/performance_profiles_hazard.png")
    assert all((store.root / name).is_file() for name in several)
    # Another report, of one env alone, leaves nothing of this one but what is not a report's.
    shutil.rmtree(store.root / "Other-hazard")
    shutil.copy(store.root / several[1], store.root / "figures" / "scores_static.png")
    others = ("figures/mine.png", "figures/notes.txt", "figures/scores_hazard.pdf", "runs_2.csv")
    for name in others:
        (store.root / name).touch()
    kept = {path.relative_to(store.root).as_posix() for path in write_report(store, both).paths}
    found = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*.*")}
    assert {name for name in found if "/seed" not in name} == kept | {*others, "suite.json"}


def test_curves_compare_agents_on_the_episodes_that_all_have_played() -> None:
    names = {"env": "E", "schedule": "hazard", "seed": 0, "setting": "online", "split": "test"}
    rows = pd.DataFrame(
        [
            {**names, "agent": agent, "step": step, "episode": episode, "return": float(episode)}
            for agent, few in (("Planner", 2), ("Other", 3))
            for step, n in ((5, few), (10, 6))
            for episode in range(n)
        ]
    )
    assert set(of_common_episodes(rows)["episode"]) == {0, 1}
    # What is said of one agent does not depend on who else is there.
    metrics = entry_metrics(rows.assign(length=5), pd.DataFrame(), {}).set_index("agent")
    assert metrics["curve_area"].to_dict() == {"Planner": 0.5, "Other": 1.0}


@pytest.mark.parametrize("content", ["return,step\n1,2\n", f"{','.join(COLUMNS)}\n1,2", ""])
def test_rows_that_no_run_writes_are_never_read_as_another_runs(
    store: Store, suite: Suite, content: str
) -> None:
    path = store.folder(suite.runs()[0]) / EVALUATION
    record = read_json(path.with_name(RUN))
    assert record is not None
    del record[KEY]  # of a time before there were checksums
    write_atomically(path.with_name(RUN), json.dumps(record))
    path.write_bytes(compressed(content.encode()))
    with pytest.raises(SuiteError, match=r"evaluation.csv.gz: expected rows of step,setting"):
        load_rows(store.finished())
    path.unlink()
    with pytest.raises(SuiteError, match=r"without evaluation.csv.gz; run the suite again"):
        load_rows(store.finished())


@pytest.mark.parametrize("name", [CHANGES, BY_AGE])
@pytest.mark.parametrize(
    "content", [b"garbage", compressed(b"\xff"), compressed(b"a,b\n1,2\n"), compressed(b"x")[:-5]]
)
def test_tables_without_checksums_that_no_run_writes_are_said_in_one_line(
    store: Store, suite: Suite, name: str, content: bytes
) -> None:
    path = store.folder(suite.runs()[0]) / name
    path.write_bytes(content)
    with pytest.raises(SuiteError, match="run the suite again, or remove the file") as caught:
        write_report(store, {})
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
