from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import m3po_bench  # noqa: F401 - registers the ids
from m3po_bench.wrappers import (
    ObservationLayout,
    ObserveTask,
    PreviousActionReward,
    TrialWrapper,
    layout_of,
)
from m3po_envs.base import MetaEnvBase
from m3po_envs.pendulum import PendulumRandomParamsEnv

POINT, PENDULUM = "M3PO/PointFwdBwd-v0", "M3PO/PendulumRandomParams-v0"
HOPPER = "M3PO/HopperRandomParams-v0"


def meta(env: gym.Env[Any, Any]) -> MetaEnvBase:
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, MetaEnvBase)
    return unwrapped


def test_layouts_name_their_columns() -> None:
    layout = ObservationLayout((("observation", 3), ("task", 2))).with_history(2)
    assert layout.width == 3 + 2 + 2 + 1 + 1
    assert layout.columns("task").tolist() == [3, 4]
    assert layout.columns("previous_reward", "observation").tolist() == [7, 0, 1, 2]
    assert layout.memoryless_columns.tolist() == [0, 1, 2, 3, 4]
    assert layout.has_history
    assert not ObservationLayout((("observation", 3),)).has_history
    with pytest.raises(KeyError, match="no block 'reward'"):
        layout.columns("reward")


def test_the_previous_transition_follows_the_observation() -> None:
    env = gym.make(PENDULUM)
    assert isinstance(env, PreviousActionReward)
    layout = layout_of(env)
    for _ in range(2):
        obs, _ = env.reset(seed=0)
        assert obs[layout.columns("previous_action", "previous_reward")].tolist() == [0, 0]
        assert obs[layout.columns("first_step")] == 1
        for action in (np.array([0.5], np.float32), np.array([-0.25], np.float32)):
            obs, reward, *_ = env.step(action)
            assert obs[layout.columns("previous_action")] == action
            assert obs[layout.columns("previous_reward")] == np.float32(reward)
            assert obs[layout.columns("first_step")] == 0
            assert obs.dtype == env.observation_space.dtype
            assert env.observation_space.contains(obs)


@pytest.mark.parametrize(("limit", "horizon"), [(None, 200), (30, 30), (-1, 200)])
def test_the_time_limit_is_passed_on_to_a_meta_env(limit: int | None, horizon: int) -> None:
    """A MuJoCo env that is copied or pickled is made anew from its own arguments."""
    made = gym.make(HOPPER, max_episode_steps=limit)
    for env in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        env.reset(seed=0)
        assert meta(env).horizon == horizon


def test_any_flat_env_can_be_wrapped() -> None:
    env = PreviousActionReward(gym.make("Pendulum-v1"))
    assert layout_of(env).blocks == ObservationLayout((("observation", 3),)).with_history(1).blocks
    assert env.reset(seed=0)[0].shape == (6,)
    with pytest.raises(ValueError, match="expected a flat Box"):
        PreviousActionReward(gym.make("CartPole-v1"))


def test_vec_envs_have_a_layout_too() -> None:
    made = DummyVecEnv([lambda: gym.make(POINT)])
    assert layout_of(made) == layout_of(gym.make(POINT))


def test_observing_the_task_equals_oracle_visibility() -> None:
    schedule = {"name": "hazard", "rate": 0.2}
    wrapped = ObserveTask(PendulumRandomParamsEnv(schedule=schedule))
    told = PendulumRandomParamsEnv(schedule=schedule, visibility="oracle")
    assert wrapped.observation_space == told.observation_space
    assert wrapped.observation_layout == told.observation_layout
    assert np.array_equal(wrapped.reset(seed=0)[0], told.reset(seed=0)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (50, 1)):
        assert np.array_equal(wrapped.step(action)[0], told.step(action)[0])
    assert len(told.changes) > 3


def test_the_task_is_seen_where_a_registered_env_shows_it() -> None:
    """An oracle that has learnt in the one is tested in the other."""
    wrapped = ObserveTask(gym.make(PENDULUM))
    told = gym.make(PENDULUM, visibility="oracle")
    assert wrapped.observation_layout == layout_of(told)
    assert wrapped.observation_space == told.observation_space
    wrapped.reset(seed=0), told.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 1)):
        assert np.array_equal(wrapped.step(action)[0], told.step(action)[0])


def test_a_trial_plays_its_episodes_in_one_task() -> None:
    env = TrialWrapper(gym.make(POINT, schedule="episodic", max_episode_steps=5), n_episodes=3)
    first_step = layout_of(env).columns("first_step")
    met = set()
    obs, info = env.reset(seed=0)
    for _ in range(12):
        task, firsts, inner, over = meta(env).task, [obs[first_step].item()], [], False
        met.add(task.params)
        assert info["inner_episode"] == 0
        while not over:
            assert meta(env).task == task
            obs, _, terminated, over, info = env.step(np.zeros(1, np.float32))
            firsts.append(obs[first_step].item())
            inner.append(info["inner_episode"])
            assert not terminated
        assert firsts == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
        assert inner == [0] * 5 + [1] * 5 + [2] * 5
        obs, info = env.reset()
    assert len(met) == 2  # the task is free again in the next trial


@pytest.mark.parametrize(("limit", "falls"), [(3, False), (None, True)])
def test_a_trial_ends_as_its_last_episode_does(limit: int | None, falls: bool) -> None:
    env = TrialWrapper(gym.make(HOPPER, max_episode_steps=limit), n_episodes=2)
    env.action_space.seed(0)
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
    assert (terminated, truncated, info["inner_episode"]) == (falls, not falls, 1)


def test_a_trial_keeps_its_first_task_whatever_changes_inside() -> None:
    env = TrialWrapper(gym.make(PENDULUM, schedule="single", max_episode_steps=8), n_episodes=2)
    env.reset(seed=0)
    first = meta(env).first_task
    for _ in range(8):
        env.step(np.zeros(1, np.float32))
    assert meta(env).task == meta(env).first_task == first


def test_a_trial_can_be_forced_to_a_task() -> None:
    env = TrialWrapper(gym.make(POINT, max_episode_steps=3), n_episodes=2)
    for task in (0, 1, 0):
        env.reset(options={"task": task})
        assert meta(env).first_task.index == task


def test_a_trial_has_an_episode() -> None:
    with pytest.raises(ValueError, match="n_episodes=0"):
        TrialWrapper(gym.make(POINT), n_episodes=0)


def test_processes_of_envs_without_a_layout_are_left_alive() -> None:
    envs = SubprocVecEnv([partial(gym.make, "Pendulum-v1")], start_method="spawn")
    try:
        assert layout_of(envs).blocks == (("observation", 3),)
        assert np.asarray(envs.reset()).shape == (1, 3)
    finally:
        envs.close()
