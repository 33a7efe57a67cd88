"""Replay with a ring of transitions per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class TaskTransitions(NamedTuple):
    """Transitions of several tasks, the same number of each.

    Attributes:
        context: (observation, action, reward, next observation), side by side; shape
            (n_tasks, n, 2 obs_dim + action_dim + 1). Ends of episodes are no part of it.
        obs: Shape (n_tasks, n, obs_dim).
        action: In [-1, 1], shape (n_tasks, n, action_dim).
        reward: Shape (n_tasks, n).
        next_obs: Shape (n_tasks, n, obs_dim).
        not_terminated: 1 where the episode goes on, else 0; shape (n_tasks, n).
    """

    context: Tensor
    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    not_terminated: Tensor


class TaskReplay:
    """Transitions of each task apart, in one tensor: a batch over tasks is one gather.

    Storage grows by doubling. Sampling uses torch's global generator, which SB3 seeds.

    Args:
        n_tasks: Number of tasks.
        obs_dim: Width of observations.
        action_dim: Width of actions.
        max_steps: Transitions kept of each task; the oldest go first.
    """

    def __init__(self, n_tasks: int, obs_dim: int, action_dim: int, max_steps: int) -> None:
        self._widths = [obs_dim, action_dim, 1, obs_dim, 1]
        self._max_steps = max_steps
        self._rows = torch.zeros(n_tasks, min(256, max_steps), sum(self._widths))
        self._added = torch.zeros(n_tasks, dtype=torch.int64)

    @property
    def sizes(self) -> Tensor:
        """Transitions stored of each task, shape (n_tasks,)."""
        return self._added.clamp(max=self._max_steps)

    def add(
        self,
        task: int,
        obs: Tensor,
        action: Tensor,
        reward: float,
        next_obs: Tensor,
        terminated: bool,
    ) -> None:
        """Append a transition to a task's."""
        added, capacity = int(self._added[task]), self._rows.shape[1]
        if added == capacity < self._max_steps:
            more = min(capacity, self._max_steps - capacity)
            empty = self._rows.new_zeros(len(self._rows), more, self._rows.shape[2])
            self._rows = torch.cat([self._rows, empty], 1)
        ends = torch.tensor([reward, 1.0 - terminated])
        row = torch.cat([obs, action, ends[:1], next_obs, ends[1:]])
        self._rows[task, added % self._rows.shape[1]] = row
        self._added[task] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Everything stored, as tensors by name."""
        return {"rows": self._rows, "added": self._added}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; there is room for all of it, whatever ``max_steps`` says.

        Raises:
            ValueError: If what was stored has another number of tasks or other widths.
        """
        rows, added = state["rows"], state["added"]
        (n_tasks, capacity, width), (mine, _, my_width) = rows.shape, self._rows.shape
        if (n_tasks, width) != (mine, my_width):
            raise ValueError(
                f"replay buffer: {n_tasks} tasks and {width} columns, expected {mine} and "
                f"{my_width}: another env or number of training tasks"
            )
        self._max_steps = max(self._max_steps, capacity)
        # A ring that was full, but has room to grow now, is full once.
        self._added = added.clamp(max=capacity) if capacity < self._max_steps else added.clone()
        self._rows = rows.clone()
        if capacity < self._max_steps:  # oldest first, as what is appended goes on from there
            for task in torch.nonzero(added > capacity).flatten().tolist():
                self._rows[task] = rows[task].roll(-int(added[task]) % capacity, 0)

    def sample(self, tasks: Tensor, n: int) -> TaskTransitions:
        """``n`` transitions of each of ``tasks``, uniformly with replacement.

        Args:
            tasks: Tasks of which some are stored; int64, shape (n_tasks,).
            n: How many of each.
        """
        places = (torch.rand(len(tasks), n) * self.sizes[tasks, None]).long()
        flat = self._rows.flatten(0, 1)
        rows = flat.index_select(0, (places + tasks[:, None] * self._rows.shape[1]).flatten())
        rows = rows.view(len(tasks), n, -1)
        obs, action, reward, next_obs, goes_on = torch.split(rows, self._widths, -1)
        return TaskTransitions(
            rows[..., :-1], obs, action, reward.squeeze(-1), next_obs, goes_on.squeeze(-1)
        )
