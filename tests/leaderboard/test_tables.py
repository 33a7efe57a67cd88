"""Entries of the leaderboard for people."""

from __future__ import annotations

import pytest

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
