"""Held-out episodes as the agent itself remembers them while it plays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3po_bench.m3po.policies import MetaPolicy

HORIZONS = (1, 2, 5, 10, 20, 50)
"""Steps of open-loop predictions."""


class Played(NamedTuple):
    """Episodes side by side, padded; time first. T is the longest one's number of steps.

    Attributes:
        obs: Observations without history columns, shape (T + 1, n, obs_dim).
        state: History states at them, shape (T + 1, n, state_dim).
        action: In [-1, 1], shape (T, n, action_dim).
        reward: Shape (T, n).
        task: Values in force, shape (T, n, n_params).
        age: Steps since the task began, shape (T, n).
        valid: False for padding, shape (T, n).
    """

    obs: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    task: Tensor
    age: Tensor
    valid: Tensor

    @property
    def adapting(self) -> Tensor:
        """Steps of tasks that a change has brought, not the start; all where nothing changes."""
        changed = self.valid & (self.age < torch.arange(len(self.age))[:, None])
        return changed if changed.any() else self.valid

    @property
    def half(self) -> Tensor:
        """Every second of the episodes that begin in the same task; shape (n,), bool.

        What a measure has to fit is fitted to these. Episodes in turn would not do: where two tasks
        take turns, one of them would never be met.
        """
        first = self.task[0].tolist()
        order = sorted(range(len(first)), key=first.__getitem__)
        return torch.isin(torch.arange(len(first)), torch.tensor(order[::2]))


@torch.no_grad()
def recall(policy: MetaPolicy, episodes: Sequence[Any]) -> Played:
    """Go through episodes as the agent went through them, all side by side."""
    longest = max(len(episode.rewards) for episode in episodes)

    def padded(arrays: list[NDArray[Any]], length: int) -> NDArray[Any]:
        last = [np.repeat(a[-1:], length - len(a), axis=0) for a in arrays]
        return np.stack([np.concatenate(pair) for pair in zip(arrays, last, strict=True)], 1)

    seen = padded([e.observations for e in episodes], longest + 1).astype(np.float32)
    memory, states, bases = policy.empty(len(episodes)), [], []
    for obs in map(policy.unpack, seen):
        memory = (policy.remember(obs, memory), obs.obs)
        states.append(memory[0])
        bases.append(obs.obs)
    actions = padded([policy.scale_action(e.actions) for e in episodes], longest)
    lengths = torch.tensor([len(episode.rewards) for episode in episodes])
    return Played(
        torch.stack(bases),
        torch.stack(states),
        torch.as_tensor(actions, dtype=torch.float32),
        torch.as_tensor(padded([e.rewards for e in episodes], longest), dtype=torch.float32),
        torch.as_tensor(padded([e.tasks for e in episodes], longest), dtype=torch.float32),
        torch.as_tensor(padded([e.steps_since_change for e in episodes], longest)),
        torch.arange(longest)[:, None] < lengths,
    )
