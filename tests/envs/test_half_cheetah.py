from __future__ import annotations

import copy
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.half_cheetah import HalfCheetahFwdBwdEnv


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_it_is_halfcheetah_v5_with_a_signed_forward_reward(direction: float) -> None:
    env = HalfCheetahFwdBwdEnv(schedule="static")
    plain = gym.make("HalfCheetah-v5", ctrl_cost_weight=0.05).unwrapped
    env.reset(seed=0, options={"task": direction})
    plain.reset(seed=0)
    plain.set_state(env.data.qpos.copy(), env.data.qvel.copy())  # type: ignore[attr-defined]
    env.set_state(env.data.qpos.copy(), env.data.qvel.copy())  # type: ignore[no-untyped-call]
    for data in (env.data, plain.data):  # type: ignore[attr-defined]
        data.qacc_warmstart[:] = 0.0  # where the solver starts is no part of Gymnasium's state
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, 6)
        obs, reward, _, _, info = env.step(action)
        expected_obs, _, _, _, expected = plain.step(action)
        assert np.array_equal(obs, expected_obs)
        assert info["reward_ctrl"] == expected["reward_ctrl"]
        assert info["reward_forward"] == direction * expected["x_velocity"]
        assert reward == direction * expected["x_velocity"] - 0.05 * np.sum(action**2)


def transitions(env: HalfCheetahFwdBwdEnv, n: int = 1000) -> tuple[NDArray[Any], ...]:
    rng, rows = np.random.default_rng(0), []
    obs, _ = env.reset(seed=0)
    for step in range(n):
        if step and step % 200 == 0:
            obs, _ = env.reset()
        task, action = env.task.vector, rng.uniform(-1, 1, 6)
        next_obs, reward, *_ = env.step(action)
        rows.append((obs, action, next_obs, task, reward))
        obs = next_obs
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def test_the_planner_observation_makes_the_reward_exact() -> None:
    obs, action, next_obs, task, reward = transitions(
        env := HalfCheetahFwdBwdEnv(observation="planner")
    )
    assert env.observation_space.shape == (18,)
    assert obs.shape[1] == env.observation_layout.width == 18
    assert np.allclose(env.reward(obs, action, next_obs, task), reward, rtol=0, atol=1e-12)


def test_copies_are_made_with_its_own_arguments() -> None:
    env = HalfCheetahFwdBwdEnv("single", "test", "oracle", "planner")
    other = copy.deepcopy(env)
    assert other.schedule == env.schedule
    assert (other.split, other.visibility) == ("test", "oracle")
    assert other.observation_space == env.observation_space


def test_an_unknown_observation_is_named() -> None:
    with pytest.raises(ValueError, match="unknown observation 'planer'; nearest: planner"):
        HalfCheetahFwdBwdEnv(observation="planer")


def seconds(env: gym.Env[Any, Any], action: NDArray[Any]) -> float:
    start = time.perf_counter()
    env.step(action)
    return time.perf_counter() - start


def test_a_step_costs_little_more_than_the_bodys() -> None:
    env = HalfCheetahFwdBwdEnv(schedule={"name": "hazard", "rate": 0.1})
    plain = gym.make("HalfCheetah-v5").unwrapped
    for made in (env, plain):
        made.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (2000, 6))
    # Taking turns, and a low quantile, because other work on the machine disturbs both alike.
    pairs = np.array([(seconds(env, action), seconds(plain, action)) for action in actions])
    own, body = np.quantile(pairs, 0.2, axis=0)
    assert own < 1.25 * body  # about 1.07 on a quiet machine
