"""When episodes end, where the env itself says so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

TerminationFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of (obs, action, next_obs), each (n, width); True where the episode ends, shape (n,)."""


def offers_termination(env: VecEnv) -> bool:
    """Whether the env has a vectorised ``terminated(obs, action, next_obs)``."""
    try:
        return bool(env.env_method("has_wrapper_attr", "terminated", indices=0)[0])
    except AttributeError:
        return False


def termination_of(env: VecEnv) -> TerminationFunction:
    """The env's own, of tensors."""

    def terminated(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        arrays = (obs.double().numpy(), action.double().numpy(), next_obs.double().numpy())
        return torch.as_tensor(env.env_method("terminated", *arrays, indices=0)[0])

    return terminated
