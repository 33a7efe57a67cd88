"""Statistics over seeds and envs that few runs can bear (Agarwal et al. 2021, arXiv 2108.13264).

Scores come as *strata*: one array for each env, one number in it for each seed. The seed is the
unit of replication, so episodes and tasks are averaged before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Strata = Sequence[Array]
Statistic = Callable[..., float]

RESAMPLES = 2_000
CONFIDENCE = 0.95


def iqm(strata: Strata) -> float:
    """Interquartile mean of all runs: the mean without the lowest and the highest quarter."""
    return float(stats.trim_mean(np.concatenate(strata), 0.25))


def mean(strata: Strata) -> float:
    """Mean over envs of the mean over seeds."""
    return float(np.mean([np.mean(scores) for scores in strata]))


def optimality_gap(strata: Strata, goal: float = 1.0) -> float:
    """By how much runs miss ``goal`` on average; what lies above it makes up for nothing."""
    return float(goal - np.minimum(np.concatenate(strata), goal).mean())


def performance_profile(strata: Strata, thresholds: Array) -> Array:
    """Share of runs with a score above each threshold, shape (len(thresholds),)."""
    scores = np.concatenate(strata)
    shares: Array = (scores[:, None] > thresholds).mean(0)
    return shares


def probability_of_improvement(ours: Strata, theirs: Strata) -> float:
    """Mean over envs of P(a run of ours scores above one of theirs); ties count one half.

    Raises:
        ValueError: If the two have not the same number of envs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} envs against {len(theirs)}: expected the same envs")
    return float(np.mean([_above(x, y) for x, y in zip(ours, theirs, strict=True)]))


def paired_differences(ours: dict[int, float], theirs: dict[int, float]) -> Array:
    """Ours minus theirs for every seed that both have, in order of seeds."""
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def stratified_interval(
    statistic: Statistic, *samples: Strata, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """A 95% percentile bootstrap interval; seeds are redrawn within each env.

    Args:
        statistic: Of one or more strata, as many as ``samples``.
        *samples: One strata for each agent.
        resamples: Bootstrap samples, drawn from a fixed generator, so that reports repeat.
    """
    rng = np.random.default_rng(0)
    found = [
        statistic(*([_redrawn(x, rng) for x in strata] for strata in samples))
        for _ in range(resamples)
    ]
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(found, (tail, 1.0 - tail))
    return float(low), float(high)


def _redrawn(scores: Array, rng: np.random.Generator) -> Array:
    drawn: Array = scores[rng.integers(len(scores), size=len(scores))]
    return drawn


def _above(x: Any, y: Any) -> float:
    difference = np.subtract.outer(np.asarray(x), np.asarray(y))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
