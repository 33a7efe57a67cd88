"""What every registered ``M3PO/*`` id tells planners is what its steps do."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.base import VISIBILITIES

IDS = sorted(env_id for env_id in gym.registry if env_id.startswith("M3PO/"))
STEPS = 12
STATED = re.compile(
    r"with 1,000 uniform random actions \(seed 0\), its error has mean (\S+) and root mean square "
    r"(\S+), beside a deviation of (\S+) of the reward itself"
)


@functools.cache
def planner_body(env_id: str, visibility: str) -> Any:
    """An env without wrappers whose observation determines the reward, of a busy schedule."""
    kwargs: dict[str, Any] = {
        "schedule": {"name": "hazard", "rate": 0.2},
        "visibility": visibility,
        "disable_env_checker": True,
    }
    env = gym.make(env_id, **kwargs).unwrapped
    if "observation" not in inspect.signature(type(env)).parameters:
        return env
    # Where the standard observation does not determine the reward, the planner's does.
    return gym.make(env_id, **kwargs, observation="planner").unwrapped


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("visibility", VISIBILITIES)
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.floats(0.0, 0.3),
    strength=st.floats(0.0, 1.0),
)
def test_rewards_and_ends_are_those_that_planners_are_told(
    env_id: str, visibility: str, seed: int, spread: float, strength: float
) -> None:
    """Also in states beyond those that end an episode: the body goes on from there."""
    env = planner_body(env_id, visibility)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    if hasattr(env, "set_state"):
        qpos = env.data.qpos + spread * rng.standard_normal(env.model.nq)
        env.set_state(qpos, 5.0 * spread * rng.standard_normal(env.model.nv))
    obs: Any = None
    rows = []
    for _ in range(STEPS):
        action = (strength * rng.uniform(-1, 1, env.action_space.shape)).astype(np.float32)
        task = env.task.vector
        next_obs, reward, terminated, *_ = env.step(action)
        if obs is not None:  # the observation at the reset does not show the changed state
            rows.append((obs, action, next_obs, task, float(reward), terminated))
        obs = next_obs
    before, actions, after, tasks, rewards, ends = (np.array(x) for x in zip(*rows, strict=True))
    assert np.array_equal(env.terminated(before, actions, after), ends)
    told = env.reward(before, actions, after, tasks)
    assert told.shape == rewards.shape
    assert told == pytest.approx(rewards, rel=1e-6, abs=1e-5)
    one_for_all = env.reward(before, actions, after, tasks[0])
    assert np.array_equal(
        one_for_all, env.reward(before, actions, after, np.repeat(tasks[:1], len(rows), 0))
    )


@pytest.mark.parametrize("env_id", IDS)
def test_where_the_reward_is_not_exact_its_error_is_the_stated_one(env_id: str) -> None:
    env: Any = gym.make(env_id, disable_env_checker=True).unwrapped
    card = " ".join((type(env).__doc__ or "").split())
    if "observation" not in inspect.signature(type(env)).parameters:
        assert "``reward()`` is exact (to float32 rounding of the observation)" in card
        return
    found = STATED.search(card)
    assert found is not None
    rng, rows, age = np.random.default_rng(0), [], 0
    obs, _ = env.reset(seed=0)
    for _ in range(1000):
        task, action = env.task.vector, rng.uniform(-1, 1, env.action_space.shape)
        next_obs, reward, terminated, *_ = env.step(action)
        rows.append((obs, action, next_obs, task, reward))
        obs, age = next_obs, age + 1
        if terminated or age == env.horizon:
            (obs, _), age = env.reset(), 0
    *transitions, rewards = (np.array(column) for column in zip(*rows, strict=True))
    error = env.reward(*transitions) - rewards
    mean, root_mean_square, deviation = (float(number) for number in found.groups())
    # Rounded figures, and another build of MuJoCo soon goes another way.
    assert np.sqrt(np.mean(error**2)) == pytest.approx(root_mean_square, rel=0.2)
    assert rewards.std() == pytest.approx(deviation, rel=0.2)
    assert error.mean() == pytest.approx(mean, abs=0.3 * root_mean_square)
