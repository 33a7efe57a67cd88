from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3po_bench.tasks import FiniteTasks, TaskDistribution, UniformTasks
from m3po_envs.schedules import SCHEDULES, Change, parse_schedule

FINITE = FiniteTasks(("direction",), ((-1.0,), (1.0,)))
UNIFORM = UniformTasks(("gain", "mass"), ((1.0, 2.0), (1.0, 3.0)), signs=("gain",))


def draw(
    schedule: str | dict[str, Any],
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
        ({"rate": 0.1}, "expected a name or a dict"),
        (3, "schedule 3: expected a name or a dict"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_schedule(value)
