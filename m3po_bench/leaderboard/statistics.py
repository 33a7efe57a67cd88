"""Statistics over seeds and envs that few runs can bear (Agarwal et al. 2021, arXiv 2108.13264).

Scores come as *strata*: one array for each env, one number in it for each seed. The seed is the
unit of replication, so episodes and tasks are averaged before. Every statistic takes seeds along
the last axis, and gives a number for each place of the axes before it: all resamples of a bootstrap
at once, for instance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Strata = Sequence[Array]
Statistic = Callable[..., Any]

RESAMPLES = 2_000
CONFIDENCE = 0.95


def iqm(strata: Strata) -> Any:
    """Interquartile mean of all runs: the mean without the lowest and the highest quarter."""
    return stats.trim_mean(np.concatenate(strata, -1), 0.25, axis=-1)


def mean(strata: Strata) -> Any:
    """Mean over envs of the mean over seeds."""
    return np.mean([scores.mean(-1) for scores in strata], axis=0)


def optimality_gap(strata: Strata, goal: float = 1.0) -> Any:
    """By how much runs miss ``goal`` on average; what lies above it makes up for nothing."""
    return goal - np.minimum(np.concatenate(strata, -1), goal).mean(-1)


def performance_profile(strata: Strata, thresholds: Array) -> Array:
    """Share of runs with a score above each threshold, shape (len(thresholds),)."""
    scores = np.concatenate(strata)
    shares: Array = (scores[:, None] > thresholds).mean(0)
    return shares


def probability_of_improvement(ours: Strata, theirs: Strata) -> Any:
    """Mean over envs of P(a run of ours scores above one of theirs); ties count one half.

    Raises:
        ValueError: If the two have not the same number of envs.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} envs against {len(theirs)}: expected the same envs")
    return np.mean([_above(x, y) for x, y in zip(ours, theirs, strict=True)], axis=0)


def paired_differences(ours: dict[int, float], theirs: dict[int, float]) -> Array:
    """Ours minus theirs for every seed that both have, in order of seeds."""
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def student_interval(values: Array) -> tuple[Array, Array]:
    """Student's 95% intervals of means over seeds, which are the last axis; NaN stands for none.

    A percentile bootstrap of few numbers is too narrow: of five normal ones it holds the mean in
    84% of cases, of ten in 90%.

    Args:
        values: Shape (..., n).

    Returns:
        Lower and upper ends, shape (...,); NaN where there are fewer than two numbers.
    """
    n = np.isfinite(values).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.nansum(values, -1) / n
        squares = np.nansum((values - centre[..., None]) ** 2, -1)
        margin = np.sqrt(squares / (n - 1) / n) * stats.t.ppf((1.0 + CONFIDENCE) / 2.0, n - 1)
    return centre - margin, centre + margin


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
    found = statistic(*([_redrawn(x, rng, resamples) for x in strata] for strata in samples))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(found, (tail, 1.0 - tail))
    return float(low), float(high)


def _redrawn(scores: Array, rng: np.random.Generator, resamples: int) -> Array:
    drawn: Array = scores[rng.integers(len(scores), size=(resamples, len(scores)))]
    return drawn


def _above(x: Array, y: Array) -> Array:
    difference = x[..., :, None] - y[..., None, :]
    share: Array = ((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1))
    return share
