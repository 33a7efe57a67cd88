"""What an inner step is worth: episodes that it learns from and one after it, in held-out tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any

import gymnasium as gym
import numpy as np

from m3po_baselines.maml.policy import AdaptivePolicy
from m3po_bench.wrappers import TrialWrapper


def returns_around_inner_step(
    policy: AdaptivePolicy, env_id: str, env_kwargs: dict[str, Any], episodes: Sequence[int]
) -> tuple[float, float]:
    """Mean returns of the meta-policy, and of what inner steps between episodes make of it.

    A trial has as many episodes as ``adapt_window`` holds, and one more. Every inner step starts
    from the meta-policy; the last one learns from the whole window.

    Args:
        policy: Acts without the inner steps that it takes within episodes.
        env_id: A registered meta-environment.
        env_kwargs: Its arguments; split and schedule are replaced.
        episodes: Which of the frozen test episodes begin the trials.

    Returns:
        Of the first episode, and of the last.
    """
    kwargs = {**env_kwargs, "split": "test", "schedule": "episodic"}
    plain = [gym.make(env_id, **kwargs) for _ in episodes]
    n_inner = 1 + math.ceil(policy.adapt_window / plain[0].get_wrapper_attr("horizon"))
    envs = [TrialWrapper(env, n_inner) for env in plain]
    between = copy(policy)
    between.adapt_every = None
    starts = [env.reset(options={"episode": i}) for env, i in zip(envs, episodes, strict=True)]
    obs, returns = np.stack([first for first, _ in starts]), np.zeros((len(envs), n_inner))
    playing, begins, state = np.ones(len(envs), bool), np.ones(len(envs), bool), None
    while playing.any():
        actions, state = between.predict(obs, state, begins, deterministic=True)
        begins = np.zeros(len(envs), bool)
        for i in np.flatnonzero(playing):
            obs[i], reward, terminated, truncated, info = envs[i].step(actions[i])
            returns[i, info["inner_episode"]] += float(reward)
            playing[i] = not (terminated or truncated)
    for env in envs:
        env.close()
    before, *_, after = returns.mean(0).tolist()
    return before, after
