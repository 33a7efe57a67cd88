"""Our statistics against rliable 1.2.0's, which needs old libraries: run by `tox -e crosscheck`."""

from __future__ import annotations

import numpy as np
import pytest

from m3po_bench.leaderboard import statistics
from m3po_bench.leaderboard.aggregate import interval

pytest.importorskip("rliable", reason="runs in `tox -e crosscheck`")


def test_bootstrap_interval_of_the_mean_over_seeds() -> None:
    from rliable import library

    rng = np.random.default_rng(0)
    for n_seeds in (5, 10, 30):
        returns = rng.gamma(2.0, 100.0, n_seeds)
        _, expected = library.get_interval_estimates(
            {"agent": returns[:, None]}, lambda matrix: np.array([np.mean(matrix)]), reps=20_000
        )
        np.testing.assert_allclose(interval(list(returns)), expected["agent"][:, 0], rtol=0.03)


def test_aggregates_over_envs_and_seeds() -> None:
    from rliable import metrics

    matrix = np.random.default_rng(1).gamma(2.0, 0.4, (7, 4))
    strata = list(matrix.T)
    assert statistics.iqm(strata) == pytest.approx(metrics.aggregate_iqm(matrix))
    assert statistics.mean(strata) == pytest.approx(metrics.aggregate_mean(matrix))
    gap = metrics.aggregate_optimality_gap(matrix)
    assert statistics.optimality_gap(strata) == pytest.approx(gap)
    other = np.random.default_rng(2).gamma(2.0, 0.4, (5, 4))
    expected = metrics.probability_of_improvement(matrix, other)
    assert statistics.probability_of_improvement(strata, list(other.T)) == pytest.approx(expected)


def test_performance_profiles() -> None:
    from rliable import library

    matrix = np.random.default_rng(1).gamma(2.0, 0.4, (7, 4))
    thresholds = np.linspace(0.0, 2.0, 21)
    expected = [library.run_score_deviation(matrix, tau) for tau in thresholds]
    found = statistics.performance_profile(list(matrix.T), thresholds)
    np.testing.assert_allclose(found, expected)


def test_stratified_intervals() -> None:
    from rliable import library, metrics

    matrix = np.random.default_rng(3).gamma(2.0, 0.4, (10, 6))
    _, expected = library.get_interval_estimates(
        {"agent": matrix}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4_000
    )
    found = statistics.stratified_interval(statistics.iqm, list(matrix.T), resamples=4_000)
    np.testing.assert_allclose(found, expected["agent"][:, 0], rtol=0.03)
