"""One gradient step of policy gradient, differentiable in the parameters that it starts from.

Parameters are one flat vector, so that those of n adapted policies are the rows of a matrix and
``torch.func.vmap`` turns each layer into one batched matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector

from m3po_bench.registry import unknown_name

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
LOG_2_PI = 1.8378770664093453


class Gaussian(NamedTuple):
    """Independent normal distributions of the actions.

    Attributes:
        mean: Shape (..., action_dim).
        log_std: The same shape.
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Actions from standard normal ``noise`` of the mean's shape."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, action: Tensor) -> Tensor:
        """Log densities, shape (...)."""
        scaled = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * scaled.square() - self.log_std - 0.5 * LOG_2_PI).sum(-1)

    def kl_to(self, other: Gaussian) -> Tensor:
        """KL(self || other), shape (...)."""
        variance = (2.0 * self.log_std).exp() + (self.mean - other.mean).square()
        parts = other.log_std - self.log_std + 0.5 * variance * (-2.0 * other.log_std).exp() - 0.5
        return parts.sum(-1)


class GaussianMLP(nn.Module):
    """A network for the mean, and a deviation that does not depend on the observation.

    Args:
        obs_dim: Width of the observation.
        action_dim: Width of the action.
        hidden: Width of each hidden layer.
        activation: ``tanh`` or ``relu``.
        init_std: Deviation at the start.
        min_std: Smallest deviation.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        activation: str,
        init_std: float,
        min_std: float,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise unknown_name("activation", activation, _ACTIVATIONS)
        if not 0.0 < min_std <= init_std:
            raise ValueError(
                f"min_std={min_std!r}, init_std={init_std!r}: expected 0 < min <= init"
            )
        layers: list[nn.Module] = []
        for width, following in pairwise([obs_dim, *hidden]):
            layers += [nn.Linear(width, following), _ACTIVATIONS[activation]()]
        self.mean = nn.Sequential(*layers, nn.Linear([obs_dim, *hidden][-1], action_dim))
        for layer in self.mean:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.log_std = nn.Parameter(torch.full((action_dim,), init_std).log())
        self._min_log_std = float(torch.tensor(min_std).log())
        self._shapes = [(name, p.shape) for name, p in self.named_parameters()]

    def forward(self, obs: Tensor) -> Gaussian:
        """Distributions of the actions at observations of shape (..., obs_dim)."""
        mean = self.mean(obs)
        return Gaussian(mean, self.log_std.clamp(min=self._min_log_std).expand_as(mean))

    def flat(self) -> Tensor:
        """The parameters as one vector, shape (n_parameters,), in the graph of the parameters."""
        return parameters_to_vector(self.parameters())

    def at(self, flat: Tensor, obs: Tensor) -> Gaussian:
        """``forward`` with other parameters, given as one vector."""
        parts = torch.split(flat, [shape.numel() for _, shape in self._shapes])
        named = {
            name: part.view(shape) for (name, shape), part in zip(self._shapes, parts, strict=True)
        }
        return cast(Gaussian, functional_call(self, named, (obs,)))

    def at_each(self, flat: Tensor, obs: Tensor) -> Gaussian:
        """``at`` for parameters (n, n_parameters) and observations (n, ...), row by row."""
        return vmap(self.at)(flat, obs)


class Batch(NamedTuple):
    """Transitions of n tasks with their advantages.

    Attributes:
        obs: Shape (n, T, obs_dim).
        action: Shape (n, T, action_dim).
        advantage: Shape (n, T).
        weight: Share of each transition in its task's mean, shape (n, T); 0 in empty rows.
        drawn_from: Distribution of each action when it was drawn, (n, T, action_dim).
    """

    obs: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor
    drawn_from: Gaussian

    def ratio(self, now: Gaussian) -> Tensor:
        """Density of each action now over that when it was drawn, shape (n, T)."""
        return (now.log_prob(self.action) - self.drawn_from.log_prob(self.action)).exp()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over each task's transitions, then over the tasks, of values (n, T)."""
        return (self.weight * values).sum(-1).mean()

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """The tasks of several batches in one."""
        obs, action, advantage, weight, drawn_from = zip(*batches, strict=True)
        mean, log_std = zip(*drawn_from, strict=True)
        return Batch(
            torch.cat(obs), torch.cat(action), torch.cat(advantage), torch.cat(weight),
            Gaussian(torch.cat(mean), torch.cat(log_std)),
        )  # fmt: skip


def log_likelihood_loss(now: Gaussian, batch: Batch) -> Tensor:
    """Minus the mean of log density times advantage (Finn et al. 2017)."""
    return -batch.mean(batch.advantage * now.log_prob(batch.action))


def likelihood_ratio_loss(now: Gaussian, batch: Batch) -> Tensor:
    """Minus the mean of ratio times advantage: the LVC surrogate (Rothfuss et al. 2019).

    Its gradient at the parameters that drew the actions is that of the log-likelihood loss; its
    second derivative has the products of scores that the other lacks.
    """
    return -batch.mean(batch.advantage * batch.ratio(now))


def score_loss(now: Gaussian, batch: Batch) -> Tensor:
    """Minus the mean of advantage times the score with which each action was drawn, linear in now.

    Its gradient is that of the log-likelihood loss where ``now`` drew the actions. Where another
    policy did, say an adapted one, the direction in which it should have changed its actions is
    asked of ``now``. The density of such actions under ``now`` would tell nothing but how far
    away they are, and drive the deviation to infinity.
    """
    mean, log_std = batch.drawn_from
    noise = (batch.action - mean) * (-log_std).exp()
    score = noise * (-log_std).exp() * now.mean + (noise.square() - 1.0) * now.log_std
    return -batch.mean(batch.advantage * score.sum(-1))


INNER_LOSSES = {
    "log_likelihood": log_likelihood_loss,
    "likelihood_ratio": likelihood_ratio_loss,
    "score": score_loss,
}


class InnerStep:
    """phi = theta - learning_rate * gradient of a policy-gradient loss on one task's transitions.

    Args:
        network: Whose parameters adapt; only its shape counts.
        learning_rate: Of the step.
        loss: A name of ``INNER_LOSSES``.
    """

    def __init__(self, network: GaussianMLP, learning_rate: float, loss: str) -> None:
        if loss not in INNER_LOSSES:
            raise unknown_name("inner loss", loss, INNER_LOSSES)
        self.learning_rate = learning_rate
        self._network, self._loss = network, INNER_LOSSES[loss]

    def adapt(self, theta: Tensor, batch: Batch) -> Tensor:
        """Parameters after the step, for each of a batch's n tasks; differentiable in ``theta``.

        Args:
            theta: Shape (n_parameters,).
            batch: Of n tasks.

        Returns:
            Shape (n, n_parameters).
        """
        return vmap(self._adapt_to_task, in_dims=(None, 0))(theta, batch)

    def _adapt_to_task(self, theta: Tensor, batch: Any) -> Tensor:
        def loss(flat: Tensor) -> Tensor:
            return self._loss(self._network.at(flat, batch.obs), batch)

        gradient: Tensor = grad(loss)(theta)
        return theta - self.learning_rate * gradient
