from __future__ import annotations

import pytest

from m3po_bench.run_command import _cost


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
