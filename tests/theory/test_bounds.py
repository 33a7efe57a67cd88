"""The bounds as functions: values, order, limits, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3po_bench.theory import (
    best_rollout_length,
    branched_bound,
    branched_bound_current_policy,
    conjectured_branched_bound,
    full_rollout_bound,
    mbpo_4_2,
    mbpo_4_3,
    shifted_model_error,
)

# Products of numbers next to nothing are rounded to nothing, and comparisons with them.
shares = st.just(0.0) | st.floats(1e-12, 1.0)
discounts = st.floats(0.0, 0.999)
lengths = st.integers(1, 300)
lengths_or_full = lengths | st.just(math.inf)
OURS = (branched_bound, branched_bound_current_policy)
OF_LENGTH: tuple[Callable[..., Any], ...] = (
    *OURS, mbpo_4_2, mbpo_4_3, conjectured_branched_bound
)  # fmt: skip
KS = [1, 2, 5, 10, 100]


def at_most(low: Any, high: Any) -> bool:
    return bool(np.all(low <= high * (1 + 1e-9) + 1e-12))


def test_coefficients_of_the_model_error() -> None:
    one = (1.0, 0.0, 0.99, 1.0)
    assert full_rollout_bound(*one) == pytest.approx(19800)
    ours = [198, 394.02, 970.397012, 1893.234915, 12552.559643]
    assert branched_bound(*one, KS) == pytest.approx(ours)
    assert branched_bound_current_policy(*one, KS) == pytest.approx(ours)
    assert mbpo_4_2(*one, KS) == pytest.approx([200, 400, 1000, 2000, 20000])
    assert mbpo_4_3(*one, KS) == pytest.approx([200, 400, 1000, 2000, 20000])
    recollected = conjectured_branched_bound(*one, KS)
    assert recollected == pytest.approx([198, 296.01, 584.198506, 1045.617457, 6375.3], rel=1e-4)


@given(discounts, lengths, st.integers(1, 60), st.booleans())
def test_closed_forms_are_the_sums(gamma: float, k: int, horizon: int, predicted: bool) -> None:
    t = np.arange(horizon) + predicted
    in_model, weights = np.minimum(t, k), gamma ** np.arange(horizon)
    finite: dict[str, Any] = {"model_rewards": predicted, "horizon": horizon}
    model, shift = 2 * (weights @ in_model), 2 * (weights @ t)
    # The closed forms subtract nearly equal numbers where gamma is near 1.
    near = partial(pytest.approx, rel=1e-6, abs=1e-6)
    assert branched_bound(1, 0, gamma, 1, k, **finite) == near(model)
    assert branched_bound(0, 1, gamma, 1, k, **finite) == near(shift)
    current = branched_bound_current_policy
    assert current(1, 0, gamma, 1, k, **finite) == near(model)
    assert current(0, 1, gamma, 1, k, **finite) == near(shift - model)


@pytest.mark.parametrize("left", [1e-6, 1e-8, 1e-10, 1e-14])
@pytest.mark.parametrize("predicted", [False, True])
def test_where_hardly_anything_is_discounted_bounds_do_not_cancel(
    left: float, predicted: bool
) -> None:
    t = np.arange(200) + predicted
    weights = (1.0 - left) ** np.arange(200)
    of: dict[str, Any] = {"model_rewards": predicted, "horizon": 200}
    found = branched_bound_current_policy(0, 1, 1.0 - left, 1, 5, **of)
    assert found == pytest.approx(2 * (weights @ (t - np.minimum(t, 5))), rel=2e-5)


@given(shares, shares, discounts, st.floats(0.0, 10.0), lengths)
def test_order(m: float, shift: float, gamma: float, r_max: float, k: int) -> None:
    of = (m, shift, gamma, r_max)
    assert at_most(branched_bound(*of, k), mbpo_4_2(*of, k))
    assert at_most(branched_bound_current_policy(*of, k), mbpo_4_3(*of, k))
    # Branching off real data degrades the guarantee at no length, and the longer the more.
    assert at_most(branched_bound(*of, k), branched_bound(*of, k + 1))
    assert at_most(branched_bound(*of, k + 1), branched_bound(*of, math.inf))
    assert at_most(branched_bound(*of, math.inf), full_rollout_bound(*of))
    # B2 is B3 with the model error under pi replaced by its linearisation of slope 1.
    linear = shifted_model_error(m, shift, 1.0)
    assert at_most(branched_bound_current_policy(linear, shift, gamma, r_max, k),
                   branched_bound(*of, k))  # fmt: skip
    # The recollected form is safe where it exceeds what is proven, and only there.
    assert at_most(
        branched_bound(*of, k, rewards="nonnegative"), conjectured_branched_bound(*of, k)
    )
    assert at_most(branched_bound(*of, 1), conjectured_branched_bound(*of, 1))


@given(shares, shares, shares, shares, discounts, lengths)
def test_monotone_in_the_errors(
    m: float, more: float, shift: float, further: float, gamma: float, k: int
) -> None:
    for bound in (*OF_LENGTH, lambda *of: full_rollout_bound(*of[:4])):
        small = bound(min(m, more), min(shift, further), gamma, 1.0, k)
        assert small >= 0
        assert at_most(small, bound(max(m, more), max(shift, further), gamma, 1.0, k))


@given(shares, discounts, lengths_or_full)
def test_limits(m: float, gamma: float, k: float) -> None:
    for bound in OURS:
        assert bound(m, 0, gamma, 1, math.inf) == pytest.approx(full_rollout_bound(m, 0, gamma, 1))
        assert bound(m, 0, gamma, 1, 1) == pytest.approx(2 * gamma / (1 - gamma) * m)
        assert bound(m, m, 0.0, 1, k) == 0
        assert bound(m, m, gamma, 1, k, horizon=1) == 0
        halved = bound(m, m, gamma, 1, k, rewards="nonnegative")
        assert halved == pytest.approx(bound(m, m, gamma, 1, k) / 2)
        predicted = bound(m, m, gamma, 1, k, model_rewards=True)
        assert gamma * predicted == pytest.approx(bound(m, m, gamma, 1, k), rel=1e-6, abs=1e-12)
    assert branched_bound(m, 0, 0.0, 1, k, model_rewards=True) == pytest.approx(2 * m)
    # An exact model leaves B3 nothing once rollouts are full, and B2 the shift.
    assert branched_bound_current_policy(0, m, gamma, 1, math.inf) == 0
    assert branched_bound(0, m, gamma, 1, k) == pytest.approx(2 * gamma * m / (1 - gamma) ** 2)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_long_rollouts_part_us_from_mbpo(gamma: float) -> None:
    crossing = round(gamma / (1 - gamma))
    full = full_rollout_bound(1, 0, gamma, 1)
    assert mbpo_4_2(1, 0, gamma, 1, crossing) == pytest.approx(full)
    assert mbpo_4_2(1, 0, gamma, 1, crossing + 1) > full
    assert branched_bound(1, 0, gamma, 1, 10 * crossing) < full
    assert mbpo_4_2(1, 0, gamma, 1, 10 * crossing) == pytest.approx(10 * full)


def test_broadcasts_and_keeps_scalars() -> None:
    grid = np.linspace(0, 1, 4)[:, None]
    assert branched_bound(grid, 0.1, 0.9, 1.0, [1, 2, math.inf]).shape == (4, 3)
    assert isinstance(branched_bound(0.1, 0.1, 0.9, 1.0, 1), np.float64)
    alone = branched_bound(grid[2, 0], 0.1, 0.9, 1.0, 2)
    assert branched_bound(grid, 0.1, 0.9, 1.0, [1, 2])[2, 1] == alone


WRONG = [
    (0, "eps_m", -0.1), (0, "eps_m", 1.1), (0, "eps_m", math.nan), (1, "eps_pi", 2.0),
    (1, "eps_pi", math.inf), (2, "gamma", 1.0), (2, "gamma", -0.1), (2, "gamma", math.nan),
    (3, "r_max", -1.0), (3, "r_max", math.inf), (3, "r_max", math.nan), (4, "k", 0),
    (4, "k", 1.5), (4, "k", -math.inf), (4, "k", math.nan),
]  # fmt: skip


@pytest.mark.parametrize("bound", OF_LENGTH)
@pytest.mark.parametrize(("place", "name", "value"), WRONG)
def test_refuses(bound: Callable[..., Any], place: int, name: str, value: float) -> None:
    of = [0.1, 0.1, 0.9, 1.0, 2.0]
    of[place] = value
    with pytest.raises(ValueError, match=rf"^{name}\w* is {value:g}; expected "):
        bound(*of)
    if place < 4:
        with pytest.raises(ValueError, match=rf"^{name}"):
            full_rollout_bound(*of[:4])


def test_refuses_what_only_some_take() -> None:
    for bound in (mbpo_4_2, mbpo_4_3):
        with pytest.raises(ValueError, match=r"k is inf; expected whole, at least 1$"):
            bound(0.1, 0.1, 0.9, 1.0, math.inf)
    for horizon in (0, 2.5, math.nan):
        with pytest.raises(ValueError, match="horizon is"):
            branched_bound(0.1, 0.1, 0.9, 1.0, 1, horizon=horizon)
    with pytest.raises(ValueError, match="rewards is 'positive'; expected one of signed, nonneg"):
        branched_bound(0.1, 0.1, 0.9, 1.0, 1, rewards="positive")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eps_m is 3; expected in"):
        branched_bound([0.1, 3.0], 0.1, 0.9, 1.0, 1)
    with pytest.raises(ValueError, match="slope is -1"):
        shifted_model_error(0.1, 0.1, -1.0)
    with pytest.raises(ValueError, match="candidates is"):
        best_rollout_length(0.1, 0.1, 0.9, candidates=())


@given(shares, shares, st.floats(0.01, 0.99))
def test_b3_wants_the_shortest_or_the_longest(m: float, shift: float, gamma: float) -> None:
    best = best_rollout_length(m, shift, gamma, candidates=(50, 3, 1, math.inf))
    every = [branched_bound_current_policy(m, shift, gamma, 1, k) for k in (1, 3, 50, math.inf)]
    assert best.bound == pytest.approx(min(every))
    if m >= shift:
        assert best.k == 1
    elif shift > 1.001 * m + 1e-9 and gamma**50 > 1e-8:
        assert best.k == math.inf


def test_best_rollout_length() -> None:
    generalises = best_rollout_length(lambda s: shifted_model_error(0.05, s, 0.2), 0.1, 0.9)
    assert generalises.k == math.inf
    assert generalises.bound == pytest.approx(2 * 0.9 / 0.01 * 0.07)
    assert best_rollout_length(lambda s: shifted_model_error(0.05, s, 0.9), 0.1, 0.9).k == 1
    # MBPO's own bound has its optimum between: where gamma^k is about eps_m' / eps_pi.
    finite = range(1, 200)
    between = best_rollout_length(0.01, 0.1, 0.9, candidates=finite, bound=mbpo_4_3)
    assert between.k == pytest.approx(math.log(0.1) / math.log(0.9), abs=2)
    assert best_rollout_length(0.01, 0.1, 0.9, r_max=7.0, candidates=finite, bound=mbpo_4_3).k == (
        between.k
    )
    # All lengths are equal where the errors are: the cheapest is taken.
    assert best_rollout_length(0.1, 0.1, 0.9, candidates=(7, 4, math.inf)).k == 4
