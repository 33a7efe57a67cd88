"""Recurrent encoders of histories."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.networks import StackedLinear, silu_


class HistoryEncoder(nn.Module):
    """Independent GRUs, the branches, over whole transitions passed through small MLPs.

    The state after t transitions summarises h_t = (o_0, a_0, r_0, ..., o_t); an empty history is
    the zero state. The input of a step is the whole last transition (o, a, r, o'), because what
    reveals a task is how the four go together.

    A CPU spends its time on starting the many small operations of a recurrence, not on their
    arithmetic. So the branches run as one GRU whose weights are block-diagonal.

    Args:
        n_branches: Number of GRUs; nothing passes between them.
        in_features: Width of an encoded transition.
        embedding: Width of each branch's MLP.
        branch_dim: Units of each GRU.
    """

    def __init__(self, n_branches: int, in_features: int, embedding: int, branch_dim: int) -> None:
        super().__init__()
        self.n_branches, self.branch_dim = n_branches, branch_dim
        self.state_dim = n_branches * branch_dim
        self.embed = nn.ModuleList(
            [
                StackedLinear(n_branches, in_features, embedding),
                StackedLinear(n_branches, embedding, embedding),
            ]
        )
        self.from_input = StackedLinear(n_branches, embedding, 3 * branch_dim)
        self.from_state = StackedLinear(n_branches, branch_dim, 3 * branch_dim)

    def _embedded(self, inputs: Tensor, dropout: float = 0.0) -> Tensor:
        """(rows, in_features) to (n_branches, rows, embedding)."""
        x = inputs.expand(self.n_branches, *inputs.shape)
        for layer in self.embed:
            x = silu_(layer(x))
            if dropout > 0.0:
                x = F.dropout(x, dropout)
        return x

    def forward(self, inputs: Tensor, state: Tensor, dropout: float = 0.0) -> Tensor:
        """States after each step.

        Args:
            inputs: Transitions, shape (length, n, in_features); length may be 0.
            state: State before the first of them, shape (n, state_dim).
            dropout: Share of the MLPs' units that are silenced at each step.

        Returns:
            Shape (length, n, state_dim).
        """
        if len(inputs) == 0:  # torch's GRU takes no empty sequence
            return state.new_zeros(0, *state.shape)
        embedded = self._embedded(inputs.flatten(0, 1), dropout).transpose(0, 1)
        weights = [
            _block_diagonal(self.from_input.weight),
            _block_diagonal(self.from_state.weight),
            _gate_major(self.from_input.bias),
            _gate_major(self.from_state.bias),
        ]
        outputs: Tensor = torch.gru(
            embedded.reshape(*inputs.shape[:2], -1),
            state[None].contiguous(),
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=False,
            bidirectional=False,
            batch_first=False,
        )[0]
        return outputs

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The state after one transition: (n, in_features), (n, state_dim) to (n, state_dim)."""
        old = state.view(-1, self.n_branches, self.branch_dim).transpose(0, 1)
        from_input = self.from_input(self._embedded(inputs)).chunk(3, -1)
        from_state = self.from_state(old).chunk(3, -1)
        reset = torch.sigmoid(from_input[0] + from_state[0])
        update = torch.sigmoid(from_input[1] + from_state[1])
        candidate = torch.tanh(from_input[2] + reset * from_state[2])
        return torch.lerp(candidate, old, update).transpose(0, 1).flatten(1)


def _block_diagonal(weight: Tensor) -> Tensor:
    """(branches, in, 3 units) to torch's (3 * branches * units, branches * in)."""
    if len(weight) == 1:
        return weight[0].T
    gates = weight.transpose(1, 2).chunk(3, 1)
    return torch.cat([torch.block_diag(*gate) for gate in gates])  # type: ignore[no-untyped-call]


def _gate_major(bias: Tensor) -> Tensor:
    """(branches, 1, 3 units) to torch's (3 * branches * units,)."""
    return bias.reshape(len(bias), 3, -1).transpose(0, 1).flatten()
