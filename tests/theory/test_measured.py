"""Bounds beside measured gaps: the right rows, the right bound, and a picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3po_bench.theory import branched_bound, gap_figure, gap_table

MEASURED = {
    "gap/return": 9.0, "gap/k1": -0.5, "gap/k1_se": 0.1, "gap/k20": 3.0, "gap/k20_se": 0.4,
    "gap/full": 4.0, "gap/full_se": 0.6, "gap/eps_low": 0.02, "gap/eps_high": 0.4,
    "gap/reward_span": 6.0, "gap/horizon": 30.0, "gap/gamma": 0.9, "gap/rollout_length": 5.0,
}  # fmt: skip


def run(agent: str, seed: int, **measures: float) -> dict[str, object]:
    names = {"env": "M3PO/PointFwdBwd-v0", "schedule": "hazard", "agent": agent, "seed": seed}
    return {**names, "return": 10.0 + seed, **measures}


def test_the_table_lays_the_bound_beside_the_gap() -> None:
    table = gap_table(pd.DataFrame([run("M3PO", 0, **MEASURED), run("SAC", 0)]))
    assert table["agent"].unique().tolist() == ["M3PO"]
    assert table["k"].tolist() == [1.0, 20.0, 30.0]
    assert table["gap"].tolist() == [-0.5, 3.0, 4.0]
    assert table["se"].tolist() == [0.1, 0.4, 0.6]
    assert table["trained_k"].unique().tolist() == [5.0]
    for eps, name in ((0.02, "bound_low"), (0.4, "bound_high")):
        for k, bound in zip((1, 20, np.inf), table[name], strict=True):
            # Full rollouts are those that no horizon lets grow longer.
            expected = branched_bound(eps, 0.0, 0.9, 3.0, k, model_rewards=True, horizon=30)
            assert bound == pytest.approx(expected)
    assert table["largest"].iloc[0] == pytest.approx(6.0 * sum(0.9**t for t in range(30)))


def test_rollouts_that_ran_away_are_left_out() -> None:
    lost = {key: value for key, value in MEASURED.items() if "full" not in key}
    table = gap_table(pd.DataFrame([run("M3PO", 0, **MEASURED), run("M3PO-full", 0, **lost)]))
    assert table.loc[table["agent"] == "M3PO-full", "k"].tolist() == [1.0, 20.0]


def test_full_rollouts_are_one_thing_where_episodes_end_at_different_times() -> None:
    shorter = {**MEASURED, "gap/horizon": 25.0}
    table = gap_table(pd.DataFrame([run("M3PO", 0, **MEASURED), run("M3PO", 1, **shorter)]))
    assert table["k"].tolist() == 2 * [1.0, 20.0, 30.0]
    assert table["bound_low"].iloc[-1] < table["bound_low"].iloc[2]  # over its own horizon


def test_a_picture_where_something_was_measured() -> None:
    rows = [run(a, s, **MEASURED) for a in ("M3PO", "M3PO-full") for s in (0, 1)]
    image = gap_figure(pd.DataFrame([*rows, run("SAC", 0)]))
    assert image is not None
    assert image.startswith(b"\x89PNG")
    assert gap_figure(pd.DataFrame([run("SAC", 0)])) is None


def test_returns_stand_beside_only_where_lengths_can_be_compared() -> None:
    def width(other_length: float) -> int:
        other = {**MEASURED, "gap/rollout_length": other_length}
        image = gap_figure(pd.DataFrame([run("M3PO", 0, **MEASURED), run("M3PO-k", 0, **other)]))
        assert image is not None
        return int.from_bytes(image[16:20], "big")

    assert width(1.0) == 2 * width(5.0)
