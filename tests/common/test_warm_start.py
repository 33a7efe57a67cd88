"""Random actions before learning: their distribution, and their correlation in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy.stats import kstest

from m3po_bench import make_agent
from m3po_bench.common.checkpoints import ExactCheckpoint
from m3po_bench.common.warm_start import WarmStart

BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))


def drawn(correlation: float, n: int = 20_000) -> NDArray[np.float32]:
    """Actions of two streams, shape (n, 2, 2)."""
    BOX.seed(0)
    warm_start = WarmStart(BOX, 2, correlation)
    return np.stack([warm_start.draw() for _ in range(n)])


def test_each_action_is_uniform_and_alike_the_last() -> None:
    actions = drawn(0.9)
    assert actions.dtype == np.float32
    unit = (actions - BOX.low) / (BOX.high - BOX.low)
    for column in unit[::100].reshape(-1, 4).T:  # so far apart they are nearly independent
        assert kstest(column, "uniform").pvalue > 1e-3
    columns = actions.reshape(len(actions), 4).T
    # Pearson's correlation of the distribution functions of two normals, r = 6 / pi asin(c / 2)
    for column in columns:
        found = np.corrcoef(column[1:], column[:-1])[0, 1]
        assert found == pytest.approx(6.0 / np.pi * np.arcsin(0.45), abs=0.02)
    between = np.corrcoef(columns) - np.eye(4)
    assert np.abs(between).max() < 0.15


def test_without_correlation_it_is_the_action_space_that_draws() -> None:
    actions = drawn(0.0, 5)
    BOX.seed(0)
    assert_array_equal(actions, np.stack([[BOX.sample(), BOX.sample()] for _ in range(5)]))


def test_an_agent_begins_with_such_actions() -> None:
    found = []
    for correlation in (0.95, 0.0):
        agent = make_agent(
            "M3PO", "m3po_bench:M3PO/PointFwdBwd-v0", preset="tiny", seed=0,
            learning_starts=1000, warm_start_correlation=correlation,
        )  # fmt: skip
        action = agent.learn(300).replay_buffer.all.action[:, 0]
        found.append(np.corrcoef(action[1:], action[:-1])[0, 1])
    assert found[0] > 0.8
    assert abs(found[1]) < 0.2


def test_such_a_beginning_is_resumed_exactly(tmp_path: Path) -> None:
    def begun() -> Any:
        return make_agent(
            "M3PO", "m3po_bench:M3PO/PointFwdBwd-v0", preset="tiny", seed=0,
            learning_starts=1000, warm_start_correlation=0.9,
        )  # fmt: skip

    path = tmp_path / "at.pt"
    whole = begun().learn(350, callback=ExactCheckpoint(path, every=250))
    resumed = begun().resume(path)
    assert 250 <= resumed.num_timesteps < 350
    resumed.learn(350 - resumed.num_timesteps, reset_num_timesteps=False)
    actions = whole.replay_buffer.all.action
    assert_array_equal(resumed.replay_buffer.all.action, actions)


@pytest.mark.parametrize("correlation", [-0.1, 1.0])
def test_refuses_what_is_no_such_correlation(correlation: float) -> None:
    with pytest.raises(ValueError, match=f"warm_start_correlation={correlation}: expected"):
        make_agent(
            "M3PO", "m3po_bench:M3PO/PointFwdBwd-v0", preset="tiny",
            warm_start_correlation=correlation,
        )  # fmt: skip
