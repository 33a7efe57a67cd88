"""What ``results/README.md`` says of HalfCheetahPier comes from the rows beside it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from published import (
    PUBLISHED,
    RESULTS,
    curves,
    diagnosed,
    ends,
    errors_after_a_change,
    listed,
    prose,
)

from m3po_bench.leaderboard.metrics import area_under_curve

PIER = RESULTS / "lite" / "HalfCheetahPier-hazard"


def test_the_page_has_the_models_errors_after_a_change() -> None:
    page = prose(PUBLISHED)
    soon, late = (errors_after_a_change(PIER, "M3PO", age) for age in (0, 25))
    said = f"error is {soon} right after a change or a start, and {late} 25 steps later (M3PO's"
    assert said in page
    soon, late = (errors_after_a_change(PIER, "MBPO", age) for age in (0, 25))
    assert f"MBPO's {soon}, and {late} later, each on the agent's own steps" in page
    for age in (0, 1, 3, 6, 12, 25):
        probes = diagnosed(PIER, "M3PO", f"probe/r2_age{age}")
        assert max(probes) < 0  # as is said


def test_a_history_pays_with_two_seeds_of_three_as_is_said() -> None:
    own, without = (ends(PIER, agent) for agent in ("M3PO", "MBPO"))
    least, *others = sorted(own)
    assert (len(others), len(without)) == (2, 3)
    assert least < min(without)
    assert min(others) > max(without)
    areas, areas_without = (
        [float(area_under_curve(c.index, c)) for c in curves(PIER, agent, first=10)]
        for agent in ("M3PO", "MBPO")
    )
    assert sorted(areas)[1] > max(areas_without) > min(areas)
    said = f"training is {listed(areas)} with history, {listed(areas_without)} without."
    assert said in prose(PUBLISHED)


@pytest.mark.slow
def test_the_page_has_what_a_history_state_tells_of_the_blocks() -> None:
    script = [sys.executable, str(RESULTS / "pier_blocks.py")]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    shown, remembered = (re.findall(r"\d\.\d\d", line) for line in printed.splitlines())
    said = r"an R² of (\.\d\d) and (\.\d\d), .*? reward, with (\.\d\d) and (\.\d\d), "
    found = re.search(said, prose(PUBLISHED))
    assert found is not None
    # The agent does not run alike on every processor.
    assert [float(x) for x in found.groups()] == pytest.approx(
        [float(x) for x in (*remembered, *shown)], abs=0.1
    )


def test_grbal_is_as_said() -> None:
    agents = ("GrBAL", "SAC", "M3PO", "MBPO")
    last = {agent: ends(PIER, agent) for agent in agents}
    said = f"GrBAL ends at {listed(last['GrBAL'])} in all 40 (two seeds), where SAC's three seeds"
    assert f"{said} reach from {min(last['SAC']):.0f} to {max(last['SAC']):.0f}" in prose(PUBLISHED)
    assert max(last["GrBAL"]) < min(last["M3PO"] + last["MBPO"])
    before, after = (
        diagnosed(PIER, "GrBAL", f"model/query_error_{w}") for w in ("before", "after")
    )
    steps = [f"from {b:.3f} to {a:.3f}" for b, a in zip(before, after, strict=True)]
    errors = " and ".join(steps).replace("0.", ".")
    assert f"lowers the error on the query window {errors}." in prose(PUBLISHED)
