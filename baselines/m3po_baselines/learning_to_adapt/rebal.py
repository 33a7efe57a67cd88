"""ReBAL: the model adapts by its recurrent state.

Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine, Finn, "Learning to Adapt in Dynamic, Real-World
Environments through Meta-Reinforcement Learning", ICLR 2019, arXiv 1803.11347.

=========================================  =====================================================
the method                                 here
=========================================  =====================================================
recurrent model, its state                 ``RecurrentModel``: ``encoder``; the state is the memory
adaptation: the state takes in the last    ``remember``
transition
training on whole trajectories             ``batch``, ``loss``
control from the current state             ``adaptive_mpc.MPCPolicy``
=========================================  =====================================================

The preset ``default`` has the settings of the authors' code (256 units, Adam at 0.01, ten whole
trajectories a step, at most 50 epochs, random shooting with 500 candidates and horizon 10).

Known deviations, beside those that ``grbal`` lists for the reward, the statistics, actions, the
validation loss, termination, trials and what is optional. Two GRUs over whole transitions (o, a, r,
o'), one for dynamics and one for reward, feed feed-forward heads, in place of one LSTM over (o, a)
that predicts by itself; the published one cannot see rewards. The state stays as it is while a plan
is imagined, because what the model imagines tells nothing of the task; the published code lets it
run along. Gradients run through whole sequences, which here have 100 to 1,000 steps, and more in
trials of several episodes, not through pieces of 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    Head,
    Heads,
    Observed,
    weighted_mean,
)
from m3po_baselines.learning_to_adapt.adaptive_mpc import AdaptiveMPC
from m3po_bench.common.encoders import HistoryEncoder
from m3po_bench.common.history_policy import Memory
from m3po_bench.common.networks import StackedMLP


class RecurrentModel(AdaptiveModel):
    """Heads that see the state of a GRU over the transitions so far; it is the memory.

    Dynamics and reward have a GRU each, so that the errors of one do not crowd the other out.

    Args:
        obs_dim: See ``AdaptiveModel``.
        action_dim: See ``AdaptiveModel``.
        state_dim: Units of each GRU.
        embedding: Width of the small MLP in front of each.
        hidden: Hidden widths of the dynamics.
        reward_hidden: Hidden widths of reward and termination.
        activation: ``relu`` or ``silu``.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        state_dim: int = 256,
        embedding: int = 64,
        hidden: Sequence[int] = (512, 512, 512),
        reward_hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
    ) -> None:
        super().__init__(obs_dim, action_dim, reward_hidden)
        seen = obs_dim + action_dim + state_dim
        self.dynamics = StackedMLP(1, seen, hidden, obs_dim, activation)
        self.reward = StackedMLP(1, seen + obs_dim, reward_hidden, 1, activation)
        self.encoder = HistoryEncoder(2, 2 * obs_dim + action_dim + 1, embedding, state_dim)

    def empty(self, n: int) -> Memory:
        """See ``AdaptiveModel``."""
        return (torch.zeros(n, self.encoder.state_dim),)

    def remember(self, memory: Memory, last: Observed) -> Memory:
        """See ``AdaptiveModel``."""
        return (self.encoder.step(self.encoded(last), memory[0]),)

    def adapted(self, memory: Memory) -> Heads:
        """See ``AdaptiveModel``; the state stays as it is while a plan is imagined."""
        return self._heads(memory[0][:, None])

    def _heads(self, state: Tensor) -> Heads:
        """Heads given states of shape (n, steps, state_dim), or (n, 1, state_dim) for all."""

        def head(net: StackedMLP, own: Tensor) -> Head:
            def predict(inputs: Tensor) -> Tensor:
                context = own.expand(*inputs.shape[:2], -1)
                rows = torch.cat([inputs, context], -1).flatten(0, 1)
                predicted: Tensor = net(rows)
                return predicted.view(*inputs.shape[:2], -1)

            return predict

        dynamics, reward = state.chunk(2, -1)
        return Heads(head(self.dynamics, dynamics), head(self.reward, reward))

    def piece(self, data: Observed) -> int:
        """See ``AdaptiveModel``."""
        return len(data.weight)

    def batch(self, data: Observed, n: int) -> Observed:
        """Whole sequences."""
        chosen = torch.randint(data.weight.shape[1], (n,))
        return Observed(*(x[:, chosen] for x in data)).swapped()

    def loss(self, batch: Observed) -> Tensor:
        """Mean one-step error along sequences, each given the transitions before."""
        batch = _without_seams(batch)
        inputs = self.encoded(batch).transpose(0, 1)
        (start,) = self.empty(len(batch.weight))
        states = torch.cat([start[None], self.encoder(inputs[:-1], start)]).transpose(0, 1)
        obs_errors, reward_errors = self.errors(self._heads(states), batch)
        return weighted_mean((obs_errors + reward_errors).flatten(), batch.weight.flatten())


def _without_seams(batch: Observed) -> Observed:
    """The sequences, (n, steps, ...), with all that is no transition behind all that is one.

    So the state passes over the seams between a trial's episodes, as it does in acting.
    """
    sequences = batch.swapped()
    order = sequences.weight.argsort(dim=0, descending=True, stable=True)
    columns = torch.arange(len(batch.weight))
    return Observed(*(x[order, columns] for x in sequences)).swapped()


class ReBAL(AdaptiveMPC):
    """Model-predictive control whose model adapts by its recurrent state; see ``AdaptiveMPC``."""

    def _make_model(self, obs_dim: int, action_dim: int, **kwargs: Any) -> AdaptiveModel:
        return RecurrentModel(obs_dim, action_dim, **kwargs)
