from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3po_bench.tasks import FiniteTasks, Task, TaskDistribution, UniformTasks
from m3po_envs.schedules import SCHEDULES, Change, parse_schedule

FINITE = FiniteTasks(("direction",), ((-1.0,), (1.0,)))
UNIFORM = UniformTasks(("gain", "mass"), ((1.0, 2.0), (1.0, 3.0)), signs=("gain",))


def draw(
    schedule: Any,
    seed: int = 0,
    horizon: int = 200,
    tasks: TaskDistribution = FINITE,
) -> tuple[Change, ...]:
    first = tasks.sample(np.random.default_rng(seed + 1))
    rng = np.random.default_rng(seed)
    return parse_schedule(schedule).changes(rng, horizon, tasks, first)


def steps(changes: tuple[Change, ...]) -> list[int]:
    return [change.step for change in changes]


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    seed=st.integers(0, 10_000),
    horizon=st.integers(1, 300),
    tasks=st.sampled_from([FINITE, UNIFORM]),
)
def test_changes_lie_inside_the_episode_and_bring_other_tasks(
    name: str, seed: int, horizon: int, tasks: TaskDistribution
) -> None:
    try:
        parse_schedule(name).check(tasks)
    except ValueError:
        assert tasks is FINITE
        assert name in ("drift", "compound")
        return
    changes = draw(name, seed, horizon, tasks)
    times = steps(changes)
    assert times == sorted(set(times))
    assert all(1 <= step < horizon for step in times)
    task = tasks.sample(np.random.default_rng(seed + 1))
    for change in changes:
        assert change.task.params != task.params
        task = change.task


@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_generators_give_equal_changes(name: str) -> None:
    assert draw(name, seed=5, tasks=UNIFORM) == draw(name, seed=5, tasks=UNIFORM)


def test_static_and_episodic_never_change_inside_an_episode() -> None:
    assert draw("static") == draw("episodic") == ()
    assert parse_schedule("static").keeps_first_task
    assert not parse_schedule("episodic").keeps_first_task


def test_single_changes_once_in_the_middle_half() -> None:
    times = [steps(draw("single", seed)) for seed in range(300)]
    assert all(len(found) == 1 and 50 <= found[0] <= 150 for found in times)
    assert len({found[0] for found in times}) > 60


def test_single_changes_at_a_given_step() -> None:
    assert steps(draw({"name": "single", "step": 7})) == [7]
    assert draw({"name": "single", "step": 200}) == ()


def test_periodic_changes_after_every_period() -> None:
    assert steps(draw({"name": "periodic", "period": 60})) == [60, 120, 180]
    assert steps(draw({"name": "periodic", "period": 100})) == [100]


def test_hazard_changes_at_its_rate() -> None:
    per_episode = [len(draw("hazard", seed)) for seed in range(2000)]
    assert np.mean(per_episode) == pytest.approx(1.99, abs=0.1)
    assert steps(draw({"name": "hazard", "rate": 1})) == list(range(1, 200))
    assert draw({"name": "hazard", "rate": 0.0}) == ()


def test_hazard_may_change_before_any_step_but_the_first() -> None:
    times = {
        step for seed in range(300) for step in steps(draw({"name": "hazard", "rate": 0.1}, seed))
    }
    assert times == set(range(1, 200))


def test_recurrent_returns_to_the_very_first_task_at_thirds() -> None:
    first = UNIFORM.sample(np.random.default_rng(4))
    changes = parse_schedule("recurrent").changes(np.random.default_rng(0), 200, UNIFORM, first)
    assert steps(changes) == [66, 133]
    assert changes[0].task.params != first.params
    assert changes[1].task is first


@pytest.mark.parametrize("kind", ["linear", "sinusoid", "random_walk"])
def test_drift_stays_in_the_range_and_keeps_signs(kind: str) -> None:
    for seed in range(50):
        first = UNIFORM.sample(np.random.default_rng(seed + 1))
        changes = draw({"name": "drift", "kind": kind, "scale": 0.5}, seed, tasks=UNIFORM)
        assert steps(changes) == list(range(5, 200, 5))
        values = np.array([change.task.params for change in changes])
        assert (np.sign(values[:, 0]) == np.sign(first.params[0])).all()
        assert (np.abs(values) >= np.array([1.0, 1.0]) - 1e-9).all()
        assert (np.abs(values) <= np.array([2.0, 3.0]) + 1e-9).all()


def test_linear_drift_is_a_line_and_a_sinusoid_comes_back() -> None:
    first = UNIFORM.sample(np.random.default_rng(1))
    line = np.array(
        [c.task.params for c in draw({"name": "drift", "kind": "linear"}, tasks=UNIFORM)]
    )
    moves = np.diff(line, axis=0)
    assert np.allclose(moves, moves[0])
    assert np.abs(moves[0]).max() > 0
    swing = draw({"name": "drift", "kind": "sinusoid", "every": 10, "period": 40}, tasks=UNIFORM)
    at = {change.step: np.array(change.task.params) for change in swing}
    assert np.allclose(at[40], first.params)
    assert np.allclose(at[20], at[60])
    assert not np.allclose(at[20], first.params)


def test_drift_is_a_line_in_the_logarithm_where_that_is_uniform() -> None:
    tasks = UniformTasks(("scale",), ((0.1, 10.0),), log=("scale",))
    drift = parse_schedule({"name": "drift", "kind": "linear", "every": 1})
    changes = drift.changes(np.random.default_rng(0), 100, tasks, Task((1.0,)))
    logs = np.log([change.task.params[0] for change in changes])
    assert np.allclose(np.diff(logs), logs[0])


def test_compound_changes_each_part_at_its_own_time() -> None:
    schedule = {
        "name": "compound",
        "parts": [
            {"params": ["gain"], "schedule": {"name": "periodic", "period": 70}},
            {"params": ["mass"], "schedule": {"name": "single", "step": 100}},
        ],
    }
    first = UNIFORM.sample(np.random.default_rng(1))
    changes = draw(schedule, tasks=UNIFORM)
    assert steps(changes) == [70, 100, 140]
    gains, masses = zip(first.params, *(change.task.params for change in changes), strict=True)
    assert gains[0] != gains[1] == gains[2] != gains[3]
    assert masses[0] == masses[1] != masses[2] == masses[3]
    only_gain = {"name": "compound", "parts": schedule["parts"][:1]}
    assert {change.task.params[1] for change in draw(only_gain, tasks=UNIFORM)} == {first.params[1]}


def test_compound_takes_over_the_defaults_of_its_parts_schedules() -> None:
    defaults: dict[str, Any] = {"hazard": {"rate": 1.0}, "periodic": {"period": 70}}
    first = UNIFORM.sample(np.random.default_rng(1))
    parts = [
        {"params": ["gain"], "schedule": "periodic"},
        {"params": ["mass"], "schedule": {"name": "periodic", "period": 100}},
    ]
    for schedule, expected in (
        ("compound", list(range(1, 200))),
        ({"name": "compound", "parts": parts}, [70, 100, 140]),
    ):
        parsed = parse_schedule(schedule, defaults)
        assert steps(parsed.changes(np.random.default_rng(0), 200, UNIFORM, first)) == expected


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("drift", "the tasks ('direction',) are a list; nearest: schedule='hazard'"),
        ("compound", "the tasks ('direction',) are a list; nearest: schedule='hazard'"),
    ],
)
def test_a_list_of_tasks_is_refused_where_a_range_is_needed(schedule: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(schedule)


def test_compound_refuses_unknown_parameters() -> None:
    schedule = {"name": "compound", "parts": [{"params": ["gian"], "schedule": "hazard"}]}
    with pytest.raises(ValueError, match="nearest: gain"):
        draw(schedule, tasks=UNIFORM)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hazzard", "unknown schedule 'hazzard'; nearest: hazard"),
        ({"name": "hazard", "rat": 0.1}, "argument of schedule 'hazard' 'rat'; nearest: rate"),
        ({"name": "static", "rate": 0.1}, "argument of schedule 'static' 'rate'; known: (none)"),
        ({"name": "hazard", "rate": 1.5}, "rate=1.5, expected a probability in [0, 1]"),
        ({"name": "hazard", "rate": "often"}, "rate='often', expected a probability"),
        ({"name": "hazard", "rate": float("nan")}, "rate=nan, expected a probability"),
        ({"name": "periodic", "period": 0}, "period=0, expected a whole number of steps"),
        ({"name": "periodic", "period": 2.5}, "period=2.5, expected a whole number of steps"),
        ({"name": "single", "step": True}, "step=True, expected a whole number of steps"),
        ({"name": "drift", "kind": "linaer"}, "unknown kind of schedule 'drift' 'linaer'; nearest"),
        ({"name": "drift", "scale": 0}, "scale=0, expected a share in (0, 1]"),
        ({"name": "compound", "defaults": {}}, "argument of schedule 'compound' 'defaults'"),
        ({"name": "compound", "parts": "gain"}, "parts='gain', expected a list"),
        ({"name": "compound", "parts": [{"params": ["a"]}]}, "expected {"),
        (
            {"name": "compound", "parts": [{"params": ["a"], "schedule": "hazrd"}]},
            "unknown schedule 'hazrd'; nearest: hazard",
        ),
        ({"rate": 0.1}, "expected a name or a dict"),
        (3, "schedule 3: expected a name or a dict"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_schedule(value)
