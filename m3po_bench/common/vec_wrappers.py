"""The VecEnv half of ``m3po_bench.wrappers``: the same columns for any SB3 vectorised env."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from m3po_bench.wrappers import (
    OUTSIDE_A_TRIAL,
    TrialWrapper,
    check_flat,
    history_space,
    layout_of,
)


class VecPreviousActionReward(VecEnvWrapper):
    """``PreviousActionReward`` for a vectorised env that was made without it.

    Observations of whole numbers become float32: actions and rewards are none.

    Raises:
        ValueError: If an env is a ``TrialWrapper``: inside of it is the place.
    """

    def __init__(self, venv: VecEnv) -> None:
        if any(venv.env_is_wrapped(TrialWrapper)):
            raise ValueError(OUTSIDE_A_TRIAL)
        observation, action = check_flat(venv.observation_space), check_flat(venv.action_space)
        space = history_space(observation, action)
        super().__init__(venv, observation_space=space)
        self._dtype: Any = space.dtype
        self._layout = layout_of(venv).with_history(action.shape[0])
        self._actions = np.zeros((venv.num_envs, action.shape[0]))
        self._first = np.zeros((venv.num_envs, action.shape[0] + 2))
        self._first[:, -1] = 1.0

    def has_attr(self, attr_name: str) -> bool:
        """Whether ``get_attr`` finds it; see there."""
        return attr_name == "observation_layout" or self.venv.has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The layout is this wrapper's own; everything else is the wrapped env's."""
        if attr_name == "observation_layout":
            return [self._layout] * len(list(self._get_indices(indices)))
        return self.venv.get_attr(attr_name, indices)

    def _append(self, obs: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([obs, tail], axis=-1, dtype=self._dtype)

    def first(self, obs: NDArray[Any], i: int) -> NDArray[Any]:
        """An observation of the i-th env, with which an episode begins."""
        return self._append(obs, self._first[i])

    def reset(self) -> VecEnvObs:
        """Reset all envs."""
        obs = self.venv.reset()
        assert isinstance(obs, np.ndarray)
        return self._append(obs, self._first)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions and pass them on."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Append what led to each observation; terminal observations get it too."""
        obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(obs, np.ndarray)
        tail = np.column_stack([self._actions, rewards, np.zeros(self.num_envs)])
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = self._append(
                infos[i]["terminal_observation"], tail[i]
            )
        tail[dones] = self._first[dones]
        return self._append(obs, tail), rewards, dones, infos


def reset_one(env: VecEnv, i: int, options: dict[str, Any]) -> NDArray[Any]:
    """Reset one of several parallel envs with options, and leave the others as they are.

    Args:
        env: As the agents of this package wrap it.
        i: Which one.
        options: See ``gymnasium.Env.reset``.

    Returns:
        Its observation with all columns.
    """
    obs, _ = env.env_method("reset", options=options, indices=i)[0]
    return env.first(obs, i) if isinstance(env, VecPreviousActionReward) else np.asarray(obs)
