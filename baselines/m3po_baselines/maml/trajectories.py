"""What an inner step learns from: transitions of tasks, and their advantages.

Duan et al. 2016 (arXiv 1604.06778) is the source of the linear feature baseline, Schulman et al.
2016 (arXiv 1506.02438) of the advantages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

EMPTY = -1
"""The time of a row that holds no transition."""


class Trajectories(NamedTuple):
    """Transitions of n tasks in the order of time, T rows each.

    Attributes:
        obs: Shape (n, T, obs_dim).
        action: As the policy drew them, shape (n, T, action_dim).
        reward: Shape (n, T).
        time: Steps since the start of the episode, shape (n, T); ``EMPTY`` in a row without a
            transition. An episode ends where the next row's time is not one more.
    """

    obs: Array
    action: Array
    reward: Array
    time: Array

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which rows hold a transition, shape (n, T)."""
        filled: NDArray[np.bool_] = self.time >= 0
        return filled

    @property
    def continues(self) -> NDArray[np.bool_]:
        """Whether the next row belongs to the same episode, shape (n, T)."""
        same = np.zeros(self.time.shape, dtype=np.bool_)
        same[:, :-1] = (self.time[:, 1:] == self.time[:, :-1] + 1) & self.filled[:, :-1]
        return same


class TrajectoryRecorder:
    """Collects steps of all parallel envs, one task each, into ``Trajectories``.

    Attributes:
        steps: What has been added, in order.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[Array, Array, Array, Array]] = []

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, obs: Array, action: Array, reward: Array, time: Array) -> None:
        """Keep one step of every env: arrays of n rows, as in ``Trajectories`` without T."""
        self.steps.append((obs, action, reward, time))

    def take(self) -> Trajectories:
        """All steps since the last time, T rows per env; the recorder is empty afterwards."""
        columns = (np.stack(column, axis=1) for column in zip(*self.steps, strict=True))
        self.steps = []
        return Trajectories(*columns)


def discounted_sums(values: Array, continues: NDArray[np.bool_], factor: float) -> Array:
    """Sums of what is still to come in each row's episode, discounted; shape (n, T)."""
    sums = np.zeros_like(values)
    carried = np.zeros(len(values))
    for t in reversed(range(values.shape[1])):
        carried = values[:, t] + factor * continues[:, t] * carried
        sums[:, t] = carried
    return sums


def linear_baseline(trajectories: Trajectories, returns: Array, ridge: float) -> Array:
    """Values of the linear feature baseline, fitted to each task's returns by ridge regression.

    The features are observation (cut at +-10), its square, a third-order polynomial of the time
    in hundreds of steps, and one.

    Args:
        trajectories: Of n tasks, T rows each.
        returns: Discounted returns, shape (n, T).
        ridge: Weight of the squared coefficients.

    Returns:
        Shape (n, T); 0 in rows without a transition.
    """
    obs = np.clip(trajectories.obs.astype(np.float64), -10.0, 10.0)
    time = trajectories.time[..., None] / 100.0
    columns = (obs, obs**2, time, time**2, time**3, np.ones_like(time))
    features = np.concatenate(columns, axis=-1) * trajectories.filled[..., None]
    transposed = np.swapaxes(features, 1, 2)
    gram = transposed @ features + ridge * np.eye(features.shape[-1])
    weights = np.linalg.solve(gram, transposed @ returns[..., None])
    values: Array = (features @ weights)[..., 0]
    return values


def normalized_advantages(
    trajectories: Trajectories, gamma: float, gae_lambda: float, ridge: float
) -> Array:
    """Generalised advantages under the linear feature baseline, mean 0 and deviation 1 per task.

    An episode's value is 0 where it ends or its transitions end, as in the published code.

    Args:
        trajectories: Of n tasks, T rows each.
        gamma: Discount factor.
        gae_lambda: Weight of longer returns.
        ridge: See ``linear_baseline``.

    Returns:
        Shape (n, T), float32; 0 in rows without a transition.
    """
    filled, continues = trajectories.filled, trajectories.continues
    rewards = trajectories.reward.astype(np.float64) * filled
    values = linear_baseline(trajectories, discounted_sums(rewards, continues, gamma), ridge)
    next_values = np.concatenate([values[:, 1:], np.zeros((len(values), 1))], axis=1)
    errors = rewards + gamma * continues * next_values - values
    advantages = discounted_sums(errors, continues, gamma * gae_lambda)
    count = np.maximum(filled.sum(1, keepdims=True), 1)
    centered = (advantages - (advantages * filled).sum(1, keepdims=True) / count) * filled
    deviation = np.sqrt((centered**2).sum(1, keepdims=True) / count)
    normalized: Array = (centered / (deviation + 1e-8)).astype(np.float32)
    return normalized
