"""Which task an episode of training plays, and with which z."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Segment(NamedTuple):
    """Consecutive episodes in one task, until they have enough steps.

    Attributes:
        task: Index of the training task.
        steps: How many env steps, rounded up to whole episodes.
        from_prior: Whether z is drawn from the prior and the transitions are for the encoder too;
            else from the posterior given what the encoder has of the task.
    """

    task: int
    steps: int
    from_prior: bool


class CollectionPlan:
    """The order in which PEARL collects: first from every task, then iteration after iteration.

    Args:
        n_tasks: Number of training tasks.
        initial_steps: Env steps in each of them before the first iteration.
        tasks_per_iteration: Tasks drawn for an iteration, with replacement.
        prior_steps: Env steps in each with z from the prior.
        posterior_steps: Env steps in each, after these, with z from the posterior.
        rng: What is drawn from.

    Attributes:
        rng: The same; what is not planned yet is drawn from it.
    """

    def __init__(
        self,
        n_tasks: int,
        initial_steps: int,
        tasks_per_iteration: int,
        prior_steps: int,
        posterior_steps: int,
        rng: np.random.Generator,
    ) -> None:
        self._n_tasks, self._tasks_per_iteration = n_tasks, tasks_per_iteration
        self._prior_steps, self._posterior_steps = prior_steps, posterior_steps
        self.rng = rng
        self._queue: deque[Segment] = deque()
        if initial_steps > 0:
            self._queue.extend(Segment(i, initial_steps, True) for i in range(n_tasks))
        self._queue.extend(self._iteration())
        self._segment: Segment | None = None
        self._left = 0

    def _iteration(self) -> list[Segment]:
        segments = []
        for task in self.rng.integers(self._n_tasks, size=self._tasks_per_iteration).tolist():
            segments.append(Segment(task, self._prior_steps, True))
            if self._posterior_steps > 0:
                segments.append(Segment(task, self._posterior_steps, False))
        return segments

    @property
    def iteration_ended(self) -> bool:
        """Whether the iteration has all its steps, and is to be learnt from before the next."""
        return self._segment is not None and self._left <= 0 and not self._queue

    def begin_iteration(self) -> None:
        """Draw the next iteration's tasks."""
        self._queue.extend(self._iteration())

    def begin_episode(self) -> Segment:
        """The segment that the next episode belongs to."""
        if self._segment is None or self._left <= 0:
            self._segment = self._queue.popleft()
            self._left = self._segment.steps
        return self._segment

    def count(self, segment: Segment) -> None:
        """Count an env step of a segment; those of past segments change nothing."""
        if segment is self._segment:
            self._left -= 1

    def state_dict(self) -> dict[str, Any]:
        """How far the plan is, as plain values; what is drawn from is left out."""
        segments = [*self._queue] if self._segment is None else [self._segment, *self._queue]
        return {
            "segments": [list(segment) for segment in segments],
            "begun": self._segment is not None,
            "left": self._left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self._queue = deque(Segment(*segment) for segment in state["segments"])
        self._segment = self._queue.popleft() if state["begun"] else None
        self._left = state["left"]
