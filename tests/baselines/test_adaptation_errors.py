"""What is measured of an adaptive model: its errors ahead, without and with what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from m3po_baselines.learning_to_adapt.adaptive_model import Heads, Observed, adaptation_errors
from m3po_baselines.learning_to_adapt.grbal import GradientModel


def test_adaptation_errors_tell_apart_what_memory_is_worth(
    random_observed: Callable[..., Observed],
) -> None:
    """A model that is right once it has seen a transition, and off by one before."""

    class Oracle(GradientModel):
        def adapted(self, memory: Any) -> Heads:
            off = (Observed(*memory).weight.sum(1) == 0).float()[:, None, None]
            return Heads(
                dynamics=lambda x: off.expand(-1, x.shape[1], 1),
                reward=lambda x: 2.0 * off.expand(-1, x.shape[1], 1),
            )

    data = Observed(*(torch.zeros_like(x) for x in random_observed(30, 4)))
    data = data._replace(weight=torch.ones(30, 4))
    errors = adaptation_errors(Oracle(1, 1, True, 0.1, False, 8, 8), data)
    assert errors["query_obs_error_before"] == 1.0
    assert errors["query_reward_error_before"] == 4.0
    assert errors["query_error_before"] == 5.0
    assert errors["query_error_after"] == 0.0


def test_a_query_ends_with_its_task(random_observed: Callable[..., Observed]) -> None:
    """Rewards become wrong with the change at step 15; errors are taken from steps 10 and 20 on."""

    class Zero(GradientModel):
        def adapted(self, memory: Any) -> Heads:
            return Heads(*2 * [lambda x: torch.zeros(*x.shape[:2], 1)])

    data = Observed(*(torch.zeros_like(x) for x in random_observed(30, 4)))
    changed = (torch.arange(30) >= 15).float()[:, None].expand(30, 4)
    data = data._replace(weight=torch.ones(30, 4), reward=changed)
    age = (torch.arange(30) % 15)[:, None].expand(30, 4)
    model = Zero(1, 1, True, 0.1, False, 8, 8)
    told = adaptation_errors(model, data, age)
    assert told["query_error_after"] == pytest.approx(10 / (5 + 10))
    not_told = adaptation_errors(model, data)
    assert not_told["query_error_after"] == pytest.approx((11 + 10) / (16 + 10))
