"""What is published under ``results/``, as tests of the pages read it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from m3po_bench.leaderboard.settings import ONLINE, TEST
from m3po_bench.leaderboard.store import EVALUATION, RUN

RESULTS = Path(__file__).parents[2] / "results"
PUBLISHED = RESULTS / "README.md"
FINDINGS = RESULTS.parent / "docs" / "m3po_findings.md"


def prose(page: Path) -> str:
    """A page on one line, wherever its lines are broken."""
    return " ".join(page.read_text(encoding="utf-8").split())


def listed(values: Iterable[float], form: str = ".0f") -> str:
    """Numbers of several seeds, as pages list them."""
    *others, last = (format(value, form) for value in values)
    return f"{', '.join(others)} and {last}"


def curves(
    folder: Path, agent: str, column: str = "return", first: int = 40, setting: str = ONLINE
) -> list[Any]:
    """Mean test return by env step, or another column's mean, of each seed.

    Over the ``first`` episodes, of those that were played: ten until the last checkpoint.
    """
    runs = [pd.read_csv(path) for path in sorted(folder.glob(f"{agent}/seed*/{EVALUATION}"))]
    played = [rows[(rows["setting"] == setting) & (rows["split"] == TEST)] for rows in runs]
    return [rows[rows["episode"] < first].groupby("step")[column].mean() for rows in played]


def ends(folder: Path, agent: str, column: str = "return", setting: str = ONLINE) -> list[float]:
    """Each seed's mean over all test episodes of the last checkpoint."""
    return [float(seed.iloc[-1]) for seed in curves(folder, agent, column, setting=setting)]


def diagnosed(folder: Path, agent: str, name: str) -> list[float]:
    """What every seed's agent has measured about itself."""
    runs = sorted((folder / agent).glob("seed*"))
    records = [json.loads((run / RUN).read_text(encoding="utf-8")) for run in runs]
    return [record["diagnostics"][name] for record in records]


def errors_after_a_change(folder: Path, agent: str, age: int) -> str:
    """One-step errors of the seeds' models so long after a change, as pages say them."""
    found = diagnosed(folder, agent, f"model/obs_error_age{age}")
    return listed(found, ".2f").replace("0.", ".")
