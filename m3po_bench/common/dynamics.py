"""Ensembles of Gaussian heads, trained by maximum likelihood.

Chua et al. 2018 (PETS, arXiv 1805.12114), Janner et al. 2019 (MBPO, arXiv 1906.08253).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.networks import StackedMLP


class GaussianEnsemble(nn.Module):
    """``n`` networks that each predict mean and log variance of standardised targets.

    The log variance is kept between two learnt soft bounds, as in MBPO.

    Args:
        n: Number of members.
        in_features: Input width.
        out_features: Target width.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, n: int, in_features: int, out_features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.n, self.out_features = n, out_features
        self.net = StackedMLP(n, in_features, hidden, 2 * out_features, activation="silu")
        self.max_log_var = nn.Parameter(torch.full((out_features,), 0.5))
        self.min_log_var = nn.Parameter(torch.full((out_features,), -10.0))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (n, batch, out), for inputs (n, batch, in) or (batch, in)."""
        mean, log_var = self.net(inputs).chunk(2, dim=-1)
        log_var = self.max_log_var - F.softplus(self.max_log_var - log_var)
        log_var = self.min_log_var + F.softplus(log_var - self.min_log_var)
        return mean, log_var

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log likelihood, averaged over rows and outputs, summed over members.

        Args:
            inputs: Shape (n, batch, in).
            targets: Shape (n, batch, out).
        """
        mean, log_var = self(inputs)
        nll = ((mean - targets).square() * torch.exp(-log_var) + log_var).mean((1, 2)).sum()
        spread: Tensor = (self.max_log_var - self.min_log_var).mean()
        return cast(Tensor, nll + 0.01 * spread)

    def sample(self, inputs: Tensor) -> Tensor:
        """One draw per row, each from a member of its own choosing; (batch, in) to (batch, out).

        Rows are split among the members at random, so that every row costs one network, not n.
        """
        batch = inputs.shape[0]
        share = -(-batch // self.n)
        order = torch.randperm(batch, device=inputs.device)
        padded = torch.cat([order, order[: share * self.n - batch]])
        mean, log_var = self(inputs[padded].view(self.n, share, -1))
        draw = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        out = torch.empty(batch, self.out_features, device=inputs.device)
        out[order] = draw.flatten(0, 1)[:batch]
        return out
