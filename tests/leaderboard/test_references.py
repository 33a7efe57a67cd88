"""Published tables have scores; what is said of oracles and of ends is what they earned."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from m3po_bench.leaderboard.aggregate import reference_key
from m3po_bench.leaderboard.references import load_references
from m3po_bench.leaderboard.settings import ONLINE, OOD, TEST
from m3po_bench.leaderboard.store import EVALUATION

RESULTS = Path(__file__).parents[2] / "results"
PAGE = " ".join((RESULTS / "README.md").read_text(encoding="utf-8").split())


def online(suite: str) -> pd.DataFrame:
    """Entries of a published suite in online test episodes."""
    table = pd.read_csv(RESULTS / suite / "leaderboard.csv")
    return table[(table["setting"] == ONLINE) & (table["split"] == TEST)]


@pytest.mark.parametrize(
    "suite",
    ["quick", "quick-all", "point", "cheetah", "cheetah-baselines", "lite", "ablation-short"],
)
def test_every_published_entry_has_a_score(suite: str) -> None:
    entries, references = online(suite), load_references()
    entries = entries[entries["env"] != "M3PO/HumanoidDirection-v0"]  # its oracle does not walk
    assert len(entries)
    assert entries["score"].notna().all()
    for env, schedule in set(zip(entries["env"], entries["schedule"], strict=True)):
        known = references[reference_key(env, schedule, ONLINE, TEST)]
        assert known["random"].mean < known["oracle"].mean


def test_references_in_each_episode_have_their_mean() -> None:
    known = [ref for roles in load_references().values() for ref in roles.values() if ref.returns]
    assert len(known) > 20
    for reference in known:
        assert len(reference.returns) == 40
        assert sum(reference.returns) / 40 == pytest.approx(reference.mean, abs=1e-3)
    oracle = load_references()["M3PO/HalfCheetahFwdBwd-v0", "hazard"]["oracle"]
    assert oracle.in_first(10) < 0.9 * oracle.mean  # these ten are harder than most


def test_references_in_each_episode_are_those_of_the_published_rows() -> None:
    agents, found = {"random": "Random", "oracle": "Oracle", "robust": "SAC"}, 0
    for (env, schedule), roles in load_references().items():
        for role, reference in roles.items():
            if schedule != "hazard" or reference.steps == 0:  # one is known in closed form
                continue
            suite = reference.command.split()[-1]
            place = f"{suite}/{env[5:-3]}-{schedule}/{agents[role]}/seed*/{EVALUATION}"
            rows = pd.concat([pd.read_csv(path) for path in RESULTS.glob(place)])
            rows = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST)]
            last = rows[rows["step"] == rows["step"].max()]
            by_episode = last.groupby("episode")["return"].mean()
            assert by_episode.to_list() == pytest.approx(list(reference.returns), abs=1e-3)
            found += 1
    assert found > 10


def test_the_humanoids_oracle_does_not_walk_as_is_said() -> None:
    folder = RESULTS / "references-mujoco" / "HumanoidDirection-hazard" / "Oracle" / "seed0"
    rows = pd.read_csv(folder / EVALUATION)
    rows = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST) & (rows["step"] == 100_000)]
    speed, length, earned = rows[["directional_velocity", "length", "return"]].mean()
    said = f"({speed:.2f} m/s, falls after {length:.0f} steps on average, earns {earned:.0f}; one"
    assert said in PAGE
    assert "oracle" not in load_references()["M3PO/HumanoidDirection-v0", "hazard"]


def test_the_page_has_what_the_oracles_earn() -> None:
    references = load_references()
    m3po = online("lite").query("agent == 'M3PO'").set_index("env")["return_mean"]
    told, earned = [], []
    for env in ("HalfCheetahFwdBwd", "HalfCheetahDisabledJoint", "HalfCheetahPier"):
        oracle = references[f"M3PO/{env}-v0", "hazard"]["oracle"]
        assert oracle.steps == 100_000
        seeds = "mean of 2 seeds" if oracle.n_seeds == 2 else f"{oracle.n_seeds} seed"
        told.append(f"{oracle.mean:.0f} on {env} ({seeds})")
        earned.append(f"{m3po[f'M3PO/{env}-v0']:.0f}")
    first, second, third = told
    said = f"the task earns {first}, {second} and {third} after 100,000 steps; M3PO earns "
    said += f"{earned[0]}, {earned[1]} and {earned[2]} after 20,000."
    assert said in PAGE


def test_the_page_has_how_m3po_and_mbpo_end_on_the_disabled_joint() -> None:
    folder, ends = RESULTS / "lite" / "HalfCheetahDisabledJoint-hazard", {}
    for agent in ("M3PO", "MBPO"):
        runs = [pd.read_csv(folder / agent / f"seed{seed}" / EVALUATION) for seed in range(3)]
        last = [rows[(rows["setting"] == ONLINE) & (rows["step"] == 20_000)] for rows in runs]
        ends[agent] = [rows.groupby("split")["return"].mean() for rows in last]
    with_history, without = (
        "{:.0f}, {:.0f} and {:.0f}".format(*(seed[OOD] for seed in ends[agent]))
        for agent in ("M3PO", "MBPO")
    )
    assert f"({with_history} with history, {without} without)" in PAGE
    ours, theirs = ([seed[TEST] for seed in ends[agent]] for agent in ("M3PO", "MBPO"))
    assert [a > b for a, b in zip(ours, theirs, strict=True)] == [True, False, True]
    assert sum(theirs[1] > own for own in ours) == 2
