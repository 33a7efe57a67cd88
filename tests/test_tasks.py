from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3po_bench.tasks import FiniteTasks, Task, TaskDistribution, UniformTasks

DIRECTIONS = FiniteTasks(("direction",), ((-1.0,), (1.0,)))
LEGS = FiniteTasks(("leg", "scale"), ((0.0, 0.5), (1.0, 0.5), (2.0, 0.5)))
BODIES = UniformTasks(("gain", "mass"), ((1.0, 2.0), (0.1, 10.0)), log=("mass",), signs=("gain",))


def test_vector_is_a_fresh_copy() -> None:
    task = Task((1.0, 2.0))
    task.vector[:] = 0
    assert task.vector.tolist() == [1.0, 2.0]
    assert task.vector.dtype == np.float64


@given(seed=st.integers(0, 2**32), index=st.integers(0, 2))
def test_a_finite_draw_avoids_the_given_task(seed: int, index: int) -> None:
    given_task = LEGS.parse(index)
    drawn = LEGS.sample(np.random.default_rng(seed), other_than=given_task)
    assert drawn.index != index
    assert drawn == LEGS.parse(drawn.index)


def test_finite_draws_are_uniform_and_reach_every_task() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([LEGS.sample(rng).index for _ in range(3000)], minlength=3)
    assert np.all(np.abs(counts - 1000) < 120)


def test_a_lone_task_has_nothing_to_change_to() -> None:
    lone = FiniteTasks(("direction",), ((1.0,),))
    with pytest.raises(ValueError, match="nothing to change to"):
        lone.sample(np.random.default_rng(0), other_than=lone.parse(0))
    points = UniformTasks(("mass", "gain"), ((2.0, 2.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match="nothing to change to"):
        points.sample(np.random.default_rng(0), other_than=Task((2.0, 1.0)))
    signed = replace(points, signs=("gain",))
    assert signed.sample(np.random.default_rng(0), other_than=Task((2.0, 1.0))).params[1] == -1.0


@pytest.mark.parametrize("value", [1, np.int64(1), 1.0, (1.0,), [1], np.array([1.0]), Task((1.0,))])
def test_finite_tasks_are_found_by_index_or_values(value: object) -> None:
    assert DIRECTIONS.parse(value) == Task((1.0,), 1)


@pytest.mark.parametrize("value", [2, -1, 0.5, (1.0, 1.0), "forward", True, None, float("nan")])
def test_finite_tasks_refuse_what_is_none_of_them(value: object) -> None:
    with pytest.raises(ValueError, match="task"):
        DIRECTIONS.parse(value)


def test_uniform_draws_fill_their_ranges_and_take_both_signs() -> None:
    rng = np.random.default_rng(0)
    gain, mass = np.array([BODIES.sample(rng).params for _ in range(2000)]).T
    assert np.all((np.abs(gain) >= 1) & (np.abs(gain) <= 2))
    assert 0.45 < np.mean(gain < 0) < 0.55
    assert np.all((mass >= 0.1) & (mass <= 10))
    assert 0.45 < np.mean(mass < 1) < 0.55  # uniform in the logarithm: the median is 1
    assert np.abs(gain).max() > 1.99
    assert np.abs(gain).min() < 1.01


def test_bounds_hold_every_draw() -> None:
    rng = np.random.default_rng(1)
    distributions: tuple[TaskDistribution, ...] = (DIRECTIONS, LEGS, BODIES)
    for tasks in distributions:
        draws = np.array([tasks.sample(rng).params for _ in range(200)])
        assert np.all(draws >= tasks.low)
        assert np.all(draws <= tasks.high)
        assert tasks.low.shape == tasks.high.shape == (len(tasks.names),)


def test_uniform_tasks_have_values_but_no_index() -> None:
    assert BODIES.parse([1.5, 2.0]) == Task((1.5, 2.0))
    with pytest.raises(ValueError, match="no index"):
        BODIES.parse(0)
    with pytest.raises(ValueError, match="expected 2 values"):
        BODIES.parse([1.5])
    with pytest.raises(ValueError, match="finite"):
        BODIES.parse([1.5, float("inf")])


def test_malformed_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="every task needs"):
        FiniteTasks(("direction",), ((1.0, 2.0),))
    with pytest.raises(ValueError, match="2 names for 1 ranges"):
        UniformTasks(("gain", "mass"), ((0.0, 1.0),))
    with pytest.raises(ValueError, match=r"range of 'gain': .*expected low <= high"):
        UniformTasks(("gain",), ((1.0, 0.0),))
    with pytest.raises(ValueError, match="'damping'"):
        UniformTasks(("gain",), ((0.0, 1.0),), signs=("damping",))
