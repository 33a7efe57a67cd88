"""Online and K-shot, test and ood: which are played, with which memory, into which rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

import m3po_bench  # noqa: F401 - registers the ids
from m3po_bench.leaderboard.aggregate import leaderboard, load_rows, reference_key
from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.leaderboard.files import compressed
from m3po_bench.leaderboard.grid import Budget, RunSpec, Variant
from m3po_bench.leaderboard.references import Reference
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.settings import (
    ONLINE,
    OOD,
    SETTINGS,
    SHOTS,
    TEST,
    TRIAL,
    UNSEEN,
    make_envs,
    make_further_envs,
    n_episodes,
    rows_of,
    unseen_schedule,
)
from m3po_bench.leaderboard.store import EVALUATION, Store
from m3po_bench.leaderboard.verify import verify

POINT, PENDULUM = "M3PO/PointFwdBwd-v0", "M3PO/PendulumRandomParams-v0"


class Counting:
    """Acts by how many steps it remembers."""

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[Any, Any]:
        count = np.zeros(len(observation)) if state is None else state
        count = np.where(episode_start, 0, count) + 1
        return (count[:, None] / 1000.0).astype(np.float32), count


def further(
    env_id: str, schedule: str = "hazard"
) -> dict[tuple[str, str], list[gym.Env[Any, Any]]]:
    kwargs = {"schedule": schedule}
    found = make_further_envs(env_id, kwargs, make_envs(env_id, kwargs)[0])
    return {(setting, split): envs for setting, split, envs in found}


def test_ood_is_played_where_there_is_any(toys: Any) -> None:
    assert set(further(POINT)) == {(UNSEEN, TEST), (TRIAL, TEST)}
    assert n_episodes(further(PENDULUM)[ONLINE, OOD]) == 20
    assert further(toys.ENV) == {}


@pytest.mark.parametrize("schedule", ["hazard", "periodic"])
def test_the_other_schedule_is_another_one(schedule: str) -> None:
    env = further(POINT, schedule)[UNSEEN, TEST][0]
    (episode,) = evaluate(Counting(), [env], [0])
    (same,) = evaluate(
        Counting(), [gym.make(POINT, split="test", schedule=unseen_schedule(schedule))], [0]
    )
    assert unseen_schedule(schedule) != schedule
    assert episode.steps_since_change.tolist() == same.steps_since_change.tolist()
    assert rows_of(episode, env, UNSEEN, TEST)[0].setting == UNSEEN


def test_a_trial_keeps_task_and_memory_over_its_episodes() -> None:
    trials = further(POINT)[TRIAL, TEST]
    (trial,) = evaluate(Counting(), trials[:1], [3])
    assert trial.actions[:, 0] == pytest.approx(np.arange(1, 301) / 1000.0)
    assert trial.n_changes == 0
    assert len(np.unique(trial.tasks, axis=0)) == 1
    rows = rows_of(trial, trials[0], TRIAL, TEST)
    assert [row.setting for row in rows] == list(SHOTS)
    assert [row.length for row in rows] == [100] * 3
    assert [row.episode for row in rows] == [3] * 3
    counted = replace(trial, reported={"count": np.arange(300.0), "one": np.ones(300)})
    reported = [row.reported for row in rows_of(counted, trials[0], TRIAL, TEST)]
    assert reported == [(49.5, 1.0), (149.5, 1.0), (249.5, 1.0)]
    totals = [trial.rewards[i : i + 100].sum() for i in (0, 100, 200)]
    assert [row.total for row in rows] == pytest.approx(totals)
    # The first episode is the one that is played online, where nothing changes.
    (alone,) = evaluate(Counting(), [gym.make(POINT, split="test", schedule="episodic")], [3])
    assert rows[0].total == pytest.approx(alone.total)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Store:
    budget = Budget(100, preset="tiny", checkpoints=2, eval_episodes=2, final_episodes=4)
    store = Store(tmp_path_factory.mktemp("runs"))
    Run(RunSpec(PENDULUM, "hazard", "Random", Variant("Random"), budget, 0), store).execute()
    return store


def test_every_setting_gets_its_rows_at_the_last_step(played: Store) -> None:
    rows = load_rows(played.finished())
    final = rows[rows["step"] == 100]
    counts = final.groupby(["setting", "split"])["episode"].apply(list).to_dict()
    assert counts == {
        ("online", "test"): [0, 1, 2, 3], ("online", "ood"): [0, 1, 2, 3],
        ("unseen", "test"): [0, 1, 2, 3],
        **{(shot, "test"): [0, 1, 2, 3] for shot in SHOTS},
    }  # fmt: skip
    assert set(rows[rows["step"] == 50]["setting"]) == {"online"}


def known(oracle: float) -> dict[str, Reference]:
    return {r: Reference(m, 1, 1, "", {}) for r, m in (("random", -2000.0), ("oracle", oracle))}


def test_the_report_shows_all_of_them(played: Store) -> None:
    references = {(PENDULUM, "hazard"): known(-100.0), (PENDULUM, "periodic"): known(-300.0)}
    report = write_report(played, references)
    assert set(report.table["setting"]) == set(SETTINGS)
    assert "PendulumRandomParams, hazard, online, ood" in report.markdown
    assert "| Agent   | 0-shot   | 1-shot   | 2-shot   |" in report.markdown
    assert "Under a schedule not learnt under (periodic)" in report.markdown
    table = report.table.set_index(report.table["setting"] + " " + report.table["split"])
    returns, scores = table["return_mean"].to_dict(), table["score"].to_dict()
    gaps = table[["ood_gap", "schedule_gap"]].dropna().to_dict("index")
    ood = pytest.approx(returns["online test"] - returns["online ood"])
    unseen = pytest.approx(scores["online test"] - scores["unseen test"])
    assert gaps == {"online test": {"ood_gap": ood, "schedule_gap": unseen}}
    write_report(played)  # with the references that verify knows
    assert verify(played.root) == (1, [])


def test_trials_are_measured_against_constant_tasks_and_ood_against_nothing() -> None:
    names = {"agent": "A", "env": POINT, "schedule": "hazard", "seed": 0, "step": 9}
    rows = pd.DataFrame(
        [
            {**names, "setting": setting, "split": split, "episode": 0, "return": 5.0}
            for setting, split in (("online", "test"), ("online", "ood"), ("2-shot", "test"))
        ]
    )

    references = {(POINT, "hazard"): known(2010.0), (POINT, "episodic"): known(6020.0)}
    table = leaderboard(rows, references, 1).set_index(["setting", "split"])["score"]
    assert table["online", "test"] == 0.5
    assert table["2-shot", "test"] == 0.25
    assert np.isnan(table["online", "ood"])
    assert reference_key(POINT, "single", "online", "test") == (POINT, "single")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("100,2-shot,ood,0,-5.0,200,0", "split 'ood': not known"),
        ("100,2-shot,test,0,-5.0,200,0", "expected each once, from 0 on"),
        ("50,2-shot,test,0,-5.0,200,0", "only at the last step"),
        ("100,9-shot,test,0,-5.0,200,0", "not known"),
    ],
)
def test_rows_that_no_run_writes_are_found(
    played: Store, tmp_path: Path, line: str, problem: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(played.root, copy)
    path = next(copy.rglob(EVALUATION))
    path.write_bytes(path.read_bytes() + compressed(f"{line}\n".encode()))  # gzip allows members
    _, problems = verify(copy)
    assert any(problem in text for text in problems), problems
