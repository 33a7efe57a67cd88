"""What pages say of test episodes in which the task changes every 50 steps comes from rows."""

from __future__ import annotations

import pandas as pd
from published import PUBLISHED, RESULTS, ends, listed, prose

from m3po_bench.leaderboard.settings import ONLINE, TEST, UNSEEN

CHEETAH = "HalfCheetahFwdBwd"


def test_little_is_left_of_fast_gaits() -> None:
    under_hazard = RESULTS / "lite" / f"{CHEETAH}-hazard"
    m3po, grbal, (told,) = (
        ends(under_hazard, agent, setting=UNSEEN) for agent in ("M3PO", "GrBAL", "M3PO-Oracle")
    )
    page = prose(PUBLISHED)
    assert f"leave little of this: M3PO earns {listed(m3po)} then, not all" in page
    assert f"more than GrBAL's {listed(grbal)}." in page
    assert min(m3po) < max(grbal)
    stayed = ends(RESULTS / "cheetah" / f"{CHEETAH}-episodic", "M3PO", setting=UNSEEN)
    assert f"M3PO earns {listed(stayed)} there." in page
    assert f"under changes every 50 steps it earns {told:.0f}." in page
    changes = (ends(under_hazard, "M3PO", "n_changes", s)[0] for s in (UNSEEN, ONLINE))
    assert "(`unseen`; {:.0f} an episode, where `hazard` has {:.1f}) leave".format(*changes) in page
    means = [pd.Series(of).mean() for of in (ends(under_hazard, "M3PO"), m3po)]
    said = "of the {:.0f} that M3PO earns under `hazard` {:.0f} are left (means of three seeds"
    assert said.format(*means) in prose(RESULTS.parent / "docs" / "m3po.md")


def test_the_page_has_the_regret_of_being_told() -> None:
    folder = RESULTS / "lite" / f"{CHEETAH}-hazard"
    regrets = {
        agent: [
            pd.read_csv(path)["regret"].mean()
            for path in sorted(folder.glob(f"{agent}/seed*/changes.csv.gz"))
        ]
        for agent in ("M3PO", "M3PO-Oracle")
    }
    (told,) = regrets["M3PO-Oracle"]
    said = f"its regret is {told:.0f} where M3PO's is {listed(regrets['M3PO'])},"
    assert said in prose(PUBLISHED)


def test_shorter_rollouts_are_ahead_there() -> None:
    folder = RESULTS / "ablation-short" / f"{CHEETAH}-hazard"
    one, five, twenty, trust = (
        ends(folder, agent, setting=UNSEEN) for agent in ("M3PO-k1", "M3PO-k5", "M3PO-k20", "M3PO")
    )
    said = "it is the other way round: {} with one step, {} with five, {} with twenty, {} by trust."
    assert said.format(*map(listed, (one, five, twenty, trust))) in prose(PUBLISHED)
    assert min(one) > max(twenty + trust)
    single, rounded = (ends(folder, agent)[0] for agent in ("M3PO-k1", "M3PO-bfloat16"))
    assert f"above `M3PO-bfloat16`, {single:.0f} and {rounded:.0f})" in prose(PUBLISHED)


def test_on_the_point_two_agents_with_a_memory_are_below_those_without() -> None:
    table = pd.read_csv(RESULTS / "point" / "leaderboard.csv")
    table = table[(table["setting"] == UNSEEN) & (table["split"] == TEST)]
    for _, rows in table.groupby("schedule"):
        mean = rows.set_index("agent")["return_mean"]
        below = f"{mean['MAML']:.0f} and {mean['ProMP']:.0f}"
        assert f"below them ({below}, SAC and MBPO -1)" in prose(PUBLISHED)
        # -0.4 is the smaller one of SAC's.
        assert mean[["SAC", "MBPO"]].between(-1.5, 0.0).all()
        assert set(mean[mean < -1.5].index) == {"MAML", "ProMP"}
