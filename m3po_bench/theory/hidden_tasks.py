"""Tabular POMDPs with a hidden task that may change within an episode, as processes of histories.

The observable state is seen; the task is not, and changes with a fixed chance after every step,
always to a different task. A history determines the next one together with the action, the next
observation and the reward, so histories are the states of an MDP (``tabular.Process``) whose
outcomes are the pairs (o', r). Enumerated to a finite horizon it is a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3po_bench.theory.tabular import Process

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HiddenTaskPOMDP:
    """Z hidden tasks, O observable states, A actions, R reward levels.

    Attributes:
        first_observation: Distribution of the first observation, the same in every task,
            shape (O,).
        first_task: Distribution of the first task, shape (Z,).
        hazard: Chance that the task changes after a step, to one of the others at random, in
            [0, 1]; 0 where there is one task.
        chances: Joint distribution of (next observation, reward level) given task, observation and
            action, shape (Z, O, A, O, R).
        levels: The rewards, shape (R,).

    Raises:
        ValueError: If the hazard is outside its domain or the shapes disagree.
    """

    first_observation: Floats
    first_task: Floats
    hazard: float
    chances: Floats
    levels: Floats

    def __post_init__(self) -> None:
        tasks, observations = len(self.first_task), len(self.first_observation)
        expected = (tasks, observations, self.chances.shape[2], observations, len(self.levels))
        if self.chances.shape != expected:
            raise ValueError(f"chances has shape {self.chances.shape}; expected {expected}")
        if not 0 <= self.hazard <= (tasks > 1):
            raise ValueError(
                f"hazard is {self.hazard}; expected in [0, 1], and 0 where there is one task"
            )

    @property
    def task_chain(self) -> Floats:
        """Distribution of the next task given the task, shape (Z, Z)."""
        tasks = len(self.first_task)
        change = self.hazard / max(1, tasks - 1)
        chain: Floats = np.full((tasks, tasks), change)
        np.fill_diagonal(chain, 1 - self.hazard)
        return chain


def unroll(pomdp: HiddenTaskPOMDP, horizon: int) -> Process:
    """The process of the POMDP's histories, with the exact Bayes filter for its chances.

    States are ordered by time. The history that follows history ``i`` of time t by action a and
    outcome x is history ``(i A + a) X + x`` of time t + 1, where ``x = o' R + r``. After
    ``horizon`` steps every history ends in one last state that pays nothing. Impossible histories
    are states too, since a model may imagine them: after an impossible outcome the filter keeps
    its prediction.

    Args:
        pomdp: The POMDP.
        horizon: Steps, at least 1; the number of states is O sum_{t<horizon} (A X)^t + 1.

    Returns:
        A process over N histories with X = O R outcomes. The filter of another POMDP of the same
        shape is a meta-model of it: ``replace(real, chances=unroll(other, horizon).chances)``.
    """
    actions, n_seen, n_levels = pomdp.chances.shape[2:]
    outcomes = n_seen * n_levels
    by_task = pomdp.chances.reshape(*pomdp.chances.shape[:3], outcomes)
    seen = np.arange(n_seen)
    belief = np.tile(pomdp.first_task, (n_seen, 1)).T
    joint = belief[:, :, None, None] * by_task[:, seen]  # (Z, histories, A, X)
    layers = [joint.sum(0)]
    for _ in range(horizon - 1):
        kept = np.broadcast_to(belief[:, :, None, None], joint.shape)
        after = np.divide(joint, layers[-1], out=kept.copy(), where=layers[-1] > 0)
        belief = pomdp.task_chain.T @ after.reshape(len(after), -1)
        seen = np.tile(np.arange(outcomes) // n_levels, len(seen) * actions)
        joint = belief[:, :, None, None] * by_task[:, seen]
        layers.append(joint.sum(0))
    return _tree(layers, pomdp)


def _tree(layers: list[Floats], pomdp: HiddenTaskPOMDP) -> Process:
    _, actions, outcomes = layers[0].shape
    end = sum(len(layer) for layer in layers)
    chances = np.concatenate([*layers, np.full((1, actions, outcomes), 1 / outcomes)])
    children = len(layers[0]) + np.arange(end * actions * outcomes, dtype=np.intp)
    successors = np.full(chances.shape, end, dtype=np.intp)
    successors[:end] = np.minimum(children, end).reshape(end, actions, outcomes)
    rewards = np.tile(pomdp.levels, (end + 1, actions, outcomes // len(pomdp.levels)))
    rewards[end] = 0.0
    initial = np.zeros(end + 1)
    initial[: len(layers[0])] = pomdp.first_observation
    return Process(initial, chances, successors, rewards)


def windows(histories: Process, horizon: int, length: int) -> NDArray[np.intp]:
    """For each history of ``unroll``, an index that only its last steps decide, shape (N,).

    Two histories of at least ``length`` steps share an index if and only if their last ``length``
    triples (a, o', r) are equal; shorter ones have indices of their own, and so has the end. So
    ``table[windows(...)]`` is a policy or a model with a finite memory.

    Args:
        histories: From ``unroll``.
        horizon: The one given to ``unroll``.
        length: Steps remembered, at least 1.
    """
    _, actions, outcomes = histories.chances.shape
    branching = actions * outcomes
    starts = (len(histories.initial) - 1) * (branching - 1) // (branching**horizon - 1)
    ids: list[NDArray[np.intp]] = []
    used = 0
    for t in range(horizon):
        size = starts * branching**t
        if t <= length:
            kinds = size if t < length else branching**length
            first, used = used, used + kinds
        ids.append(first + np.arange(size, dtype=np.intp) % kinds)
    return np.concatenate([*ids, np.array([used], dtype=np.intp)])
