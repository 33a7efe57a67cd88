"""When episodes end, where the env itself says so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

TerminationFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of (obs, action, next_obs), each (n, width); True where the episode ends, shape (n,)."""


def offers_termination(env: VecEnv | None) -> bool:
    """Whether the env has a vectorised ``terminated(obs, action, next_obs)``, as meta-envs do.

    One without ``tasks`` may call anything so, such as a flag.
    """
    if env is None:
        return False
    try:
        return all(
            env.env_method("has_wrapper_attr", name, indices=0)[0]
            for name in ("terminated", "tasks")
        )
    except AttributeError:
        return False


def check_termination(env: VecEnv | None, offered: bool) -> None:
    """Refuse another kind of env than an agent was made with, which has not learnt when to end.

    Raises:
        ValueError: If it has no ``terminated``.
    """
    if offered and not offers_termination(env):
        if env is None:
            raise ValueError("no env to learn in: pass env= to load, or call set_env")
        raise ValueError(
            f"{env} has no terminated(obs, action, next_obs), but the env that this agent was made "
            "with has: expected one of the same kind"
        )


def time_limit_of(env: VecEnv | None) -> int:
    """Steps after which the env cuts episodes off; 0 if it does not, or there is no env."""
    spec = env.get_attr("spec", indices=0)[0] if env is not None else None
    return (spec.max_episode_steps or 0) if spec is not None else 0


def termination_of(env: VecEnv | None, offered: bool) -> TerminationFunction | None:
    """The env's own, of tensors; None if none was offered, or a loaded agent has no env."""
    if env is None or not offered:
        return None
    own = env

    def terminated(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        arrays = (obs.double().numpy(), action.double().numpy(), next_obs.double().numpy())
        return torch.as_tensor(own.env_method("terminated", *arrays, indices=0)[0])

    return terminated
