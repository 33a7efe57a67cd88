"""What every adaptive model is: heads that predict, and a memory that changes their predictions.

A rule of adaptation says what the memory is, how a transition enters it, what the heads become
given it, and how all of it is trained. Planning and control need to know no more.

The reward is predicted from (o, a, o') by a network of its own, with an error of its own: beside
the many errors of an observation, one error of a reward would not be heard.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.history_policy import Memory, keep_where
from m3po_bench.common.networks import Normalizer, StackedMLP

Head = Callable[[Tensor], Tensor]

EnvReward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(o, a, o'), each (n_envs, candidates, ...), to rewards (n_envs, candidates)."""


class Observed(NamedTuple):
    """Transitions that happened; leading axes (n, steps), or (steps, n) for whole sequences.

    Attributes:
        obs: Shape (..., obs_dim).
        action: In [-1, 1], shape (..., action_dim).
        reward: Shape (...,).
        next_obs: Shape (..., obs_dim).
        terminated: 1 where the episode ended in a terminal state, shape (...,).
        weight: 1 where there is a transition, 0 for padding; shape (...,).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    weight: Tensor

    def swapped(self) -> Observed:
        """The same with the two leading axes exchanged."""
        return Observed(*(x.transpose(0, 1) for x in self))


class Heads(NamedTuple):
    """Predictors for n envs, each (n, rows, in) to (n, rows, out), in deviations of the data.

    Attributes:
        dynamics: From (o, a), side by side, to the change of the observation.
        reward: From (o, a, o') to the reward.
    """

    dynamics: Head
    reward: Head


class AdaptiveModel(nn.Module):
    """Predicts dynamics, reward and, once one has been seen, termination.

    A subclass brings the networks of dynamics and reward; when episodes end does not depend on
    the task.

    Args:
        obs_dim: Width of observations, without the history columns.
        action_dim: Width of actions.
        termination_hidden: Hidden widths of the network that predicts the end of episodes.
    """

    fitted: Tensor
    terminates: Tensor

    def __init__(self, obs_dim: int, action_dim: int, termination_hidden: Sequence[int]) -> None:
        super().__init__()
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.obs_norm, self.delta_norm = Normalizer(obs_dim), Normalizer(obs_dim)
        self.reward_norm = Normalizer(1)
        self.termination = StackedMLP(1, 2 * obs_dim + action_dim, termination_hidden, 1)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("terminates", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def empty(self, n: int) -> Memory:
        """The memory of ``n`` envs of which nothing has been seen."""

    @abstractmethod
    def remember(self, memory: Memory, last: Observed) -> Memory:
        """The memory with one more transition of each env, (n, ...) without an axis of steps."""

    @abstractmethod
    def adapted(self, memory: Memory) -> Heads:
        """Predictors of each env, given what is remembered of it."""

    @abstractmethod
    def batch(self, data: Observed, n: int) -> Observed:
        """``n`` pieces of whole sequences (steps, n_sequences) to learn from, (n, steps, ...)."""

    @abstractmethod
    def loss(self, batch: Observed) -> Tensor:
        """The prediction error to be minimised on a ``batch``, termination left out."""

    @abstractmethod
    def piece(self, data: Observed) -> int:
        """Steps of one piece of a ``batch``."""

    def encoded(self, data: Observed) -> Tensor:
        """Whole transitions as the input of an encoder, (..., 2 obs_dim + action_dim + 1)."""
        reward = self.reward_norm(data.reward[..., None])
        change = self.delta_norm(data.next_obs - data.obs)
        return torch.cat([self.obs_norm(data.obs), data.action, reward, change], -1)

    def errors(self, heads: Heads, data: Observed) -> tuple[Tensor, Tensor]:
        """Squared one-step errors of observation (mean of its columns) and reward, (n, steps).

        In variances of the training data: what always answers with the mean scores about 1.
        """
        now, after = self.obs_norm(data.obs), self.obs_norm(data.next_obs)
        change = heads.dynamics(torch.cat([now, data.action], -1))
        miss = change - self.delta_norm(data.next_obs - data.obs)
        reward = heads.reward(torch.cat([now, data.action, after], -1))
        off = reward - self.reward_norm(data.reward[..., None])
        return miss.square().mean(-1), off.square().mean(-1)

    def termination_loss(self, data: Observed) -> Tensor:
        """Cross entropy of when episodes end."""
        now, after = self.obs_norm(data.obs), self.obs_norm(data.next_obs)
        inputs = torch.cat([now, data.action, after], -1).flatten(0, -2)
        logits = self.termination(inputs)[0, :, 0]
        weight = data.weight.flatten()
        loss = F.binary_cross_entropy_with_logits(
            logits, data.terminated.flatten(), weight, reduction="sum"
        )
        return loss / weight.sum().clamp(min=1.0)

    def returns(
        self, heads: Heads, obs: Tensor, plans: Tensor, env_reward: EnvReward | None = None
    ) -> Tensor:
        """Undiscounted imagined returns of sequences of actions, (n, candidates).

        Args:
            heads: Predictors of each env.
            obs: Where the sequences start, shape (n, obs_dim).
            plans: Shape (n, candidates, horizon, action_dim).
            env_reward: The reward function, if it need not be predicted.
        """
        now = obs[:, None].expand(-1, plans.shape[1], -1)
        seen = self.obs_norm(now)
        total, alive = torch.zeros(plans.shape[:2]), torch.ones(plans.shape[:2])
        for action in plans.unbind(2):
            change = heads.dynamics(torch.cat([seen, action], -1))
            after = now + self.delta_norm.inverse(change)
            seen_after = self.obs_norm(after)
            inputs = torch.cat([seen, action, seen_after], -1)
            if env_reward is None:
                reward = self.reward_norm.inverse(heads.reward(inputs))[..., 0]
            else:
                reward = env_reward(now, action, after)
            total = total + alive * reward
            if self.terminates:
                logits = self.termination(inputs.flatten(0, 1))[0, :, 0]
                alive = alive * torch.sigmoid(-logits).view_as(alive)
            now, seen = after, seen_after
        return total

    def fit_normalizers(self, data: Observed) -> None:
        """Take means and deviations of the transitions that ``data`` holds."""
        there = data.weight > 0
        self.obs_norm.fit(data.obs[there])
        self.delta_norm.fit((data.next_obs - data.obs)[there])
        self.reward_norm.fit(data.reward[there][:, None])
        self.terminates.fill_(bool(data.terminated[there].any()))


def windows(data: Observed, n: int, before: int, behind: int) -> Observed:
    """Windows around moments of whole sequences, drawn uniformly: (n, before + behind, ...).

    What lies outside of the sequence has weight 0, so that models learn to adapt on as few
    transitions as an episode's beginning offers.

    Args:
        data: Whole sequences, (steps, n_sequences, ...).
        n: Number of windows.
        before: Transitions before the moment.
        behind: Transitions from the moment on.
    """
    there = torch.nonzero(data.weight)
    now, sequence = there[torch.randint(len(there), (n,))].T
    steps = now[:, None] + torch.arange(-before, behind)
    inside = (steps >= 0) & (steps < len(data.weight))
    steps = steps.clamp(0, len(data.weight) - 1)
    window = Observed(*(x[steps, sequence[:, None]] for x in data))
    return window._replace(weight=window.weight * inside)


def weighted_mean(errors: Tensor, weight: Tensor) -> Tensor:
    """Mean over the last axis of what counts; 0 where nothing does."""
    return (errors * weight).sum(-1) / weight.sum(-1).clamp(min=1.0)


@torch.no_grad()
def adaptation_errors(
    model: AdaptiveModel,
    data: Observed,
    age: Tensor | None = None,
    ahead: int = 16,
    every: int = 10,
) -> dict[str, float]:
    """What the memory is worth: errors ahead, with the heads of an empty memory and of the real.

    Args:
        model: The model.
        data: Whole sequences, (steps, n, ...).
        age: Steps since the task began, (steps, n). Where it is known, a query ends with its
            task, as nothing tells of a change beforehand.
        ahead: Transitions after the present one on which the errors are taken: the query.
        every: Steps between two measurements.

    Returns:
        ``query_error_before`` and ``query_error_after``, the sums of the squared errors of
        observation and reward that follow under ``query_obs_error_...`` and
        ``query_reward_error_...``.
    """
    n = data.reward.shape[1]
    empty = memory = model.empty(n)
    sums, weight = torch.zeros(2, 2), torch.zeros(())
    for t in range(len(data.reward)):
        if t and t % every == 0:
            query = Observed(*(x[t : t + ahead] for x in data)).swapped()
            if age is not None:
                later = torch.arange(query.weight.shape[1])[:, None]
                same_task = age[t : t + ahead] == age[t] + later
                query = query._replace(weight=query.weight * same_task.T)
            weight += query.weight.sum()
            for row, given in zip(sums, (empty, memory), strict=True):
                errors = torch.stack(model.errors(model.adapted(given), query))
                row += (errors * query.weight).sum((1, 2))
        memory = keep_where(
            data.weight[t] > 0, model.remember(memory, Observed(*(x[t] for x in data))), memory
        )
    if weight == 0:
        return {}
    means = (sums / weight).tolist()
    found: dict[str, float] = {}
    for when, (obs, reward) in zip(("before", "after"), means, strict=True):
        found[f"query_error_{when}"] = obs + reward
        found[f"query_obs_error_{when}"] = obs
        found[f"query_reward_error_{when}"] = reward
    return found


@torch.no_grad()
def recall(model: AdaptiveModel, data: Observed) -> Memory:
    """What is remembered after sequences, (steps, n, ...); padding and seams are skipped."""
    memory = model.empty(data.weight.shape[1])
    for t, there in enumerate(data.weight > 0):
        new = model.remember(memory, Observed(*(x[t] for x in data)))
        memory = keep_where(there, new, memory)
    return memory
