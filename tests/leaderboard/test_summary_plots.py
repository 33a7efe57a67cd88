"""Figures over all agents: drawn where there are rows for them, and only there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3po_bench.leaderboard.plots import agent_colours, of_agents, panels, seeds_and_mean
from m3po_bench.leaderboard.statistics import student_interval
from m3po_bench.leaderboard.summary_plots import model_errors, performance_profiles, score_map

PNG = b"\x89PNG"
COLOURS = {"A": "C0", "SAC": "C1"}
SCORES = pd.DataFrame(
    {
        "agent": ["A", "B", "A", "B"],
        "env": ["M3PO/X-v0", "M3PO/X-v0", "M3PO/Y-v0", "M3PO/Y-v0"],
        "score": [0.1, 0.9, np.nan, 0.5],
    }
)


def test_scores_of_two_agents_make_a_map() -> None:
    image = score_map(SCORES)
    assert image is not None
    assert image.startswith(PNG)
    assert score_map(SCORES[SCORES["agent"] == "B"]) is None
    assert score_map(SCORES.assign(score=np.nan)) is None


def test_profiles_need_two_envs() -> None:
    image = performance_profiles({"A": [np.array([0.1, 2.0]), np.array([0.5])]}, COLOURS)
    assert image is not None
    assert image.startswith(PNG)
    assert performance_profiles({"A": [np.array([0.1, 2.0])]}, COLOURS) is None


def test_model_errors_are_those_of_agents_with_models() -> None:
    names = {"env": "M3PO/X-v0", "schedule": "hazard", "agent": "A", "seed": 0}
    found = {f"model/{kind}_error_h{h}": 0.1 * h for kind in ("obs", "reward") for h in (1, 5)}
    image = model_errors(pd.DataFrame([{**names, **found}, {**names, "agent": "SAC"}]), COLOURS)
    assert image is not None
    assert image.startswith(PNG)
    assert model_errors(pd.DataFrame([{**names, "model/obs_coverage": 0.7}]), COLOURS) is None


@pytest.mark.parametrize("n_seeds", [4, 5])
def test_few_seeds_are_lines_and_more_a_band(n_seeds: int) -> None:
    steps = [100, 200, 300]
    curves = pd.DataFrame(
        {"seed": seed, "step": step, "return": seed * step}
        for seed in range(n_seeds)
        for step in steps
    )
    _, (ax,) = panels(1, 1, {})
    seeds_and_mean(ax, curves[:-1], "step", "return", "C0")  # the last seed lacks a checkpoint
    *thin, mean = ax.lines
    assert np.asarray(mean.get_ydata())[0] == 100 * np.mean(range(n_seeds))
    assert len(thin) == (n_seeds if n_seeds < 5 else 0)
    assert len(ax.collections) == (n_seeds >= 5)
    for band in ax.collections:
        low, high = student_interval(np.arange(n_seeds, dtype=np.float64) * 100)
        drawn = np.asarray(band.get_paths()[0].vertices, dtype=np.float64)
        at_100 = drawn[drawn[:, 0] == 100, 1]
        assert (at_100.min(), at_100.max()) == pytest.approx((low, high))


@pytest.mark.parametrize("n", [3, 11, 25])
def test_no_two_agents_share_a_colour(n: int) -> None:
    colours = agent_colours(f"agent {i}" for i in range(n))
    assert len({tuple(colour) for colour in colours.values()}) == n


def test_legends_name_registered_agents_first_and_sort_numbers_as_numbers() -> None:
    given = ["M3PO-k20", "SAC", "M3PO-k5", "M3PO", "M3PO-k1"]
    colours = agent_colours(given)
    assert list(colours) == ["M3PO", "SAC", "M3PO-k1", "M3PO-k5", "M3PO-k20"]
    assert colours == agent_colours(reversed(given))
    # A registered agent has its colour in every report.
    assert agent_colours(["SAC", "MBPO"])["SAC"] == agent_colours(["SAC"])["SAC"] == colours["SAC"]
    drawn = of_agents(colours, ["SAC", "M3PO", "SAC"])
    assert list(drawn.items()) == [("M3PO", colours["M3PO"]), ("SAC", colours["SAC"])]
