"""What ``results/README.md`` says of the suite ``quick-all`` comes from the rows beside it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from published import PUBLISHED, RESULTS, ends, listed, prose

from m3po_bench.leaderboard.settings import ONLINE, TEST

SUITE = RESULTS / "quick-all"
ENVS = ("PendulumRandomParams", "PointActuatorFault", "PointFwdBwd")


def _entries(name: str) -> Any:
    table = pd.read_csv(SUITE / name)
    return table[(table["setting"] == ONLINE) & (table["split"] == TEST)]


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def test_the_page_has_the_scores_over_envs() -> None:
    table = _entries("over_envs.csv").set_index("agent")
    assert set(table["n_envs"]) == {3}
    assert table["n_seeds"].between(5, 10).all()
    page = prose(PUBLISHED)
    assert f"which is unfinished, {len(table)} agents have five to ten of its ten seeds" in page
    shown = {
        agent: f"{_short(row['iqm'])} ({_short(row['iqm_low'])} to {_short(row['iqm_high'])})"
        for agent, row in table.iterrows()
    }
    others = table.drop("M3PO").sort_values("iqm", ascending=False)
    assert list(others.index[:4]) == ["GHP-MDP", "ReBAL", "GrBAL", "RL2"]
    assert f"GHP-MDP {shown['GHP-MDP']}, ReBAL {shown['ReBAL']}, GrBAL {shown['GrBAL']}." in page
    assert f"Then RL2 with {shown['RL2']}, which" in page
    own = shown["M3PO"].replace("(", "(95% interval ")
    assert f"an interquartile mean of {own}." in page
    # Where theirs end M3PO's begins.
    assert 0.0 < table.loc["M3PO", "iqm_low"] - others["iqm_high"].max() < 0.01
    three = (_short(table.loc[agent, "iqm"]) for agent in ("MPC", "MBPO", "SAC"))
    assert "have {} and {}, SAC {}.".format(*three) in page


def test_on_single_envs_it_is_as_said() -> None:
    table = _entries("leaderboard.csv").assign(env=lambda t: t["env"].str[5:-3])
    table = table.set_index(["env", "agent"])
    planners = ["GHP-MDP", "ReBAL", "GrBAL"]
    for env in ENVS:
        highest = table.loc[[(env, agent) for agent in planners], "return_high"].max()
        assert table.loc[(env, "M3PO"), "return_low"] < highest  # overlaps
    rl2, m3po = (table.loc[("PointFwdBwd", agent)] for agent in ("RL2", "M3PO"))
    assert max(rl2["return_low"], m3po["return_low"]) < min(rl2["return_high"], m3po["return_high"])
    assert (table.loc[[(env, "RL2") for env in ENVS[:2]], "score_high"] < 0.5).all()
    told, own = (ends(SUITE / "PointFwdBwd-hazard", a) for a in ("SAC-PrevReward", "M3PO"))
    said = "(SAC-PrevReward {:.0f} on `PointFwdBwd`, M3PO {:.0f})"
    assert said.format(*(pd.Series(of).mean() for of in (told, own))) in prose(PUBLISHED)
    for env in ENVS[:2]:
        low, high = table.loc[(env, "SAC-PrevReward"), ["score_low", "score_high"]]
        assert low < 0.0 < high  # nothing that can be told
        for agent in ("MAML", "ProMP"):
            assert table.loc[(env, agent), "score_high"] < 0.0


def test_the_page_has_the_seeds_by_which_nothing_was_chosen() -> None:
    found = {env: ends(SUITE / f"{env}-hazard", "M3PO") for env in ENVS}
    later = [listed(found[env][3:5]) for env in ENVS]
    first = [listed(found[env][:3]) for env in ENVS]
    said = "3 and 4 end at {} (pendulum), {} (reversed thruster) and {} (direction), where the"
    assert said.format(*later) in prose(PUBLISHED)
    assert "first three have {}, {}, and {}.".format(*first) in prose(PUBLISHED)
    assert {env: ends(RESULTS / "quick" / f"{env}-hazard", "M3PO") for env in ENVS} == {
        env: found[env][:3] for env in ENVS
    }
