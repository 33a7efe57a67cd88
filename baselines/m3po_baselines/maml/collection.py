"""A meta-batch in the making."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from m3po_baselines.maml.inner_step import Batch, Gaussian
from m3po_baselines.maml.trajectories import TrajectoryRecorder
from m3po_bench.tasks import Task, task_parameters

Array = NDArray[Any]


@dataclass
class Collection:
    """What the parallel envs have played for a meta-batch; each env has a task of its own.

    Attributes:
        tasks: One for each env.
        parameters: Of the acting policies: the meta-policy's, shape (n_parameters,), or adapted
            ones, shape (n_envs, n_parameters).
        time: Steps since the start of each env's episode, shape (n_envs,).
        ended: Whether each env has ended an episode in its task, shape (n_envs,).
        action: What the policies drew last, shape (n_envs, action_dim).
        recorder: Steps of the phase that is being played.
        before: Drawn from the meta-policy, of the phases that are over.
        after: Drawn from adapted policies, likewise.
        rewards: Mean reward of each phase that is over.
    """

    tasks: list[Task]
    parameters: Tensor
    time: Array
    ended: Array
    action: Array
    recorder: TrajectoryRecorder = field(default_factory=TrajectoryRecorder)
    before: list[Batch] = field(default_factory=list)
    after: list[Batch] = field(default_factory=list)
    rewards: dict[str, list[float]] = field(default_factory=lambda: {"before": [], "after": []})

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on in new episodes, as tensors and plain values."""
        return {
            "tasks": task_parameters(self.tasks),
            "parameters": self.parameters,
            "ended": torch.as_tensor(self.ended),
            "steps": [[torch.as_tensor(x) for x in step] for step in self.recorder.steps],
            "before": [[*batch[:-1], *batch.drawn_from] for batch in self.before],
            "after": [[*batch[:-1], *batch.drawn_from] for batch in self.after],
            "rewards": self.rewards,
        }

    def load_state_dict(self, state: Mapping[str, Any], parse: Callable[[Any], Task]) -> None:
        """The inverse of ``state_dict``; ``parse`` makes a task of its parameters."""
        self.tasks = [parse(parameters) for parameters in state["tasks"]]
        self.parameters, self.rewards = state["parameters"], state["rewards"]
        self.ended = state["ended"].numpy()
        for step in state["steps"]:
            self.recorder.add(*(x.numpy() for x in step))
        self.before, self.after = (
            [Batch(*of[:4], Gaussian(*of[4:])) for of in state[phase]]  # type: ignore[call-arg]
            for phase in ("before", "after")
        )
