"""Tables that are committed under ``results/`` come from the rows beside them."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from published import (
    FINDINGS,
    PUBLISHED,
    RESULTS,
    curves,
    diagnosed,
    errors_after_a_change,
    listed,
    prose,
)

from m3po_bench.leaderboard.entry_metrics import RECOVERY_HORIZON
from m3po_bench.leaderboard.metrics import area_under_curve, median_time, recovery_times
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.settings import ONLINE, TEST
from m3po_bench.leaderboard.store import CHANGES, EVALUATION, Store
from m3po_envs import ENTRY_POINTS
from m3po_envs.splits import load_episodes

SUITES = sorted(path.parent.name for path in RESULTS.glob("*/suite.json"))


@pytest.mark.parametrize("suite", SUITES)
def test_a_published_table_is_made_again_byte_for_byte(suite: str, tmp_path: Path) -> None:
    copy = tmp_path / suite
    shutil.copytree(RESULTS / suite, copy)
    write_report(Store(copy))
    for name in ("leaderboard.md", "leaderboard.csv", "pairs.csv", "runs.csv"):
        assert (copy / name).read_bytes() == (RESULTS / suite / name).read_bytes(), name


def test_there_are_published_results() -> None:
    assert {"quick", "cheetah"} <= set(SUITES)


def _measured(env_id: str) -> dict[tuple[str, str], str]:
    """Cells of a card's table by env steps and column: every seed's return, rounded.

    Of suites that made the same, the first counts.
    """
    found: dict[tuple[str, str], dict[int, str]] = {}
    columns = {"Oracle": "told", "SAC": "memoryless"}
    for suite in ("adaptation", "adaptation-long", "references", "references-mujoco"):
        for folder, record in Store(RESULTS / suite).finished():
            if record["env"] != env_id or record["agent"] not in columns:
                continue
            rows = pd.read_csv(folder / EVALUATION)
            played = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST)]
            value = played[played["step"] == played["step"].max()]["return"].mean()
            cell = f"{record['config']['steps']:,}", columns[record["agent"]]
            shown = f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"
            found.setdefault(cell, {}).setdefault(record["seed"], shown)
    return {cell: ", ".join(by_seed[s] for s in sorted(by_seed)) for cell, by_seed in found.items()}


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_a_card_says_what_was_measured_and_nothing_else(env_id: str) -> None:
    module, _, name = ENTRY_POINTS[env_id].partition(":")
    card = getattr(importlib.import_module(module), name).__doc__
    section = card.partition("## Does it reward adaptation?")[2].partition("## Arguments")[0]
    rows = re.findall(r"^ *\| ([\d,]+) +\| (.*?) *\| (.*?) *\|$", section, re.MULTILINE)
    shown = {
        (steps, column): cell
        for steps, *cells in rows
        for column, cell in zip(("told", "memoryless"), cells, strict=True)
        if cell
    }
    assert shown == _measured(env_id)
    assert shown


def test_the_returns_by_direction_are_those_of_the_rows() -> None:
    ways = {-1.0: "backwards", 1.0: "forwards"}
    episodes = load_episodes("M3PO/HalfCheetahFwdBwd-v0", TEST)
    way = pd.Series([ways[float(episode.task[0])] for episode in episodes])
    expected = set()
    for folder, record in Store(RESULTS / "cheetah").finished():
        if record["agent"] != "M3PO":
            continue
        rows = pd.read_csv(folder / EVALUATION)
        rows = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST)]
        last = rows["step"].max()
        for name in ways.values():
            of = rows[(rows["episode"].map(way) == name)]
            of = of[(of["episode"] < 10) | (of["step"] == last)]
            cells = of.groupby("step")["return"].mean()[[2000, 4000, 6000, 10_000, last]]
            returns = " | ".join(f"{value:.0f}" for value in cells)
            expected.add(f"| seed {record['seed']}, {name} | {returns} |")
    page = FINDINGS.read_text(encoding="utf-8")
    assert expected == set(re.findall(r"^\| seed .*wards \|.*\|$", page, re.MULTILINE))
    assert expected


def test_on_the_point_memory_is_worth_what_is_said_of_it() -> None:
    """No interval of an agent with a memory reaches those of the two without."""
    table = pd.read_csv(RESULTS / "point" / "leaderboard.csv")
    assert set(table["schedule"]) == {"episodic", "hazard"}
    shown = table[(table["setting"] == ONLINE) & (table["split"] == TEST)]
    for _, rows in shown.groupby("schedule"):
        without = rows["agent"].isin(["SAC", "MBPO"])
        assert (without.sum(), (~without).sum()) == (2, 9)
        assert rows[~without]["return_low"].min() > rows[without]["return_high"].max()
    point = RESULTS / "point"
    stays, changes = (
        [seed[3000] for seed in curves(point / f"PointFwdBwd-{schedule}", "M3PO")]
        for schedule in ("episodic", "hazard")
    )
    assert f"end at {listed(stays[3:])} where the task stays for the episode" in prose(PUBLISHED)
    said = f"at {listed(changes[3:])} where it changes within (seeds 0 to 2: {listed(stays[:3])}, "
    assert said + f"{listed(changes[:3])})." in prose(PUBLISHED)
    spent = 60 * pd.read_csv(point / "runs.csv")["training_core_minutes"]
    assert f"{spent.min():.0f} to {spent.max():.0f} core-seconds of training" in prose(PUBLISHED)


@pytest.mark.parametrize(
    "place",
    [
        "cheetah/HalfCheetahFwdBwd-episodic",
        "lite/HalfCheetahFwdBwd-hazard",
        "lite/HalfCheetahDisabledJoint-hazard",
        "lite/HalfCheetahPier-hazard",
    ],
)
def test_every_seed_of_m3po_is_above_every_one_of_sac(place: str) -> None:
    returns = {a: curves(RESULTS / place, a) for a in ("M3PO", "SAC", "SAC-PrevReward")}
    found = {agent: len(seeds) for agent, seeds in returns.items()}
    assert found == {"M3PO": 3, "SAC": 3, "SAC-PrevReward": 3}
    for step in (10_000, 20_000):
        at = {agent: [seed[step] for seed in seeds] for agent, seeds in returns.items()}
        assert min(at["M3PO"]) > max(at["SAC"] + at["SAC-PrevReward"])


def test_in_quick_every_seed_of_m3po_is_above_every_one_of_sac() -> None:
    cells = []
    for env in ("PointFwdBwd", "PointActuatorFault", "PendulumRandomParams"):
        folder = RESULTS / "quick" / f"{env}-hazard"
        ends, others = ([seed[3000] for seed in curves(folder, a)] for a in ("M3PO", "SAC"))
        assert min(ends) > max(others)
        cells.append(", ".join(f"{end:.0f}" for end in ends))
    said = "| and the dropouts of the class (`quick` today) | {} | {} | {} |".format(*cells)
    assert said in FINDINGS.read_text(encoding="utf-8")
    first = listed(seed[3000] for seed in curves(RESULTS / "quick" / "PointFwdBwd-hazard", "M3PO"))
    assert f"mean returns of {first} (`results/quick`)" in prose(RESULTS.parent / "docs/index.md")
    readme = prose(RESULTS.parent / "README.md")
    assert "On each of the three envs each seed of M3PO earns more" in readme
    table = pd.read_csv(RESULTS / "quick" / "leaderboard.csv")
    table = table[(table["setting"] == ONLINE) & (table["split"] == TEST)]
    lasting = table.pivot_table(index="env", columns="agent", values="never_recovered") * 100
    never = (f"{value:.0f}" for agent in ("M3PO", "SAC") for value in lasting[agent])
    said = (
        "not recovered from {}% (pendulum), {}% (reversed thruster) and {}% (direction) "
        "within 60 steps, SAC from {}, {} and {}%."
    )
    assert said.format(*never) in prose(PUBLISHED)


def test_the_findings_have_what_is_published_of_members_with_a_bootstrap() -> None:
    folder = RESULTS / "ablation-short" / "HalfCheetahFwdBwd-hazard"
    early, ends = (curves(folder, "M3PO", first=n)[:2] for n in (10, 40))
    cells = [", ".join(f"{seed[step]:.0f}" for seed in early) for step in range(2000, 10_001, 2000)]
    cells.append(", ".join(f"{seed[10_000]:.0f}" for seed in ends))
    assert f"| bootstrap | {' | '.join(cells)} |" in FINDINGS.read_text(encoding="utf-8")
    longer = RESULTS / "lite" / "HalfCheetahFwdBwd-hazard"
    early, ends = (curves(longer, "M3PO", first=n) for n in (10, 40))
    said = (
        f"three seeds have {listed(seed[20_000] for seed in ends)} (`results/lite`; "
        f"{listed(seed[5000] for seed in early)} in the first ten after 5,000 steps)"
    )
    assert said in prose(FINDINGS)
    pier = curves(RESULTS / "lite" / "HalfCheetahPier-hazard", "M3PO")
    assert f"M3PO's seeds end at {listed(seed[20_000] for seed in pier)}, with" in prose(FINDINGS)
    told = curves(RESULTS / "references" / "PointActuatorFault-hazard", "Oracle", first=10)
    said = f"SAC that is told it {listed(seed[3000] for seed in told)} (`results/references`, after"
    assert said in prose(FINDINGS)


def test_the_page_has_the_curves_of_rollouts_that_end_by_trust() -> None:
    page = (RESULTS.parent / "docs" / "m3po.md").read_text(encoding="utf-8")
    folder = RESULTS / "ablation-short" / "HalfCheetahFwdBwd-hazard"
    fixed, by_trust = (curves(folder, agent) for agent in ("M3PO-k5", "M3PO"))
    kept = (3000, 5000, 7000, 9000)
    cells = [", ".join(f"{seed[step]:.0f}" for seed in by_trust) for step in kept]
    assert f"| up to 25 steps, by trust | {' | '.join(cells)} |" in page
    said = (
        listed(seed[step] for seed in of) for of in (fixed, by_trust) for step in (9000, 10_000)
    )
    text = (
        "have {} after 9,000 steps and {} in 40 test episodes after 10,000; by trust they have {}, "
    )
    assert (text + "and {}.").format(*said) in " ".join(page.split())


def test_the_theory_page_has_the_gaps_of_imagined_returns() -> None:
    def measured(env: str, name: str, form: str) -> str:
        found = diagnosed(RESULTS / "quick" / f"{env}-hazard", "M3PO", f"gap/{name}")
        return listed(found, form).replace("-", "\N{MINUS SIGN}")

    page = prose(RESULTS.parent / "docs" / "theory.md")
    env = "PointFwdBwd"
    real, k1, k5, full = (measured(env, name, ".1f") for name in ("return", "k1", "k5", "full"))
    said = f"return was {real} on `{env}`; imagined returns were off by {k1} at k = 1, by {k5} at"
    assert f"{said} k = 5, and by {full} in full rollouts." in page
    env, k1 = "PendulumRandomParams", measured("PendulumRandomParams", "k1", ".1f")
    real, full = (measured(env, name, ".0f") for name in ("return", "full"))
    assert f"On `{env}`: {real}, off by {k1} at k = 1, and by {full} in full rollouts." in page


def test_published_savings_are_of_tasks_that_a_change_had_brought() -> None:
    """So of no episode's first or second change, which no task can come back with."""
    found = 0
    for path in RESULTS.glob(f"*/*/*/seed*/{CHANGES}"):
        table = pd.read_csv(path)
        rank = table.groupby("episode").cumcount()
        assert table[rank < 2]["savings"].isna().all(), path
        found += table["savings"].notna().sum()
    assert found > 500


def test_the_pages_have_the_median_recoveries() -> None:
    def median(folder: Path) -> int:
        changes = pd.read_csv(folder / CHANGES)
        times = recovery_times(changes["recovery"], changes["recovered"])
        return int(median_time(times, RECOVERY_HORIZON))

    agents = RESULTS / "lite" / "HalfCheetahFwdBwd-hazard"
    medians = [median(agents / "M3PO" / f"seed{seed}") for seed in range(3)]
    told = median(agents / "M3PO-Oracle" / "seed0")
    assert max(medians) <= 1.5 * told
    assert f"after {listed(medians)} steps, where it is told after {told}," in prose(PUBLISHED)

    def late(agent: str, seed: int) -> float:
        by_age = pd.read_csv(agents / agent / f"seed{seed}" / "by_age.csv.gz")
        return float(by_age[by_age["age"].between(55, 60)]["reward"].mean())

    gaits = listed((late("M3PO", seed) for seed in range(3)), ".1f")
    said = f"({late('M3PO-Oracle', 0):.1f} a step from the 55th to the 60th step after a change; "
    assert f"{said}M3PO {gaits})." in prose(PUBLISHED)


def test_the_readme_has_what_a_run_of_m3po_takes() -> None:
    spent = pd.read_csv(RESULTS / "lite" / "runs.csv").query("agent == 'M3PO'")
    minutes = spent["training_core_minutes"]
    said = f"and takes {minutes.min():.0f} to {minutes.max():.0f} core-minutes of training"
    assert said in prose(RESULTS.parent / "README.md")


def test_the_page_has_the_mean_returns_beside_the_oracles() -> None:
    means = (
        pd.Series([seed[20_000] for seed in curves(RESULTS / "lite" / f"{env}-hazard", "M3PO")])
        for env in ("HalfCheetahFwdBwd", "HalfCheetahDisabledJoint", "HalfCheetahPier")
    )
    said = listed(seeds.mean() for seeds in means)
    assert f"M3PO earns {said} after 20,000." in prose(PUBLISHED)


_TO_20K = (5000, 10_000, 20_000)
ABLATED = ["M3PO", "M3PO-k20", "M3PO-k5", "M3PO-k1", "M3PO-full", "M3PO-no-history"]
HUMANOIDS = ["M3PO", "SAC-PrevReward", "SAC"]


def _check_table(
    place: str,
    agents: Sequence[str],
    steps: Sequence[int],
    column: str = "return",
    form: str = ".0f",
    schedule: str = "hazard",
) -> None:
    """The page has a table of every seed's curve, an agent a row, and in all episodes at last."""
    rows = []
    for agent in agents:
        folder = RESULTS / f"{place}-{schedule}"
        early = curves(folder, agent, column, first=10)
        means = [[seed[step] for seed in early] for step in steps]
        means.append([seed[steps[-1]] for seed in curves(folder, agent, column)])
        cells = (", ".join(format(value, form) for value in seeds) for seeds in means)
        rows.append(f"| {agent} | {' | '.join(cells)} |")
    shown = (*(f"{step:,}" for step in steps), f"{steps[-1]:,}, all 40")
    head = [f"| env steps | {' | '.join(shown)} |", "|---" * (1 + len(shown)) + "|"]
    assert "\n".join([*head, *rows, ""]) in PUBLISHED.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "agents", "steps"),
    [
        ("lite/HalfCheetahFwdBwd", ["M3PO", "SAC-PrevReward", "SAC", "M3PO-Oracle"], _TO_20K),
        ("lite/HalfCheetahDisabledJoint", ["M3PO", "MBPO", "SAC-PrevReward", "SAC"], _TO_20K),
        ("lite/HalfCheetahPier", ["M3PO", "MBPO", "SAC-PrevReward", "SAC"], _TO_20K),
        ("lite/HumanoidDirection", HUMANOIDS, _TO_20K),
        ("ablation-short/HalfCheetahFwdBwd", [*ABLATED, "M3PO-bfloat16"], (2000, 5000, 10_000)),
    ],
)
def test_the_page_has_the_curves(place: str, agents: list[str], steps: Sequence[int]) -> None:
    _check_table(place, agents, steps)


def test_the_page_has_the_curves_where_the_task_stays() -> None:
    agents = ["M3PO", "SAC-PrevReward", "SAC"]
    steps = (5000, 10_000, 15_000, 20_000)
    _check_table("cheetah/HalfCheetahFwdBwd", agents, steps, schedule="episodic")
    folder = RESULTS / "cheetah" / "HalfCheetahFwdBwd-episodic"
    above, *others = (curves(folder, agent, first=10) for agent in agents)
    highest = pd.concat([seed for seeds in others for seed in seeds], axis=1).max(axis=1)
    lowest = pd.concat(above, axis=1).min(axis=1)
    assert (lowest > highest)[lowest.index >= 3000].all()
    runs = pd.read_csv(RESULTS / "cheetah" / "runs.csv").query("agent == 'M3PO'")
    spent = listed(runs["training_core_minutes"])
    assert f"at {spent} core-minutes of training a run" in prose(PUBLISHED)
    ends = listed((seed[20_000] for seed in curves(folder, "M3PO")), ",.0f")
    algorithm = prose(RESULTS.parent / "docs" / "m3po.md")
    assert f"(trained so, {ends}: `results/cheetah`)" in algorithm


def test_the_page_has_the_humanoids_velocities() -> None:
    place, column = "lite/HumanoidDirection", "directional_velocity"
    for agent in HUMANOIDS:
        seeds = curves(RESULTS / f"{place}-hazard", agent, column)
        assert len(seeds) == 3
        assert all((seed.abs() < 0.305).all() for seed in seeds)  # nobody walks, as is said
    _check_table(place, HUMANOIDS, _TO_20K, column, ".2f")


def test_the_page_has_the_models_errors_after_a_change() -> None:
    page = prose(PUBLISHED)
    joint = RESULTS / "lite" / "HalfCheetahDisabledJoint-hazard"
    right_away, six_steps = (errors_after_a_change(joint, "M3PO", age) for age in (0, 6))
    assert f"error, {right_away} right at a change or a start, is {six_steps} by then" in page
    right_away, six_steps = (errors_after_a_change(joint, "MBPO", age) for age in (0, 6))
    assert f"falls from {right_away} to {six_steps} as well" in page
    told = diagnosed(joint, "M3PO", "probe/accuracy_age6")
    assert f"has it right in {listed(100 * x for x in told)}% of test steps" in page


def test_rollouts_of_all_lengths_compare_as_is_said() -> None:
    folder = RESULTS / "ablation-short" / "HalfCheetahFwdBwd-hazard"
    ends = {agent: [seed[10_000] for seed in curves(folder, agent)] for agent in ABLATED}
    longer = [ends[agent] for agent in ("M3PO", "M3PO-k20", "M3PO-k5")]
    full, single = ends["M3PO-full"], ends["M3PO-k1"]
    worst = [min(seed) for seed in zip(*longer, strict=True)]
    behind = [round(other - own) for own, other in zip(full, worst, strict=True)]
    assert f"no more than {behind[1]} and {behind[2]} at the end" in prose(PUBLISHED)
    assert min(behind) > 0
    assert min(ends["M3PO-k5"]) > max(full)
    assert all(own < other for own, other in zip(single, worst, strict=True))
    assert min(full) < min(single) < max(full)
    with_history = [agent for agent in ABLATED if agent != "M3PO-no-history"]
    assert max(ends["M3PO-no-history"]) < min(min(ends[agent]) for agent in with_history)
    areas = (
        listed(area_under_curve(c.index, c) for c in curves(folder, agent, first=10))
        for agent in ("M3PO-full", "M3PO")
    )
    assert "over training is {} with them, {} by trust".format(*areas) in prose(PUBLISHED)
    rounded = [seed[10_000] for seed in curves(folder, "M3PO-bfloat16")]
    said = f"would show: {listed(rounded)} against {listed(ends['M3PO'])}"
    assert said in prose(PUBLISHED)
    runs = pd.read_csv(RESULTS / "ablation-short" / "runs.csv")
    spent = runs.pivot_table(index="seed", columns="agent", values="training_core_minutes")
    usual, saved = spent["M3PO"], spent["M3PO"] - spent["M3PO-bfloat16"]
    said = "saved {:.0f} to {:.0f} of {:.0f} to {:.0f} core-minutes"
    assert said.format(saved.min(), saved.max(), usual.min(), usual.max()) in prose(PUBLISHED)


def test_a_slow_run_tells_the_task_badly_as_is_said() -> None:
    folder = RESULTS / "ablation-short" / "HalfCheetahFwdBwd-hazard"
    agents = [agent for agent in [*ABLATED, "M3PO-bfloat16"] if agent != "M3PO-no-history"]
    right = {agent: diagnosed(folder, agent, "probe/right_within_3") for agent in agents}
    slow = right["M3PO-full"].pop(0)
    least = min(share for seeds in right.values() for share in seeds)
    said = (
        f"within 3 steps after {slow:.0%} of the changes (`probe/right_within_3`), all other runs"
    )
    assert f"{said} with a history after {least:.0%} or more" in prose(PUBLISHED)
