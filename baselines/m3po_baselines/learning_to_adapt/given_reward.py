"""A planner's privilege: the environment's own reward function."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from m3po_baselines.learning_to_adapt.adaptive_model import EnvReward
from m3po_bench.wrappers import OBSERVATION, TASK, ObservationLayout

_PROBES = 64


class GivenReward:
    """The reward function of a registered env, from a copy of the env made for it alone.

    So it is there for a loaded agent as well, and no stepping env is touched. Where rewards
    depend on the task, the observation must show the task; where they do not, as in all families
    that change a body, it need not.

    Args:
        env_id: A registered env with ``reward`` (``m3po_bench.tasks.MetaEnv``).
        env_kwargs: Its arguments.
        layout: Of the agent's observation.

    Raises:
        ValueError: If the env offers no reward function, or rewards depend on a hidden task.
    """

    def __init__(self, env_id: str, env_kwargs: dict[str, Any], layout: ObservationLayout) -> None:
        env = gym.make(env_id, **env_kwargs)
        if not env.has_wrapper_attr("reward"):
            raise ValueError(
                f"reward_source='env': {env_id} has no vectorised reward(obs, action, next_obs, "
                "task); expected 'learnt'"
            )
        self._reward = env.get_wrapper_attr("reward")
        self._tasks = env.get_wrapper_attr("tasks")
        self._shown = TASK in layout.names
        self._obs_columns = layout.columns(OBSERVATION)
        self._task_columns = layout.columns(TASK) if self._shown else None
        action_space = env.action_space
        assert isinstance(action_space, gym.spaces.Box)
        if not self._shown and self._depends_on_task(action_space.shape[0]):
            raise ValueError(
                f"reward_source='env': the reward of {env_id} depends on the task, which the "
                'observation hides; make the env with visibility="oracle"'
            )

    @staticmethod
    def locate(env: VecEnv) -> tuple[str, dict[str, Any]]:
        """Id and arguments of what a VecEnv steps.

        Raises:
            ValueError: If it is not registered.
        """
        spec = env.get_attr("spec", indices=0)[0]
        if spec is None:
            raise ValueError("reward_source='env' needs a registered env; expected 'learnt'")
        return spec.id, dict(spec.kwargs)

    def _depends_on_task(self, action_dim: int) -> bool:
        rng = np.random.default_rng(0)
        obs = rng.standard_normal((2, _PROBES, len(self._obs_columns)))
        action = rng.uniform(-1.0, 1.0, (_PROBES, action_dim))
        first = self._tasks.sample(rng)
        second = self._tasks.sample(rng, other_than=first)
        rewards = [self._reward(obs[0], action, obs[1], t.vector) for t in (first, second)]
        return not np.allclose(*rewards)

    def of(self, observation: NDArray[Any]) -> EnvReward:
        """The reward function for envs that show ``observation``, of shape (n, width)."""
        width = len(self._obs_columns)
        if self._task_columns is None:
            task = np.tile(self._tasks.low, (len(observation), 1))
        else:
            task = np.asarray(observation[:, self._task_columns], dtype=np.float64)

        def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
            rows = (x.flatten(0, 1).double().numpy() for x in (obs, action, next_obs))
            before, act, after = rows
            # A model of several members brings every env several times, members first.
            members = len(obs) // len(task)
            tasks = np.tile(np.repeat(task, obs.shape[1], axis=0), (members, 1))
            values = self._reward(before[:, :width], act, after[:, :width], tasks)
            return torch.as_tensor(values, dtype=torch.float32).view(obs.shape[:2])

        return reward
