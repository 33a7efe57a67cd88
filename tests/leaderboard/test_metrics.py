"""Hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest

from m3po_bench.leaderboard.metrics import (
    NEVER,
    Recovery,
    adaptation_regret,
    area_under_curve,
    cvar,
    drop_depth,
    median_time,
    recovery,
    restricted_mean,
    savings,
    segments,
    steps_to,
    survival,
)


def test_segments_begin_where_a_task_does() -> None:
    found = segments([1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 1, 2])
    assert [part.tolist() for part in found] == [[1, 2], [3], [4, 5, 6]]


def test_regret_is_measured_at_equal_times() -> None:
    oracle = [0.0, 1.0, 2.0, 2.0]
    assert adaptation_regret([-1.0, 0.0, 2.0], oracle) == pytest.approx(1.0 + 1.0 + 0.0)
    assert adaptation_regret([0.0] * 9, oracle) == pytest.approx(5.0)  # no oracle beyond


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.0] * 8, Recovery(0, True)),
        ([0.0] * 3 + [1.0] * 9, Recovery(2, True)),  # from step 2 on, four of five are good
        ([1.0] * 9 + [0.0] * 9, Recovery(18, False)),  # it does not stay
        ([0.0] * 9, Recovery(9, False)),
        ([1.0] * 4, Recovery(4, False)),  # shorter than a window: nothing can be said
        ([0.0] * 6 + [1.0] * 4, Recovery(6 - 1, True)),
    ],
)
def test_recovery_must_last(rewards: list[float], expected: Recovery) -> None:
    scaled = 10.0 + 5.0 * np.array(rewards)  # random earns 10, the oracle 15
    assert recovery(scaled, 10.0, 15.0) == expected


def test_who_falls_has_not_recovered_whatever_it_earned_before() -> None:
    assert recovery([1.0] * 9, 0.0, 1.0, fell=True) == Recovery(NEVER, False)
    assert adaptation_regret([1.0, 1.0], [1.0, 1.0, 2.0], lost=9) == 2.0
    assert adaptation_regret([1.0, 1.0, 0.0], [1.0, 1.0], lost=1) == 0.0


def test_recovery_needs_a_scale() -> None:
    with pytest.raises(ValueError, match="does not earn more"):
        recovery([1.0] * 9, 2.0, 2.0)


def test_survival_is_kaplan_and_meiers() -> None:
    # At 2 one of four recovers; one leaves unseen at 3; at 5 one of the last two recovers.
    # Segments of 8 and 14 steps: from their last 4 on it takes longer than they have to tell.
    watched = [Recovery(2, True), Recovery(8, False), Recovery(5, True), Recovery(14, False)]
    expected = [1.0, 1.0, 0.75, 0.75, 0.75, 0.375, 0.375]
    assert survival(watched, range(7)).tolist() == pytest.approx(expected)
    assert restricted_mean(watched, 7) == pytest.approx(sum(expected))
    assert median_time(watched, 5) == 5.0
    assert median_time(watched, 4) == np.inf
    assert median_time(watched[:2], 9) == 2.0  # exactly half
    never = [Recovery(9, False)] * 3
    assert survival(never, [0, 10]).tolist() == [1.0, 1.0]
    assert restricted_mean(never, 20) == 20.0
    assert median_time(never, 9) == np.inf


def test_who_recovers_at_once_has_recovered_whenever_the_next_change_comes() -> None:
    """Segments that are too short to tell say nothing."""
    found = [recovery([1.0] * n, 0.0, 1.0) for n in range(1, 20)]
    assert [r.observed for r in found] == [False] * 4 + [True] * 15
    assert survival(found, range(3)).tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(survival(found[:4], range(3))).all()
    assert np.isnan(median_time(found[:4], 9))


def test_the_drop_is_from_before_to_the_worst_window() -> None:
    before, after = [0.0, 0.0, *[4.0] * 5], [*[-1.0] * 5, *[4.0] * 9]
    assert drop_depth(before, after) == pytest.approx(5.0)


def test_savings_compare_equal_lengths() -> None:
    oracle = np.ones(10)
    assert savings([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0], oracle) == pytest.approx(3.0 - 1.0)


def test_cvar_is_the_mean_of_the_worst() -> None:
    assert cvar(range(40)) == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert cvar([5.0, 3.0]) == 3.0


def test_curves() -> None:
    assert area_under_curve([0, 10, 30], [0.0, 2.0, 2.0]) == pytest.approx((10 + 40) / 30)
    line = [np.linspace(0.0, 1.0, n + 1)[1:] for n in (20, 5)]  # the same, seen more or less often
    assert [area_under_curve(x, x) for x in line] == pytest.approx([0.5, 0.5], abs=0.025)
    assert steps_to([10, 20, 30], [0.0, 5.0, 4.0], 4.5) == 20
    assert steps_to([10, 20, 30], [0.0, 5.0, 4.0], 6.0) is None
