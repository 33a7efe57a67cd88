"""What the README shows was made by commands, and what it says to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from m3po_bench.registry import short_name

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_the_returns_of_every_env_in_quick() -> None:
    table = pd.read_csv(ROOT / "results/quick/leaderboard.csv")
    table = table[(table["setting"] == "online") & (table["split"] == "test")]
    assert len(table) == 6
    for env, agent, mean in zip(table["env"], table["agent"], table["return_mean"], strict=True):
        title = f"### {short_name(env)}, hazard, online, test\n"
        _, found, section = README.partition(title)
        assert found
        assert re.search(rf"\| {agent} .*\| {mean:.1f} ", section.split("###")[0])


def test_it_has_the_scores_of_every_agent_in_quick_all() -> None:
    table = pd.read_csv(ROOT / "results/quick-all/over_envs.csv")
    table = table[(table["setting"] == "online") & (table["split"] == "test")]
    assert len(table) > 10
    _, found, section = README.partition("<!-- quick-all: begin -->")
    assert found
    for agent, iqm in zip(table["agent"], table["iqm"], strict=True):
        assert re.search(rf"\| {agent}( \*)? .*\| {iqm:.2f} ", section)


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert len(links) > 3
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("heading", ["Environments", "Agents", "Any other"])
def test_its_python_runs(heading: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environments, agents, other = blocks[:3]
    code = environments + {"Environments": "", "Agents": agents, "Any other": other}[heading]
    code = code.replace("20_000", "120").replace("progress_bar=True", "")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
