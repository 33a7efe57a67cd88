"""Planners: which first action to take, given what each sequence of actions would be worth.

Pure functions of a score and of random draws, for many environments side by side. Who wants
different plans passes different draws; who wants the same plan again passes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from m3po_bench.common.arguments import check_counts

Score = Callable[[Tensor], Tensor]
"""Sequences of actions, (n_envs, candidates, horizon, action_dim), to (n_envs, candidates)."""


class Planner(Protocol):
    """What searches for a sequence of actions in [-1, 1]."""

    @property
    def horizon(self) -> int:
        """Actions of a sequence."""
        ...

    def draws(self, action_dim: int, seeds: Sequence[int | None]) -> Tensor:
        """The randomness of one search for each env.

        Args:
            action_dim: Width of an action.
            seeds: One per env; equal seeds, equal draws. None draws from torch's global generator.

        Returns:
            Shape (n_envs, ...).
        """
        ...

    def plan(self, score: Score, draws: Tensor) -> Tensor:
        """First actions of the best sequences that were found, (n_envs, action_dim)."""
        ...


@dataclass(frozen=True)
class RandomShooting:
    """The best of many sequences of uniformly random actions.

    Attributes:
        candidates: Sequences that are compared.
        horizon: Actions of a sequence.
    """

    candidates: int = 500
    horizon: int = 10

    def __post_init__(self) -> None:
        check_counts(candidates=self.candidates, horizon=self.horizon)

    def draws(self, action_dim: int, seeds: Sequence[int | None]) -> Tensor:
        """Uniform in [-1, 1], (n_envs, candidates, horizon, action_dim); see ``Planner``."""
        shape = (self.candidates, self.horizon, action_dim)
        return _per_seed(lambda g: 2.0 * torch.rand(shape, generator=g) - 1.0, seeds)

    def plan(self, score: Score, draws: Tensor) -> Tensor:
        """See ``Planner``."""
        best = _usable(score(draws)).argmax(1)
        return draws[torch.arange(len(draws)), best, 0]


@dataclass(frozen=True)
class CrossEntropy:
    """The cross-entropy method: a Gaussian over sequences, fitted again and again to the best.

    It starts anew at every call, with mean 0 and deviation 1, as learning_to_adapt's does; that one
    acts on the best of its last sequences, not on its last mean.

    Attributes:
        candidates: Sequences that are compared in each iteration.
        horizon: Actions of a sequence.
        iterations: How often the Gaussian is fitted.
        elites: Share of the candidates it is fitted to.
        kept: Share of its old mean that the new one keeps.
    """

    candidates: int = 500
    horizon: int = 10
    iterations: int = 5
    elites: float = 0.1
    kept: float = 0.1

    def __post_init__(self) -> None:
        check_counts(candidates=self.candidates, horizon=self.horizon, iterations=self.iterations)
        if not 0.0 < self.elites <= 1.0:
            raise ValueError(f"elites={self.elites}: expected a share in (0, 1]")
        if not 0.0 <= self.kept < 1.0:
            raise ValueError(f"kept={self.kept}: expected a share in [0, 1)")

    def draws(self, action_dim: int, seeds: Sequence[int | None]) -> Tensor:
        """Normal, (n_envs, iterations, candidates, horizon, action_dim); see ``Planner``."""
        shape = (self.iterations, self.candidates, self.horizon, action_dim)
        return _per_seed(lambda g: torch.randn(shape, generator=g), seeds)

    def plan(self, score: Score, draws: Tensor) -> Tensor:
        """The first action of the last mean; see ``Planner``."""
        n_elites = max(2, round(self.elites * self.candidates))
        rows = torch.arange(len(draws))[:, None]
        mean, std = torch.zeros_like(draws[:, 0, 0]), torch.ones_like(draws[:, 0, 0])
        for noise in draws.unbind(1):
            sequences = (mean[:, None] + std[:, None] * noise).clamp(-1.0, 1.0)
            best = _usable(score(sequences)).topk(min(n_elites, self.candidates), dim=1).indices
            elite = sequences[rows, best]
            mean = torch.lerp(elite.mean(1), mean, self.kept)
            std = elite.std(1, correction=0)
        return mean[:, 0]


def _per_seed(
    draw: Callable[[torch.Generator | None], Tensor], seeds: Sequence[int | None]
) -> Tensor:
    """Stacked draws, one per seed; a seed that comes often is drawn from once."""
    known: dict[int, Tensor] = {}
    found = []
    for seed in seeds:
        if seed is None:
            found.append(draw(None))
        else:
            if seed not in known:
                known[seed] = draw(torch.Generator().manual_seed(seed))
            found.append(known[seed])
    return torch.stack(found)


def _usable(values: Tensor) -> Tensor:
    """Values to compare: what is not a number, after an overflow, is never the best."""
    return values.nan_to_num(nan=-torch.inf)
