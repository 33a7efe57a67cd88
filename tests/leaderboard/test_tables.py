"""Entries of the leaderboard for people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from m3po_bench.leaderboard.pages import UNFINISHED
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.store import SUITE, Store
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.leaderboard.tables import _privileges
from m3po_bench.registry import agent_spec


@pytest.mark.parametrize("agent", ["PEARL", "GrBAL", "GrBAL-EnvReward", "M3PO", "Oracle"])
def test_a_variant_is_told_what_its_agent_is(agent: str) -> None:
    suite = parse_suite(
        {
            "name": "variants", "envs": ["PointFwdBwd"], "schedule": "hazard", "seeds": 1,
            "preset": "tiny", "steps": 100, "checkpoints": 1, "eval_episodes": 1,
            "agents": [agent, "Mine"], "variants": {"Mine": {"agent": agent}},
        }
    )  # fmt: skip
    told = {run.agent: tuple(_privileges(run.config)) for run in suite.runs()}
    assert told == {agent: agent_spec(agent).privileges, "Mine": agent_spec(agent).privileges}


@pytest.mark.parametrize(("seeds", "mark"), [(3, ""), (4, UNFINISHED)])
def test_what_lacks_seeds_is_marked_in_every_table(seeds: int, mark: str, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "results" / "quick", tmp_path / "quick")
    (tmp_path / "quick" / SUITE).write_text(json.dumps({"name": "quick", "seeds": seeds}))
    markdown = write_report(Store(tmp_path / "quick")).markdown
    rows = [line.split("|")[1] for line in markdown.splitlines() if line.startswith("| ")]
    agents = [row.strip() for row in rows if row.strip() != "Agent"]
    assert len(agents) > 20
    assert set(agents) == {f"M3PO{mark}", f"SAC{mark}"}
    for part in ("After a change", "Trials:", "Under a schedule", "Scores of all envs"):
        assert part in markdown
