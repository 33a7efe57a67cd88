"""What the page of results says of other methods than M3PO comes from the published rows."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest
from published import PUBLISHED, RESULTS, curves, diagnosed, listed, prose

from m3po_bench.leaderboard.settings import ONLINE, SHOTS, TEST
from m3po_bench.leaderboard.store import EVALUATION, Store


def test_adaptation_pays_on_the_disabled_joint() -> None:
    """Every seed of GrBAL is above every one of MPC; the inner step is worth a fifth or more."""
    returns: dict[str, list[float]] = {"GrBAL": [], "MPC": []}
    for folder, record in Store(RESULTS / "lite").finished():
        agent = record["agent"]
        if record["env"] != "M3PO/HalfCheetahDisabledJoint-v0" or agent not in returns:
            continue
        rows = pd.read_csv(folder / EVALUATION)
        rows = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST)]
        last = rows[rows["step"] == rows["step"].max()]
        returns[agent].append(last["return"].mean())
        found = record["diagnostics"]
        before, after = (found[f"model/query_error_{when}"] for when in ("before", "after"))
        assert after < 0.8 * before if agent == "GrBAL" else after == before
    assert min(len(seeds) for seeds in returns.values()) >= 2
    assert min(returns["GrBAL"]) > max(returns["MPC"])
    said = "{:.0f} and {:.0f} against {:.0f} and {:.0f}".format(*returns["GrBAL"], *returns["MPC"])
    assert said in prose(PUBLISHED)


def _said_shots(agent: str, seed: int) -> list[float]:
    """Returns of the first three episodes in a task, which the page has to say."""
    folder = RESULTS / "cheetah-baselines" / "HalfCheetahFwdBwd-episodic" / agent
    rows = pd.read_csv(folder / f"seed{seed}" / EVALUATION)
    shots = [rows[rows["setting"] == f"{k}-shot"]["return"].mean() for k in (0, 1, 2)]
    assert "{:.0f}, {:.0f} and {:.0f} (seed {}".format(*shots, seed) in prose(PUBLISHED)
    return shots


@pytest.mark.parametrize("seed", [0, 1])
def test_pearls_curves_are_as_they_are_said(seed: int) -> None:
    agent = RESULTS / "cheetah-baselines" / "HalfCheetahFwdBwd-episodic" / "PEARL"
    rows = pd.read_csv(agent / f"seed{seed}" / EVALUATION)
    readme = PUBLISHED.read_text(encoding="utf-8")
    in_episodes = rows[rows["setting"] == ONLINE]
    first = in_episodes[(in_episodes["split"] == TEST) & (in_episodes["episode"] < 10)]
    means = first.groupby("step")["return"].mean()[[130_000, 250_000, 500_000]]
    shown = f"| PEARL here, seed {seed} | " + " | ".join(f"{mean:.0f}" for mean in means) + " |"
    assert shown in readme.splitlines()
    _said_shots("PEARL", seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_pearl_that_learns_from_its_own_runs_is_as_good_as_published(seed: int) -> None:
    """Four fifths of what another implementation has after 130,000 steps, in the third episode."""
    assert _said_shots("PEARL-posterior", seed)[2] > 0.8 * 522


@pytest.mark.parametrize(("agent", "episodes"), [("RL2", 1), ("MAML", 2), ("ProMP", 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_more_episodes_in_a_task_help_as_is_said(agent: str, episodes: int, seed: int) -> None:
    shots = _said_shots(agent, seed)
    assert shots[0] < shots[episodes]


@pytest.mark.parametrize("seed", [0, 1])
def test_later_episodes_of_rl2_are_not_told_apart_as_is_said(seed: int) -> None:
    folder = RESULTS / "cheetah-baselines" / "HalfCheetahFwdBwd-episodic" / "RL2" / f"seed{seed}"
    rows = pd.read_csv(folder / EVALUATION)
    trials = rows[rows["step"] == rows["step"].max()].pivot_table(
        index="episode", columns="setting", values="return"
    )
    for shot, other in combinations(SHOTS, 2):
        gained = trials[other] - trials[shot]
        assert abs(gained.mean()) < 2.0 * gained.sem()


CHEETAH = RESULTS / "lite" / "HalfCheetahFwdBwd-hazard"


def test_pearl_hardly_earns_anything_where_the_task_changes_as_is_said() -> None:
    early = curves(CHEETAH, "PEARL", first=10)
    ends = [seed.iloc[-1] for seed in curves(CHEETAH, "PEARL")]
    lowest, highest = (f(f(seed) for seed in early) for f in (min, max))
    runs = pd.read_csv(RESULTS / "lite" / "runs.csv").query("agent == 'PEARL'")
    spent = runs["training_core_minutes"]
    said = (
        "ends at {} (all 40; {:.0f} to {:.0f} core-minutes of training each) "
        "and stays between {:z.0f} and {:z.0f}"
    )
    values = (listed(ends), spent.min(), spent.max(), lowest, highest)
    assert said.format(*values) in prose(PUBLISHED)
    tables = [pd.read_csv(path) for path in sorted(CHEETAH.glob(f"PEARL/seed*/{EVALUATION}"))]
    first = [rows[rows["setting"] == SHOTS[0]]["return"].mean() for rows in tables]
    assert f"{listed(first)} in the first episode of a trial" in prose(PUBLISHED)


def test_grbal_is_between_sac_and_m3po_as_is_said() -> None:
    agents = ("GrBAL", "SAC", "SAC-PrevReward", "M3PO")
    ends = {agent: [seed.iloc[-1] for seed in curves(CHEETAH, agent)] for agent in agents}
    assert f"ends at {listed(ends['GrBAL'])} (all 40;" in prose(PUBLISHED)
    assert max(ends["SAC"] + ends["SAC-PrevReward"]) < min(ends["GrBAL"])
    assert max(ends["GrBAL"]) < min(ends["M3PO"])
    before, after = (
        diagnosed(CHEETAH, "GrBAL", f"model/query_error_{when}") for when in ("before", "after")
    )
    steps = [f"{b:.2f} to {a:.2f}" for b, a in zip(before, after, strict=True)]
    said = "from {}, from {} and from {} (`model/query_error_before`".format(*steps)
    assert said.replace("0.", ".") in prose(PUBLISHED)
