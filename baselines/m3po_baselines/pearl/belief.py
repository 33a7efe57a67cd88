"""What a context of transitions says about the task: a Gaussian over a latent variable z.

Rakelly et al. 2019, equation 2: q(z | c) is proportional to the product of one Gaussian factor per
transition. A product adds precisions, so the order of transitions does not matter, and taking in
one more costs the same however many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.networks import mlp

MIN_VARIANCE = 1e-7


class Belief(NamedTuple):
    """Products of Gaussian factors over z, by what adds up; of no factors, the prior N(0, I).

    The prior is what an empty context means, not a factor: as published, the first transition
    replaces it.

    Attributes:
        weighted_mean: Sum of the factors' mean / variance, shape (..., latent_dim).
        precision: Sum of the factors' 1 / variance, shape (..., latent_dim).
    """

    weighted_mean: Tensor
    precision: Tensor

    @classmethod
    def prior(cls, n: int, latent_dim: int) -> Belief:
        """``n`` beliefs from empty contexts."""
        return cls(torch.zeros(n, latent_dim), torch.zeros(n, latent_dim))

    @property
    def variance(self) -> Tensor:
        """Shape (..., latent_dim)."""
        return torch.where(self.precision > 0.0, self.precision, 1.0).reciprocal()

    @property
    def mean(self) -> Tensor:
        """Shape (..., latent_dim)."""
        return self.weighted_mean * self.variance

    def times(self, other: Belief) -> Belief:
        """The product with other factors."""
        return Belief(self.weighted_mean + other.weighted_mean, self.precision + other.precision)

    def weighted(self, weight: float) -> Belief:
        """The factors to the power of ``weight``: the same means with so much of the precision."""
        return Belief(self.weighted_mean * weight, self.precision * weight)

    def product(self) -> Belief:
        """The product over the last axis but one: (..., n, latent_dim) to (..., latent_dim)."""
        return Belief(self.weighted_mean.sum(-2), self.precision.sum(-2))

    def where(self, condition: Tensor, other: Belief) -> Belief:
        """These beliefs where ``condition``, of shape (n,), holds, and others elsewhere."""
        rows = condition[:, None]
        return Belief(
            torch.where(rows, self.weighted_mean, other.weighted_mean),
            torch.where(rows, self.precision, other.precision),
        )

    def sample(self) -> Tensor:
        """Reparameterised draws of z, shape (..., latent_dim)."""
        return self.mean + self.variance.sqrt() * torch.randn_like(self.precision)

    def kl_from_prior(self) -> Tensor:
        """KL(q(z | c) || N(0, I)), summed over the latent's dimensions; shape (...,)."""
        variance = self.variance
        return 0.5 * (variance + self.mean.square() - 1.0 - variance.log()).sum(-1)


class ContextEncoder(nn.Module):
    """Turns each transition of a context into a Gaussian factor.

    Args:
        in_features: Width of a transition as the context shows it.
        hidden: Widths of the hidden layers.
        latent_dim: Width of z.
    """

    def __init__(self, in_features: int, hidden: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.net = mlp(in_features, hidden, 2 * latent_dim)

    def forward(self, context: Tensor) -> Belief:
        """A factor per transition: (..., in_features) to beliefs of (..., latent_dim)."""
        mean, raw = self.net(context).chunk(2, dim=-1)
        precision = F.softplus(raw).clamp(min=MIN_VARIANCE).reciprocal()
        return Belief(mean * precision, precision)
