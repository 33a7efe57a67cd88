"""Branched meta-rollouts: k imagined steps off real histories, kept in D_model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from m3po_bench.common.sequence_replay import RealTransitions
from m3po_bench.common.soft_actor_critic import Transitions
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.termination import TerminationFunction

Rows = TypeVar("Rows", bound=tuple[Tensor, ...])


class ImaginedStep(NamedTuple):
    """One step of those rollouts that have not ended.

    Attributes:
        rows: Which of the starts they are, shape (n,).
        obs: Shape (n, obs_dim).
        state: History states at ``obs``, shape (n, state_dim).
        action: In [-1, 1], shape (n, action_dim).
        reward: Shape (n,).
        next_obs: Shape (n, obs_dim).
        next_state: History states at ``next_obs``, shape (n, state_dim).
        not_terminated: 1 where the rollout goes on, else 0; shape (n,).
    """

    rows: Tensor
    obs: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    next_state: Tensor
    not_terminated: Tensor

    def transitions(self, policy: MetaPolicy) -> Transitions:
        """The step between the features that the policy sees."""
        return Transitions(
            policy.features(self.obs, self.state),
            self.action,
            self.reward,
            policy.features(self.next_obs, self.next_state),
            self.not_terminated,
        )


class ImaginedReplay(Generic[Rows]):
    """D_model: a ring of what was imagined.

    Args:
        kind: The named tuple of tensors that comes in and goes out, one row each of every tensor.
        capacity: Rows kept.
    """

    def __init__(self, kind: Callable[..., Rows], capacity: int) -> None:
        self.capacity = capacity
        self._kind = kind
        self._data: Rows | None = None
        self.clear()

    def __len__(self) -> int:
        """Number of stored rows."""
        return min(self._n_added, self.capacity)

    def clear(self) -> None:
        """Forget everything: states of another encoder mean nothing to the present one."""
        self._n_added = 0

    def add(self, batch: Rows) -> None:
        """Append rows; the oldest are overwritten."""
        if self._data is None:
            self._data = self._kind(*(x.new_zeros(self.capacity, *x.shape[1:]) for x in batch))
        n = len(batch[0])
        rows = (self._n_added + torch.arange(n)) % self.capacity
        for stored, new in zip(self._data, batch, strict=True):
            stored.index_copy_(0, rows, new)  # faster than stored[rows] = new
        self._n_added += n

    def sample(self, n: int) -> Rows:
        """``n`` rows, uniformly with replacement.

        Raises:
            ValueError: If there are none.
        """
        if self._data is None or len(self) == 0:
            raise ValueError("D_model is empty, expected rollouts before the first sample")
        rows = torch.randint(len(self), (n,))
        return self._kind(*(x.index_select(0, rows) for x in self._data))  # faster than x[rows]


@torch.no_grad()
def branch(
    policy: MetaPolicy,
    starts: RealTransitions,
    length: int,
    termination: TerminationFunction | None = None,
    hindsight: bool = False,
    trust: float = 1.0,
) -> Iterator[ImaginedStep]:
    """Roll the meta-model ``length`` steps under the policy from real histories.

    Args:
        policy: The meta-policy, sampled.
        starts: Histories of D_env, shape (n, ...).
        length: Steps k of each rollout; one that terminates ends earlier.
        termination: The env's own termination function of (obs, action, next_obs), if it has
            one; the model's learnt one otherwise.
        hindsight: Whether rewards are predicted with the meta-model's history state of one real
            step later, which knows more of the real task, instead of the rollout's own.
        trust: Below 1, a rollout ends before a step in which the meta-model's members are further
            apart (``MetaModel.spread``) than in this share of all rollouts' first steps.

    Yields:
        The steps in their order.
    """
    rows, obs, state = torch.arange(len(starts.obs)), starts.obs, starts.state
    limit: Tensor | None = None
    for _ in range(length):
        action = policy.actor.act(policy.features(obs, state))
        if trust < 1.0 and length > 1:
            spread = policy.meta_model.spread(obs, state, action)
            if limit is None:
                limit = torch.quantile(spread, trust)
            else:
                near = spread <= limit
                rows, obs, state, action = rows[near], obs[near], state[near], action[near]
                if len(obs) == 0:
                    break
        later = starts.next_state[rows] if hindsight else None
        step = policy.imagine(obs, state, action, later)
        if termination is not None:
            ends = termination(obs, action, step.next_obs).float()
        else:
            ends = torch.bernoulli(step.terminated)
        yield ImaginedStep(
            rows, obs, state, action, step.reward, step.next_obs, step.next_state, 1.0 - ends
        )
        goes_on = ends < 0.5
        rows, obs, state = rows[goes_on], step.next_obs[goes_on], step.next_state[goes_on]
        if len(obs) == 0:
            break


def real_transitions(policy: MetaPolicy, real: RealTransitions) -> Transitions:
    """Of D_env, between the features that the policy sees."""
    return Transitions(
        policy.features(real.obs, real.state),
        real.action,
        real.reward,
        policy.features(real.next_obs, real.next_state),
        1.0 - real.terminated,
    )


def deal_out(n: int, *sources: Transitions) -> list[Transitions]:
    """``n`` batches, each with as many rows of a source as each other."""
    size = [len(rows.reward) // max(n, 1) for rows in sources]
    fields = (
        torch.cat([x.view(n, k, *x.shape[1:]) for k, x in zip(size, field, strict=True)], 1)
        for field in zip(*sources, strict=True)
    )
    return [Transitions(*batch) for batch in zip(*fields, strict=True)]
