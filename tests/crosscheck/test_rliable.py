"""Our statistics against rliable 1.2.0's, which needs old libraries: run by `tox -e crosscheck`."""

from __future__ import annotations

import numpy as np
import pytest

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
