"""More copies of the one env that an agent is handed, so that it acts in all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

Env = gym.Env[Any, Any]


class ParallelCopies(DummyVecEnv):
    """SB3's DummyVecEnv, but for the copies' seeds.

    SB3 gives the i-th env ``seed + i``: of ten copies, agents with the seeds 0 and 1 would share
    nine streams of tasks and starts.
    """

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds for the next reset: the first env's as given, the others' derived from it."""
        if seed is None:
            return super().seed(None)
        derived = np.random.SeedSequence(seed).generate_state(self.num_envs) >> 1
        self._seeds = [seed, *(int(each) for each in derived[1:])]
        return self._seeds


class TrainsInCopies(BaseAlgorithm):
    """Of a single env, ``set_env`` and ``load`` make as many copies as an agent had before.

    SB3's ``load`` would go on in the one env that it is handed, with a fraction of a batch.
    """

    @staticmethod
    def _each(env: Env) -> Env:
        """What each copy is wrapped in."""
        return env

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """See ``BaseAlgorithm.set_env``; of a single env as many copies are made as before."""
        super().set_env(parallel_copies(env, self.n_envs, self._each), force_reset)

    @classmethod
    def load(  # type: ignore[override]  # what follows by keyword only
        cls,
        path: Any,
        env: GymEnv | None = None,
        device: Any = "auto",
        *,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """See ``BaseAlgorithm.load``; of a single env as many copies are made as before."""
        if env is None or isinstance(env, VecEnv):
            return super().load(path, env, device, force_reset=force_reset, **kwargs)
        model = super().load(path, None, device, force_reset=force_reset, **kwargs)
        model.set_env(env, force_reset)
        return model


def parallel_copies(
    env: GymEnv | str, n_envs: int, wrap: Callable[[Env], Env] | None = None
) -> VecEnv:
    """The env and ``n_envs - 1`` more, made from its spec; a VecEnv is returned as it is.

    Args:
        env: Gymnasium env, SB3 VecEnv or registered id.
        n_envs: Envs of the result, if ``env`` is not several already.
        wrap: Applied to each of them; SB3's Monitor is added around it.

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
    wrapped = copies if wrap is None else [wrap(copy) for copy in copies]
    monitored = [copy if is_wrapped(copy, Monitor) else Monitor(copy) for copy in wrapped]
    return ParallelCopies([lambda copy=copy: copy for copy in monitored])  # type: ignore[misc]
