"""Recurrent encoder of histories."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

_GRU_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class HistoryEncoder(nn.Module):
    """A GRU over whole transitions, each first passed through a small MLP.

    The state after t transitions summarises h_t = (o_0, a_0, r_0, ..., o_t); an empty history is
    the zero state. The input of a step is the whole last transition (o, a, r, o'), because what
    reveals a task is how the four go together.

    Args:
        in_features: Width of an encoded transition.
        embedding: Width of the MLP.
        state_dim: Width of the GRU.
    """

    def __init__(self, in_features: int, embedding: int, state_dim: int) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.embed = nn.Sequential(
            nn.Linear(in_features, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.gru = nn.GRU(embedding, state_dim)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """States after each step.

        Args:
            inputs: Transitions, shape (length, n, in_features).
            state: State before the first of them, shape (n, state_dim).

        Returns:
            Shape (length, n, state_dim).
        """
        return cast(Tensor, self.gru(self.embed(inputs), state[None].contiguous())[0])

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The state after one transition: (n, in_features), (n, state_dim) to (n, state_dim)."""
        weights = (getattr(self.gru, name) for name in _GRU_WEIGHTS)
        new: Tensor = torch.gru_cell(self.embed(inputs), state, *weights)
        return new
