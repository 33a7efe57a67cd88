from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from m3po_bench.leaderboard import provenance
from m3po_bench.leaderboard.aggregate import load_rows
from m3po_bench.leaderboard.checksums import KEY
from m3po_bench.leaderboard.files import read_json
from m3po_bench.leaderboard.grid import Budget, RunSpec, Variant
from m3po_bench.leaderboard.model_files import play_model, saved_spec
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, EVALUATION, MODEL, RUN, TRACE, Store
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.leaderboard.traces import load_table


@pytest.fixture
def spec(toys: Any) -> RunSpec:
    table = {**tomllib.loads(toys.SUITE.text), "agents": ["Toy"]}
    return parse_suite(table).runs()[0]


def _execute(spec: RunSpec, root: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    store = Store(root)
    Run(spec, store).execute()
    record = read_json(store.folder(spec) / RUN)
    assert record is not None
    return pd.read_csv(store.folder(spec) / EVALUATION), record


def test_checkpoints_are_equally_spaced_and_the_last_plays_all(
    spec: RunSpec, tmp_path: Path, toys: Any
) -> None:
    rows, record = _execute(spec, tmp_path)
    played = rows.groupby("step")["episode"].apply(list).to_dict()
    assert played == {20: [0, 1], 40: [0, 1], 60: list(range(toys.N_EPISODES))}
    assert record["env_steps"] == 60
    assert set(rows["setting"]) == {"online"}


def test_what_an_env_reports_is_kept_beside_the_return(
    spec: RunSpec, tmp_path: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = toys.LineEnv._info
    monkeypatch.setattr(toys.LineEnv, "reported", ("elapsed",), raising=False)
    monkeypatch.setattr(toys.LineEnv, "_info", lambda env: {**told(env), "elapsed": env.t})
    rows, _ = _execute(spec, tmp_path)
    assert rows["elapsed"].tolist() == ((1 + rows["length"]) / 2).tolist()
    monkeypatch.undo()
    silent = replace(spec, seed=1)
    _execute(silent, tmp_path)
    store = Store(tmp_path)
    together = load_rows(store.finished())
    assert together.groupby("seed")["elapsed"].count().to_dict() == {0: len(rows), 1: 0}
    assert len(together) == 2 * len(rows)
    names = {path.name for path in write_report(store).paths}
    assert {"elapsed_hazard.png", "learning_curves_hazard.png"} <= names


def test_an_agent_that_calls_no_callback_is_not_finished(
    spec: RunSpec, tmp_path: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(agent: Any, total_timesteps: int, callback: Any = None) -> Any:
        agent.num_timesteps += total_timesteps
        return agent

    monkeypatch.setattr(toys.ToyAgent, "learn", learn)
    with pytest.raises(RuntimeError, match=r"made 60 .* but has not called its callback at 20"):
        _execute(spec, tmp_path)


def test_final_episodes_can_be_limited(spec: RunSpec, tmp_path: Path) -> None:
    limited = replace(spec, budget=replace(spec.budget, final_episodes=3))
    rows, _ = _execute(limited, tmp_path)
    assert (rows["step"] == 60).sum() == 3


def test_record_says_where_the_result_comes_from(spec: RunSpec, tmp_path: Path) -> None:
    _, record = _execute(spec, tmp_path)
    assert record["protocol"] == "P1"
    assert record["config_hash"] == spec.config_hash
    assert record["config"]["steps"] == 60
    assert {"python", "gymnasium", "mujoco", "torch", "stable-baselines3"} <= set(
        record["versions"]
    )
    assert record["training_seconds"]["wall"] >= 0
    assert record["evaluation_seconds"]["wall"] > 0
    assert record["peak_memory_mb"] > 10
    assert record["diagnostics"] == {"episodes_seen": 6.0}
    assert record["cpu"]


def test_record_has_the_commit_and_the_versions_of_its_start(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def commit() -> str:
        asked.append("commit")
        return f"commit {len(asked)}"

    monkeypatch.setattr(provenance, "commit", commit)
    run, usual = Run(spec, Store(tmp_path)), Run._learn

    def learn(self: Run, model: Any, log: Any) -> dict[str, float]:
        monkeypatch.setattr(provenance, "versions", lambda: {"torch": "of another day"})
        return usual(self, model, log)

    monkeypatch.setattr(Run, "_learn", learn)
    run.execute()
    record = read_json(Store(tmp_path).folder(spec) / RUN)
    assert record is not None
    assert (record["commit"], asked) == ("commit 1", ["commit"])
    assert record["versions"]["torch"] != "of another day"


def test_what_follows_on_changes_is_sealed_and_a_report_leaves_it(tmp_path: Path) -> None:
    budget = Budget(steps=100, preset="tiny", checkpoints=1, eval_episodes=1)
    spec = RunSpec("M3PO/PointFwdBwd-v0", "hazard", "Random", Variant("Random"), budget, 0)
    _, record = _execute(spec, tmp_path)
    store = Store(tmp_path)
    assert set(record[KEY]) == {RUN, EVALUATION, MODEL, TRACE, CHANGES, BY_AGE}
    files = {path: path.read_bytes() for path in store.folder(spec).iterdir()}
    changes = load_table(store.finished(), CHANGES)
    assert len(changes) > 0
    assert changes["recovery"].notna().all()  # by the references that the package ships
    write_report(store)
    assert {path: path.read_bytes() for path in store.folder(spec).iterdir()} == files
    write_report(store, {})  # which has other ones
    assert load_table(store.finished(), CHANGES)["recovery"].isna().all()
    write_report(store)
    assert store.damaged() == []
    for name in (CHANGES, BY_AGE):
        assert (store.folder(spec) / name).read_bytes() == files[store.folder(spec) / name]
    (store.folder(spec) / CHANGES).write_bytes(files[store.folder(spec) / BY_AGE])
    assert store.damaged() == [(store.folder(spec), f"{CHANGES} is not as it was written")]


def test_evaluation_time_is_not_training_time(spec: RunSpec, tmp_path: Path, toys: Any) -> None:
    pauses = {"pause": 0.002, "predict_pause": 0.02}
    _, record = _execute(replace(spec, variant=Variant("Toy", pauses)), tmp_path)
    assert 60 * 0.002 <= record["training_seconds"]["wall"] < 0.35
    assert record["evaluation_seconds"]["wall"] >= 3 * toys.HORIZON * 0.02


def test_more_checkpoints_do_not_change_what_is_learnt(spec: RunSpec, tmp_path: Path) -> None:
    few, _ = _execute(replace(spec, budget=replace(spec.budget, checkpoints=1)), tmp_path / "a")
    many, _ = _execute(replace(spec, budget=replace(spec.budget, checkpoints=30)), tmp_path / "b")
    final = many[many["step"] == 60].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, final)


def test_agent_that_stops_early_has_failed(spec: RunSpec, tmp_path: Path) -> None:
    lazy = replace(spec, agent="ToyLazy", variant=Variant("ToyLazy"))
    with pytest.raises(RuntimeError, match="stopped after 20 of 60"):
        _execute(lazy, tmp_path)
    assert not Store(tmp_path).is_finished(lazy)


def test_an_agent_that_earns_nothing_finite_has_failed(spec: RunSpec, tmp_path: Path) -> None:
    broken = replace(spec, variant=Variant("Toy", {"predict_plus": float("nan")}))
    with pytest.raises(FloatingPointError, match="Toy earned nan in test episode 0 after 20 steps"):
        _execute(broken, tmp_path)
    assert not Store(tmp_path).is_finished(broken)


def test_agent_that_would_go_on_is_stopped(spec: RunSpec, tmp_path: Path) -> None:
    _, record = _execute(replace(spec, variant=Variant("Toy", {"stop_at": 200})), tmp_path)
    assert record["env_steps"] == 61


def test_the_trained_model_is_kept_and_can_be_played(spec: RunSpec, tmp_path: Path) -> None:
    rows, _ = _execute(replace(spec, agent="Mine"), tmp_path)
    path = next(tmp_path.rglob(MODEL))
    assert [file.name for file in path.parent.glob("*.zip")] == [MODEL]
    saved = saved_spec(path, {})
    assert saved["agent"] == "Toy"
    final = rows[rows["step"] == 60]
    played = [episode.total for episode in play_model(path, saved)]
    assert played == pytest.approx(list(final["return"]))
