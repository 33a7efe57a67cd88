"""Planners on problems whose best plan is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m3po_bench.common.planners import CrossEntropy, Planner, RandomShooting, Score

PLANNERS = [RandomShooting(4000, 2), CrossEntropy(200, 2, iterations=8)]


def quadratic(target: Tensor) -> Score:
    """Best is ``target``, (n, action_dim), at every step of the horizon."""
    return lambda plans: -(plans - target[:, None, None]).square().sum((2, 3))


def seeds(*values: int) -> list[int | None]:
    return list(values)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
def test_finds_the_top_of_a_quadratic_for_each_env(planner: Planner) -> None:
    target = torch.tensor([[0.5, -0.3], [-0.9, 0.1], [0.0, 1.0]])
    found = planner.plan(quadratic(target), planner.draws(2, seeds(0, 1, 2)))
    assert (found - target).abs().max() < 0.2
    assert not torch.allclose(found[0], found[1], atol=0.5)


def test_cross_entropy_is_more_exact_than_as_many_random_shots() -> None:
    target = torch.tensor([[0.5, -0.3]]).repeat(20, 1)
    error = {}
    for planner in (RandomShooting(500, 6), CrossEntropy(100, 6, iterations=5)):
        found = planner.plan(quadratic(target), planner.draws(2, seeds(*range(20))))
        error[type(planner).__name__] = (found - target).abs().mean()
    assert error["CrossEntropy"] < 0.15 < 0.22 < error["RandomShooting"]


@pytest.mark.parametrize("start", [0.3, -0.2, 5.0])
def test_regulates_a_linear_system(start: float) -> None:
    """x' = x + a / 2 with cost x'^2: to the origin at once, or as fast as actions allow."""

    def score(plans: Tensor) -> Tensor:
        x, total = torch.full(plans.shape[:2], start), torch.zeros(plans.shape[:2])
        for action in plans.unbind(2):
            x = x + 0.5 * action[..., 0]
            total = total - x.square()
        return total

    planner = CrossEntropy(300, 4, iterations=10)
    found = planner.plan(score, planner.draws(1, seeds(3)))
    assert found.item() == pytest.approx(max(-1.0, min(1.0, -2.0 * start)), abs=0.05)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
def test_what_is_not_a_number_is_never_the_best(planner: Planner) -> None:
    def score(plans: Tensor) -> Tensor:
        worth = plans[:, :, 0, 0]
        return torch.where(worth > 0.0, torch.nan, worth)

    found = planner.plan(score, planner.draws(1, seeds(0)))
    assert -0.2 < found.item() <= 0.0


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
def test_a_plan_depends_on_its_seed_and_on_no_neighbour(planner: Planner) -> None:
    together = planner.draws(1, seeds(7, 8, 7))
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=0)
    torch.testing.assert_close(together[1:2], planner.draws(1, seeds(8)), rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
    torch.manual_seed(0)
    fresh = planner.draws(1, [None, None])
    assert not torch.equal(fresh[0], fresh[1])
    torch.manual_seed(0)
    torch.testing.assert_close(fresh, planner.draws(1, [None, None]), rtol=0, atol=0)


def test_draws_cover_the_range_of_actions() -> None:
    draws = RandomShooting(1000, 3).draws(2, seeds(0))
    assert draws.shape == (1, 1000, 3, 2)
    assert draws.min() < -0.98
    assert draws.max() > 0.98
    assert draws.abs().max() <= 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomShooting(candidates=0), "candidates=0"),
        (lambda: CrossEntropy(iterations=0), "iterations=0"),
        (lambda: CrossEntropy(elites=0.0), "elites=0.0"),
        (lambda: CrossEntropy(kept=1.0), "kept=1.0"),
    ],
)
def test_errors_name_what_was_given(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
