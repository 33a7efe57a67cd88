"""Figures over all agents: drawn where there are rows for them, and only there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from m3po_bench.leaderboard.plots import agent_colours, of_agents
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
