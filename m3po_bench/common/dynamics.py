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

MIN_LOG_VAR, MAX_LOG_VAR = -10.0, 0.5


class GaussianEnsemble(nn.Module):
    """``n`` networks that each predict mean and log variance of standardised targets.

    The log variance is kept between two soft bounds, where MBPO's start; they are not learnt.

    Args:
        n: Number of members.
        in_features: Input width.
        out_features: Target width.
        hidden: Widths of the hidden layers.
        beta: Power of the variance that weighs the likelihood of an output, see ``loss``.
    """

    def __init__(
        self, n: int, in_features: int, out_features: int, hidden: Sequence[int], beta: float
    ) -> None:
        super().__init__()
        self.n, self.out_features, self.beta = n, out_features, beta
        self.net = StackedMLP(n, in_features, hidden, 2 * out_features, activation="silu")

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (n, batch, out), for inputs (n, batch, in) or (batch, in)."""
        mean, log_var = self.net(inputs).chunk(2, dim=-1)
        log_var = MAX_LOG_VAR - F.softplus(MAX_LOG_VAR - log_var)
        return mean, MIN_LOG_VAR + F.softplus(log_var - MIN_LOG_VAR)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log likelihood times variance^beta, averaged over rows, summed over members.

        The weight is held fixed, so the minimum is the same for every beta (beta-NLL; Seitzer et
        al. 2022, arXiv 2203.09168); what differs is what is learnt first. At beta = 0, plain
        likelihood, an error weighs 1 / variance: what is hard to predict yet, such as the effect
        of a hidden task, is written off as noise. At beta = 1 means learn as under squared error:
        errors that nobody can avoid, few and large, get most of the gradient.

        Args:
            inputs: Shape (n, batch, in).
            targets: Shape (n, batch, out).
        """
        mean, log_var = self(inputs)
        nll = (mean - targets).square() * torch.exp(-log_var) + log_var
        weighted = nll * torch.exp(self.beta * log_var.detach())
        return cast(Tensor, weighted.mean((1, 2)).sum())

    def sample(self, inputs: Tensor) -> Tensor:
        """One draw per row, each from a member of its own choosing; (batch, in) to (batch, out).

        Rows are split among the members at random, so that every row costs one network, not n.
        Where they do not split evenly, chance decides which members get fewer.
        """
        batch = inputs.shape[0]
        share = -(-batch // self.n)
        order = torch.randperm(batch, device=inputs.device)
        rows = order[torch.arange(share * self.n, device=inputs.device) % batch]
        shift = int(torch.randint(len(rows), ())) if len(rows) != batch else 0
        rows = rows.roll(shift)  # where a row comes twice, the first of its draws counts
        mean, log_var = self(inputs.index_select(0, rows).view(self.n, share, -1))
        draw = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        out = torch.empty(batch, self.out_features, device=inputs.device)
        return out.index_copy_(0, order, draw.flatten(0, 1).roll(-shift, 0)[:batch])
