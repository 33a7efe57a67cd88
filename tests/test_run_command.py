from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.checksums import resealed
from m3po_bench.leaderboard.store import RUN
from m3po_bench.run_command import _cost

PUBLISHED = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize(
    ("core_seconds", "said"),
    [
        ([], "0 to make"),
        ([None, None], "2 to make, of unknown cost"),
        ([3600.0, 7200.0], "2 to make in about 3.0 core-hours"),
        ([3600.0, None, None], "3 to make: 1 in about 1.0 core-hours, 2 of unknown cost"),
    ],
)
def test_costs_are_summed_as_far_as_they_are_known(
    core_seconds: list[float | None], said: str
) -> None:
    assert _cost(core_seconds) == said


def test_a_list_without_names_is_refused(call: Callable[..., tuple[Any, str, str]]) -> None:
    code, _, err = call("run", "quick", "--agents", ",", "--dry-run")
    assert code != 0
    assert "',': expected names, separated by commas" in err


def test_published_runs_of_another_configuration_are_named(
    call: Callable[..., tuple[Any, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "results/smoke/PointFwdBwd-hazard/SAC/seed0/run.json"
    run.parent.mkdir(parents=True)
    run.write_text('{"config_hash": "of-another-day"}')
    code, out, err = call("run", "smoke", "--continue-published", "--dry-run")
    assert code == 0
    assert "1 published runs were made with another configuration" in err
    assert err.rstrip().endswith("PointFwdBwd-hazard/SAC")
    assert "0 finished" in out


def test_a_run_that_was_measured_against_other_references_is_named(
    call: Callable[..., tuple[Any, str, str]], tmp_path: Path
) -> None:
    place = "PointFwdBwd-hazard/SAC/seed0"
    shutil.copytree(PUBLISHED / "quick" / place, tmp_path / place)
    record = json.loads((tmp_path / place / RUN).read_text())
    noted = resealed({**record, "measured_against": "others"}, RUN, {})
    (tmp_path / place / RUN).write_text(json.dumps(noted))
    code, out, err = call("report", str(tmp_path))
    assert code == 0
    assert f"{place}: its regret, recovery and savings were measured against other" in err
    assert "| SAC" in out
