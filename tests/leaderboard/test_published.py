"""Tables that are committed under ``results/`` come from the rows beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.store import Store

RESULTS = Path(__file__).parents[2] / "results"
SUITES = sorted(path.parent.name for path in RESULTS.glob("*/suite.json"))


@pytest.mark.parametrize("suite", SUITES)
def test_a_published_table_is_made_again_byte_for_byte(suite: str, tmp_path: Path) -> None:
    copy = tmp_path / suite
    shutil.copytree(RESULTS / suite, copy)
    write_report(Store(copy))
    for name in ("leaderboard.md", "leaderboard.csv"):
        assert (copy / name).read_bytes() == (RESULTS / suite / name).read_bytes(), name


def test_there_are_published_results() -> None:
    assert {"quick", "cheetah"} <= set(SUITES)
