"""The history columns, beside observations that are whole numbers."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv

from m3po_bench import make_agent
from m3po_bench.common.vec_wrappers import VecPreviousActionReward, reset_one
from m3po_bench.wrappers import PreviousActionReward

Array = NDArray[Any]


class Counter(gym.Env[Any, Array]):
    """Counts to 5; rewards are no whole numbers."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space: spaces.Space[Any] = space
        self.action_space: spaces.Space[Array] = spaces.Box(-1.0, 1.0, (1,))
        self._time = 0

    def _observed(self) -> Array:
        assert self.observation_space.dtype is not None
        return np.full(self.observation_space.shape or (), self._time, self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return self._observed(), {}

    def step(self, action: Array) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self._time += 1
        return self._observed(), 0.25 * self._time, False, self._time == 5, {}


def counter(space: spaces.Space[Any]) -> Any:
    env: Any = Counter(space)
    return env if isinstance(space, spaces.Box) else gym.wrappers.FlattenObservation(env)


WHOLE: list[spaces.Space[Any]] = [
    spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
    spaces.Discrete(6),
    spaces.MultiDiscrete([6, 7]),
]


@pytest.mark.parametrize("space", WHOLE, ids=str)
def test_whole_numbers_become_floats_beside_actions_and_rewards(space: spaces.Space[Any]) -> None:
    venv: Any = VecPreviousActionReward(DummyVecEnv([lambda: counter(space)] * 2))
    obs = venv.reset()
    assert venv.observation_space.dtype == obs.dtype == np.float32
    np.testing.assert_array_equal(obs[:, -3:], [[0.0, 0.0, 1.0]] * 2)
    for time in range(1, 6):
        action = np.array([[0.6], [-0.3]], np.float32)
        obs, _, dones, infos = venv.step(action)
        assert all(venv.observation_space.contains(row) for row in obs)
        shown = np.stack([i["terminal_observation"] for i in infos]) if dones.all() else obs
        assert shown.dtype == np.float32
        np.testing.assert_array_equal(shown[:, -3:-2], action)
        np.testing.assert_array_equal(shown[:, -2:], [[0.25 * time, 0.0]] * 2)
    assert dones.all()
    assert reset_one(venv, 1, {}).dtype == np.float32


@pytest.mark.parametrize("space", WHOLE, ids=str)
def test_the_wrapper_of_one_env_shows_the_same(space: spaces.Space[Any]) -> None:
    venv: Any = VecPreviousActionReward(DummyVecEnv([lambda: counter(space)]))
    env = PreviousActionReward(counter(space))
    assert env.observation_space == venv.observation_space
    np.testing.assert_array_equal(env.reset()[0], venv.reset()[0], strict=True)
    action = np.array([0.6], np.float32)
    np.testing.assert_array_equal(env.step(action)[0], venv.step(action[None])[0][0], strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_stay_as_wide_as_they_are(dtype: Any) -> None:
    space = spaces.Box(0.0, 10.0, (2,), dtype)
    venv: Any = VecPreviousActionReward(DummyVecEnv([lambda: counter(space)]))
    assert venv.observation_space.dtype == venv.reset().dtype == dtype


@pytest.mark.parametrize("name", ["M3PO", "SAC-PrevReward", "GrBAL"])
def test_agents_learn_from_whole_numbers(name: str) -> None:
    model = make_agent(name, counter(spaces.MultiDiscrete([6, 7])), preset="tiny", seed=0)
    assert model.learn(60).num_timesteps == 60
