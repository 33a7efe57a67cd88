"""What the README shows was made by commands, and what it says to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def first_tables(markdown: str) -> dict[str, list[str]]:
    """The first table of each section, by heading."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", markdown, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        table = re.search(r"(^\|.*\n)+", text, re.MULTILINE)
        assert table is not None, heading
        found[heading] = table.group().splitlines()
    return found


def test_the_tables_are_the_published_ones() -> None:
    shown = re.search(r"<!-- quick: begin -->\n(.*)<!-- quick: end -->", README, re.DOTALL)
    assert shown is not None
    published = (ROOT / "results/quick/leaderboard.md").read_text(encoding="utf-8")
    expected = first_tables(published)
    online = {heading: table for heading, table in expected.items() if "online, test" in heading}
    assert len(online) == 4
    assert first_tables(shown.group(1).replace("### ", "## ")) == online


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
