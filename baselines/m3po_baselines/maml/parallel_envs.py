"""More copies of the one env that an agent is handed, so that it acts in all of them at once."""

from __future__ import annotations

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


def parallel_copies(env: GymEnv | str, n_envs: int) -> VecEnv:
    """The env and ``n_envs - 1`` more, made from its spec; a VecEnv is returned as it is.

    Raises:
        ValueError: If the env has no spec to make more from.
    """
    if isinstance(env, VecEnv):
        return env
    given = gym.make(env) if isinstance(env, str) else env
    spec = given.env.spec if isinstance(given, Monitor) else given.spec
    if spec is None and n_envs > 1:
        raise ValueError(
            f"{given} has no spec, so n_envs={n_envs} copies of it cannot be made: make it with "
            "gymnasium.make, or hand over a VecEnv of several"
        )
    copies = [given, *(gym.make(spec) for _ in range(n_envs - 1) if spec is not None)]
    monitored = [copy if isinstance(copy, Monitor) else Monitor(copy) for copy in copies]
    return DummyVecEnv([lambda copy=copy: copy for copy in monitored])  # type: ignore[misc]
