from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3po_bench.leaderboard.pairs import EVERY_ENV, PAIR_COLUMNS, pairs


def _rows(returns: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Two episodes for each seed, whose mean is as given."""
    return pd.DataFrame(
        [
            {
                "agent": agent, "env": env, "schedule": "hazard", "setting": "online",
                "split": "test", "seed": seed, "step": 10, "episode": episode,
                "return": value + (1.0 if episode else -1.0),
            }
            for (agent, env), values in returns.items()
            for seed, value in enumerate(values)
            for episode in range(2)
        ]
    )  # fmt: skip


def test_the_better_comes_first_and_seeds_are_paired() -> None:
    table = pairs(_rows({("A", "E"): [1.0, 2.0], ("B", "E"): [4.0, 1.0, 9.0]}))
    assert tuple(table.columns) == PAIR_COLUMNS
    (pair,) = table.to_dict("records")
    assert (pair["agent"], pair["against"], pair["n_seeds"]) == ("B", "A", 2)
    assert pair["difference"] == pytest.approx((3.0 - 1.0) / 2)
    assert (pair["difference_low"], pair["difference_high"]) == (-1.0, 3.0)
    assert pair["p_improvement"] == pytest.approx((2 + 0.5 + 2) / 6)
    assert np.isnan(pair["p_low"])


def test_at_one_every_seed_is_above_every_seed() -> None:
    seeds = np.arange(5.0)
    table = pairs(_rows({("A", "E"): [*seeds], ("B", "E"): [*(seeds + 5)]}))
    (pair,) = table.to_dict("records")
    assert pair["p_improvement"] == 1.0
    assert np.isnan([pair["p_low"], pair["p_high"]]).all()  # nothing that a bootstrap could redraw
    assert pair["difference_low"] == pair["difference_high"] == 5.0


def test_over_envs_improvement_is_their_mean() -> None:
    table = pairs(
        _rows({
            ("A", "E"): [1.0, 2.0], ("B", "E"): [3.0, 4.0],
            ("A", "F"): [1.0, 3.0], ("B", "F"): [2.0, 4.0],
            ("C", "F"): [0.0, 0.0],
        })
    )  # fmt: skip
    assert len(table) == 1 + 3 + 1
    (both,) = table[table["env"] == EVERY_ENV].to_dict("records")
    assert (both["agent"], both["against"]) == ("B", "A")
    assert both["p_improvement"] == pytest.approx((1 + 0.75) / 2)
    assert np.isnan(both["difference"])
