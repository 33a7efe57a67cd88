"""Branched meta-rollouts: k imagined steps off real histories, kept in D_model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from m3po_bench.common.sequence_replay import RealTransitions
from m3po_bench.common.soft_actor_critic import Actor, Transitions
from m3po_bench.m3po.meta_model import MetaModel

TerminationFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


class ImaginedReplay:
    """D_model: a ring of imagined transitions between features.

    Args:
        capacity: Transitions kept.
        n_features: Width of features.
        action_dim: Width of actions.
    """

    def __init__(self, capacity: int, n_features: int, action_dim: int) -> None:
        self.capacity = capacity
        self._data = Transitions(
            torch.zeros(capacity, n_features),
            torch.zeros(capacity, action_dim),
            torch.zeros(capacity),
            torch.zeros(capacity, n_features),
            torch.zeros(capacity),
        )
        self.clear()

    def __len__(self) -> int:
        """Number of stored transitions."""
        return min(self._n_added, self.capacity)

    def clear(self) -> None:
        """Forget everything: states of another encoder mean nothing to the present one."""
        self._n_added = 0

    def add(self, batch: Transitions) -> None:
        """Append transitions; the oldest are overwritten."""
        n = len(batch.reward)
        rows = (self._n_added + torch.arange(n)) % self.capacity
        for stored, new in zip(self._data, batch, strict=True):
            stored[rows] = new
        self._n_added += n

    def sample(self, n: int) -> Transitions:
        """``n`` transitions, uniformly with replacement."""
        rows = torch.randint(len(self), (n,))
        return Transitions(*(x[rows] for x in self._data))


@torch.no_grad()
def branch(
    model: MetaModel,
    actor: Actor,
    starts: RealTransitions,
    length: int,
    replay: ImaginedReplay,
    termination: TerminationFunction | None = None,
) -> None:
    """Roll the meta-model ``length`` steps under the policy from real histories, into ``replay``.

    Args:
        model: The meta-model; its states are carried forward along the rollout.
        actor: The meta-policy, sampled.
        starts: Histories drawn uniformly from D_env, shape (n, ...).
        length: Steps k of each rollout; one that terminates ends earlier.
        replay: Where the imagined transitions go.
        termination: The env's own termination function of (obs, action, next_obs), if it has
            one; the model's learnt one otherwise.
    """
    obs, state = starts.obs, starts.state
    for _ in range(length):
        features = model.features(obs, state)
        action = actor.act(features)
        step = model.imagine(obs, state, action)
        if termination is not None:
            ends = termination(obs, action, step.next_obs).float()
        else:
            ends = torch.bernoulli(step.terminated)
        next_features = model.features(step.next_obs, step.next_state)
        replay.add(Transitions(features, action, step.reward, next_features, 1.0 - ends))
        goes_on = ends < 0.5
        obs, state = step.next_obs[goes_on], step.next_state[goes_on]
        if len(obs) == 0:
            break


def concatenate(a: Transitions, b: Transitions) -> Transitions:
    """Rows of ``a`` followed by rows of ``b``."""
    return Transitions(*(torch.cat(pair) for pair in zip(a, b, strict=True)))
