from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.point import PointFwdBwdEnv, oracle_return


def episode_return(env: gym.Env[Any, Any], act: str, index: int) -> tuple[float, float]:
    """Return of a constant or oracle policy, and what ``oracle_return`` expects."""
    env.reset(options={"episode": index})
    point = env.unwrapped
    assert isinstance(point, PointFwdBwdEnv)
    start, directions, total, over = point.velocity, [], 0.0, False
    while not over:
        directions.append(point.task.params[0])
        action = point.optimal_action() if act == "oracle" else np.zeros(1, np.float32)
        _, reward, _, over, _ = env.step(action)
        total += float(reward)
    return total, oracle_return(directions, start)


def test_the_analytic_return_is_that_of_the_oracle() -> None:
    env = gym.make("M3PO/PointFwdBwd-v0", split="test")
    returns = np.array([episode_return(env, "oracle", i) for i in range(40)])
    assert returns[:, 0].mean() == pytest.approx(returns[:, 1].mean(), abs=0.5)
    assert np.abs(returns[:, 0] - returns[:, 1]).max() < 5  # the noise adds up to about 1
    assert returns[:, 1].mean() > 75


def test_standing_still_earns_next_to_nothing() -> None:
    env = gym.make("M3PO/PointFwdBwd-v0", split="test")
    returns = [episode_return(env, "nothing", i)[0] for i in range(40)]
    assert abs(np.mean(returns)) < 1


def test_a_wrong_direction_costs_what_a_right_one_earns() -> None:
    assert oracle_return([1.0] * 100) == pytest.approx(100 - 4 - 5, abs=0.01)
    assert oracle_return([-1.0] * 100) == pytest.approx(oracle_return([1.0] * 100))


def test_observations_do_not_tell_the_direction() -> None:
    observed = []
    for task in (0, 1):
        env = PointFwdBwdEnv(schedule="static")
        seen = [env.reset(seed=0, options={"task": task})[0]]
        seen += [env.step(np.array([np.sin(t)], np.float32))[0] for t in range(50)]
        observed.append(np.array(seen))
    assert np.array_equal(observed[0], observed[1])


def test_forces_are_cut_at_one() -> None:
    env = PointFwdBwdEnv()
    results = []
    for force in (1.0, 30.0):
        env.reset(seed=0)
        results.append(env.step(np.array([force]))[:2])
    assert results[0][1] == results[1][1]
    assert np.array_equal(results[0][0], results[1][0])
