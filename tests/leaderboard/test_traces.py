"""From per-step traces to what is kept of them: hand-made episodes, known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m3po_bench.leaderboard.entry_metrics import METRICS, RECOVERY_HORIZON, entry_metrics
from m3po_bench.leaderboard.evaluation import Episode
from m3po_bench.leaderboard.grid import Suite
from m3po_bench.leaderboard.metrics import NEVER, Recovery, recovery_times, survival
from m3po_bench.leaderboard.plots import agent_colours
from m3po_bench.leaderboard.recovery_plots import recovery_curves
from m3po_bench.leaderboard.references import Reference
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, TRACE, Store
from m3po_bench.leaderboard.trace_file import write_trace
from m3po_bench.leaderboard.traces import (
    FEW_CHANGES,
    by_age,
    changes_of,
    load_table,
    trace_of,
)

LENGTH, CHANGE = 30, 10


def episode(index: int = 0, tasks: tuple[int, ...] = (0, 1), slow: int = 4) -> Episode:
    """Each task lasts ten steps or to the end; after a change ``slow`` steps earn -1, then 1."""
    starts = [CHANGE * i for i in range(len(tasks))]
    which = np.searchsorted(starts, np.arange(LENGTH), side="right") - 1
    age = np.arange(LENGTH) - np.asarray(starts)[which]
    rewards = np.where((which > 0) & (age < slow), -1.0, 1.0)
    return Episode(
        index=index,
        observations=np.zeros((LENGTH + 1, 1)),
        actions=np.zeros((LENGTH, 1)),
        rewards=rewards,
        task_ids=np.asarray(tasks)[which],
        tasks=np.zeros((LENGTH, 1)),
        steps_since_change=age,
        n_changes=len(tasks) - 1,
    )


def known(by_age: tuple[float, ...], mean: float = 0.0) -> Reference:
    return Reference(mean, 3, 100, "", {}, by_age)


REFERENCES = {"random": known((0.0,) * 20, -1.0), "oracle": known((0.0, *[1.0] * 19), 1.0)}


def test_each_change_is_measured() -> None:
    trace = trace_of([episode(0), episode(7, (0, 1, 0), slow=2)])
    table = changes_of(trace, REFERENCES).set_index(["episode", "step"])
    assert list(table.index) == [(0, 10), (7, 10), (7, 20)]
    assert table["length"].tolist() == [20, 10, 10]
    # Four of the worst five steps earn -1 and one 1, after a window of ones: 1 - -0.6.
    assert table["drop"].tolist() == pytest.approx([1.6, 0.8, 0.8])
    # The oracle earns 0, 1, 1, 1 meanwhile.
    assert table["regret"].tolist() == pytest.approx([7.0, 3.0, 3.0])
    # At 0.8 of the way, all five of a window must be right.
    assert table["recovery"].tolist() == [4, 2, 2]
    assert table["recovered"].tolist() == [1, 1, 1]
    # The task that came back had only been there since the reset, from rest.
    assert table["savings"].isna().all()


def test_a_fall_after_a_change_is_no_chance_end() -> None:
    """Of a thousand episodes cut off while adapting none tells anything, of falls all do."""
    at = CHANGE + 3
    whole = episode()
    cut = replace(
        whole,
        rewards=whole.rewards[:at],
        task_ids=whole.task_ids[:at],
        steps_since_change=whole.steps_since_change[:at],
    )
    trace = trace_of([cut, replace(cut, index=1, terminated=True)])
    assert trace["terminated"].sum() == 1
    table = changes_of(trace, REFERENCES)
    assert table["recovered"].tolist() == [0, 0]
    assert table["recovery"].tolist() == [3, NEVER]
    # The oracle earns 0, 1, 1 and then 1 in each of the 17 steps that the fall has taken away.
    assert table["regret"].tolist() == pytest.approx([5.0, 5.0 + 17.0])
    # An episode that would have been cut off after two more steps loses no more than these.
    assert changes_of(trace, REFERENCES, at + 2)["regret"].tolist() == pytest.approx([5.0, 7.0])
    times = recovery_times(table["recovery"], table["recovered"])
    assert survival([*times, Recovery(2, True)], [RECOVERY_HORIZON]) == pytest.approx([0.5])


def test_a_trace_without_the_column_is_of_an_env_without_falls() -> None:
    trace = trace_of([episode()])
    of_before = changes_of(trace.drop(columns="terminated"), REFERENCES)
    pd.testing.assert_frame_equal(of_before, changes_of(trace, REFERENCES))


def test_without_references_there_is_the_drop_alone() -> None:
    table = changes_of(trace_of([episode()]), {})
    assert table["drop"].tolist() == pytest.approx([1.6])
    assert table[["regret", "recovery", "savings"]].isna().all(axis=None)


def test_savings_are_those_of_a_task_that_comes_back() -> None:
    slow_then_fast = episode(0, (0, 1, 0, 1))
    rewards = slow_then_fast.rewards.copy()
    rewards[10:14], rewards[20:24] = -1.0, -1.0
    faster = np.concatenate([rewards, np.ones(10)])
    faster[30:32] = -1.0
    age = np.arange(40) % 10
    trace = pd.DataFrame(
        {
            "episode": 0, "step": np.arange(40), "reward": faster,
            "task_id": np.repeat([0, 1, 0, 1], 10), "steps_since_change": age,
        }
    )  # fmt: skip
    table = changes_of(trace, REFERENCES)
    assert table["savings"].iloc[2] == pytest.approx(7.0 - 3.0)
    assert table["savings"].notna().sum() == 1


@pytest.mark.parametrize(
    ("tasks", "back"),
    [
        ([0, 1, 0], []),  # the reset had brought it
        ([0, 1, 0, 1, 0, 1], [3]),  # once: afterwards both are known
        ([0, 1, 2, 0, 2, 1], [4]),  # 1 has been away for more than one task
    ],
)
def test_a_task_is_back_where_a_change_had_brought_it_once(
    tasks: list[int], back: list[int]
) -> None:
    n = 10 * len(tasks)
    trace = pd.DataFrame(
        {
            "episode": 0, "step": np.arange(n), "reward": 0.0,
            "task_id": np.repeat(tasks, 10), "steps_since_change": np.arange(n) % 10,
        }
    )  # fmt: skip
    table = changes_of(trace, REFERENCES)
    assert (np.flatnonzero(table["savings"].notna()) + 1).tolist() == back


def test_a_drift_leaves_no_time_to_adapt() -> None:
    trace = trace_of([episode()])
    trace["steps_since_change"] = 0
    assert changes_of(trace, REFERENCES).empty


def test_rewards_by_age_are_of_changes_only() -> None:
    some = trace_of([episode(i) for i in range(FEW_CHANGES)])
    table = by_age(some)
    assert table["age"].tolist() == list(range(20))
    assert table["reward"].tolist() == [-1.0] * 4 + [1.0] * 16
    assert (table["changes"] == FEW_CHANGES).all()
    assert by_age(trace_of([episode(i) for i in range(FEW_CHANGES - 1)])).empty
    assert by_age(trace_of([episode(i, (0,)) for i in range(9)])).empty


def _rows(returns: dict[int, dict[int, float]], length: int = 100) -> pd.DataFrame:
    """Evaluation rows of one entry: seed, then step, then the return of two episodes."""
    names = {"agent": "A", "env": "M3PO/PointFwdBwd-v0", "schedule": "hazard"}
    return pd.DataFrame(
        [
            {**names, "seed": seed, "step": step, "setting": "online", "split": "test",
             "episode": i, "return": value + 2 * i - 1, "length": length, "n_changes": 0}
            for seed, curve in returns.items()
            for step, value in curve.items()
            for i in range(2)
        ]
    )  # fmt: skip


def test_curves_are_measured_against_references_in_the_same_episodes() -> None:
    rows = _rows({0: {10: 0.3, 20: 0.7}})  # of the first two episodes, where the oracle has 0.5
    oracle = replace(REFERENCES["oracle"], returns=(0.4, 0.6, 2.0))
    assert oracle.in_first(2) == pytest.approx(0.5)
    assert oracle.in_first(4) == oracle.mean
    references = {("M3PO/PointFwdBwd-v0", "hazard"): {**REFERENCES, "oracle": oracle}}
    (entry,) = entry_metrics(rows, pd.DataFrame(), references).to_dict("records")
    assert (entry["steps_to_50"], entry["steps_to_80"]) == (10, 10)  # four fifths are 0.2
    (entry,) = entry_metrics(
        rows, pd.DataFrame(), {("M3PO/PointFwdBwd-v0", "hazard"): REFERENCES}
    ).to_dict("records")
    assert (entry["steps_to_50"], entry["steps_to_80"]) == (10, 20)


def test_metrics_of_an_entry_are_means_over_seeds() -> None:
    rows = _rows({0: {10: -1.0, 20: 1.0}, 1: {10: 0.5, 20: 0.5}})
    changes = pd.DataFrame(
        {
            "agent": "A", "env": "M3PO/PointFwdBwd-v0", "schedule": "hazard",
            "seed": [0, 0, 1], "drop": [1.0, 3.0, 4.0], "regret": [2.0, 4.0, 9.0],
            "recovery": [5, 5, 70], "recovered": [1, 1, 0], "savings": [np.nan] * 3,
        }
    )  # fmt: skip
    references = {("M3PO/PointFwdBwd-v0", "hazard"): REFERENCES}
    (entry,) = entry_metrics(rows, changes, references).to_dict("records")
    assert set(METRICS) <= set(entry)
    assert entry["curve_area"] == pytest.approx((-0.5 + 0.5) / 2)
    assert entry["steps_to_50"] == pytest.approx((20 + 10) / 2)  # 0 is half way
    assert np.isnan(entry["steps_to_80"])  # the second seed never gets to 0.6
    assert entry["cvar_10"] == pytest.approx((0.0 - 0.5) / 2)
    assert entry["falls_per_1000"] == 0.0
    assert entry["changes"] == 1.5
    assert entry["drop"] == pytest.approx((2.0 + 4.0) / 2)
    assert entry["regret"] == pytest.approx((3.0 + 9.0) / 2)
    assert entry["recovery_time"] == pytest.approx((5 + RECOVERY_HORIZON) / 2)
    assert np.isnan(entry["recovery_median"])  # half of the second seed's changes never are
    assert entry["never_recovered"] == pytest.approx(0.5)


def test_an_episode_that_ends_before_its_time_is_a_fall() -> None:
    rows = _rows({0: {10: 0.0}}, length=50)
    (entry,) = entry_metrics(rows, pd.DataFrame(), {}).to_dict("records")
    assert entry["falls_per_1000"] == pytest.approx(1000 * 2 / 100)
    assert np.isnan(entry["regret"])


@pytest.fixture
def traced(tmp_path: Path, toys: Any) -> Store:
    """Finished runs of a toy suite, each with a trace."""
    import tomllib

    from m3po_bench.leaderboard.suite_files import parse_suite

    suite: Suite = parse_suite({**tomllib.loads(toys.SUITE.text), "agents": ["Toy", "ToyTold"]})
    store = Store(tmp_path / "out")
    store.write_suite(suite)
    for run in suite.runs():
        store.begin(run)
        store.add_rows(run, [(60, "online", "test", i, 1.0, LENGTH, 1) for i in range(6)])
        slow = 2 if run.agent == "ToyTold" else 6
        write_trace(store.folder(run), [episode(i, slow=slow + i % 2) for i in range(6)])
        store.finish(run, {"versions": {}})
    return store


def test_a_report_without_traces_says_the_same_as_with_them(traced: Store, toys: Any) -> None:
    references = {(toys.ENV, "hazard"): REFERENCES}
    with_traces = write_report(traced, references)
    assert (traced.root / "figures" / "recovery_hazard.png").is_file()
    assert "Never recovered" in with_traces.markdown
    table = with_traces.table.set_index("agent")
    assert table.loc["ToyTold", "recovery_time"] == pytest.approx(2.5)
    assert table.loc["Toy", "recovery_time"] == pytest.approx(6.5)
    for trace in traced.root.rglob(TRACE):
        trace.unlink()
    without = write_report(traced, references)
    assert without.markdown == with_traces.markdown
    pd.testing.assert_frame_equal(without.table, with_traces.table)


def test_a_table_never_mixes_references(traced: Store, toys: Any) -> None:
    """Where they have changed: with traces all follows, without the old numbers are left out."""
    twice = {**REFERENCES, "oracle": known((0.0, *[2.0] * 19), 2.0)}
    first, second = ({(toys.ENV, "hazard"): of} for of in (REFERENCES, twice))
    old = write_report(traced, first).table["regret"]
    new = write_report(traced, second).table["regret"]
    assert (new > old + 1.0).all()
    assert traced.damaged() == []
    for trace in traced.root.rglob(TRACE):
        trace.unlink()
    pd.testing.assert_series_equal(write_report(traced, second).table["regret"], new)
    again = write_report(traced, first).table
    assert again[["regret", "recovery_time", "savings"]].isna().all(axis=None)
    assert again["drop"].notna().all()


def test_a_picture_of_recovery_needs_no_references(traced: Store) -> None:
    write_report(traced, {})
    changes, ages = (load_table(traced.finished(), name) for name in (CHANGES, BY_AGE))
    assert recovery_curves(ages, changes, {}, agent_colours(ages["agent"])).startswith(b"\x89PNG")
