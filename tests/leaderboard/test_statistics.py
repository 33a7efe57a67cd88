"""Hand-computed cases; against rliable in ``tests/crosscheck``."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from m3po_bench.leaderboard.statistics import (
    iqm,
    mean,
    optimality_gap,
    paired_differences,
    performance_profile,
    probability_of_improvement,
    stratified_interval,
    student_interval,
)

STRATA = [np.array([0.0, 1.0, 2.0, 100.0]), np.array([3.0, 4.0, -50.0, 5.0])]


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert iqm(STRATA) == pytest.approx((1.0 + 2.0 + 3.0 + 4.0) / 4)


def test_envs_count_alike_however_many_seeds_they_have() -> None:
    assert mean([np.array([1.0]), np.array([3.0, 5.0])]) == pytest.approx((1.0 + 4.0) / 2)


def test_the_optimality_gap_stops_at_the_goal() -> None:
    assert optimality_gap([np.array([0.5, 7.0]), np.array([0.0, 1.0])]) == pytest.approx(1.5 / 4)


def test_the_profile_is_the_share_above() -> None:
    shares = performance_profile(
        [np.array([0.1, 0.5]), np.array([0.5, 0.9])], np.array([0, 0.5, 1])
    )
    assert shares.tolist() == [1.0, 0.25, 0.0]


def test_improvement_counts_pairs_and_halves_ties() -> None:
    ours, theirs = [np.array([1.0, 3.0]), np.array([0.0])], [np.array([1.0, 2.0]), np.array([9.0])]
    # First env: 1 against 1 (tie) and 2 (below), 3 above both; second: below.
    assert probability_of_improvement(ours, theirs) == pytest.approx(((0.5 + 0 + 2) / 4 + 0) / 2)
    with pytest.raises(ValueError, match="2 envs against 1"):
        probability_of_improvement(ours, theirs[:1])


def test_differences_are_of_common_seeds() -> None:
    assert paired_differences({0: 5.0, 1: 7.0, 3: 1.0}, {3: 0.5, 0: 1.0, 8: 9.0}).tolist() == [
        4.0,
        0.5,
    ]


def test_student_intervals_are_scipys_of_each_row_without_what_is_missing() -> None:
    values = np.array(
        [[1.0, 2.0, 4.0, 8.0], [3.0, np.nan, 5.0, -1.0], [np.nan, np.nan, 2.0, np.nan]]
    )
    low, high = student_interval(values)
    for row, found in zip(values[:2], zip(low, high, strict=True), strict=False):
        there = row[~np.isnan(row)]
        expected = stats.t.interval(0.95, len(there) - 1, there.mean(), stats.sem(there))
        assert found == pytest.approx(expected)
    assert np.isnan([low[2], high[2]]).all()


def test_the_interval_is_the_bootstrap_of_one_env() -> None:
    values = np.random.default_rng(1).normal(size=12)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    found = stratified_interval(mean, [values], resamples=4000)
    assert found == pytest.approx(tuple(expected), abs=0.04)
    assert stratified_interval(mean, [values], resamples=50) == stratified_interval(
        mean, [values], resamples=50
    )


def test_seeds_are_redrawn_within_their_env() -> None:
    """Envs of constant but different scores leave nothing to chance."""
    strata = [np.zeros(5), np.full(5, 10.0)]
    assert stratified_interval(mean, strata, resamples=200) == (5.0, 5.0)


def test_the_interval_of_an_improvement_takes_two_agents() -> None:
    low, high = stratified_interval(probability_of_improvement, STRATA, STRATA, resamples=200)
    assert 0.0 <= low < 0.5 < high <= 1.0
