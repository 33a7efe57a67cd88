"""Imagined against real returns and the estimates of the model error, where both are known."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m3po_bench.m3po.meta_model import Imagined, MetaModel
from m3po_bench.m3po.played import Played
from m3po_bench.m3po.return_gap import model_error, return_gaps

LENGTH, N, GAMMA = 30, 12, 0.9
KS = (1, 2, 5, 10, 20)
DISCOUNTS = [GAMMA**t for t in range(LENGTH)]


class Drifting(MetaModel):
    """obs' = obs + action + bias, the reward is obs + miss: wrong by bias and miss."""

    bias, miss, ends = 0.0, 0.0, 0.0

    def imagine(self, obs: Any, state: Any, action: Any, later: Any = None) -> Imagined:
        ends = torch.full((len(obs),), self.ends)
        return Imagined(obs + action + self.bias, obs[:, 0] + self.miss, ends, state)


def one_step_right(model: MetaModel) -> Any:
    """A policy that always answers 1."""
    return SimpleNamespace(
        meta_model=model,
        features=model.features,
        imagine=model.imagine,
        actor=SimpleNamespace(act=lambda features, deterministic: torch.ones(len(features), 1)),
    )


def walked() -> Played:
    """obs counts the steps from a start of its own, and is the reward."""
    start = torch.arange(N, dtype=torch.float32)
    obs = (torch.arange(LENGTH + 1)[:, None] + start)[..., None]
    return Played(
        obs=obs,
        state=torch.zeros(LENGTH + 1, N, 0),
        action=torch.ones(LENGTH, N, 1),
        reward=obs[:-1, :, 0].clone(),
        task=torch.zeros(LENGTH, N, 0),
        age=torch.arange(LENGTH)[:, None].expand(LENGTH, N),
        valid=torch.ones(LENGTH, N, dtype=torch.bool),
    )


def drifting(**wrong: float) -> Any:
    model = Drifting(1, 1, history=False)
    for name, value in wrong.items():
        setattr(model, name, value)
    return one_step_right(model)


def test_a_perfect_model_leaves_no_gap() -> None:
    found = return_gaps(drifting(), walked(), GAMMA)
    expected = sum(d * (t + 4.5) for t, d in enumerate(DISCOUNTS))  # starts 0 to 9
    assert found["gap/return"] == pytest.approx(expected, rel=1e-4)
    assert set(found) == {"gap/return"} | {
        f"gap/{k}{suffix}" for k in (*(f"k{k}" for k in KS), "full") for suffix in ("", "_se")
    }
    assert all(abs(v) < 1e-3 for key, v in found.items() if key != "gap/return")


def test_the_kth_prediction_carries_the_error_of_the_steps_before_it() -> None:
    found = return_gaps(drifting(bias=0.5, miss=0.25), walked(), GAMMA)
    for name, k in [*((f"gap/k{k}", k) for k in KS), ("gap/full", LENGTH)]:
        gap = sum(d * (0.25 + 0.5 * min(t, k - 1)) for t, d in enumerate(DISCOUNTS))
        assert found[name] == pytest.approx(gap, rel=1e-3)
        assert found[f"{name}_se"] == pytest.approx(0.0, abs=1e-3)


def test_nothing_is_earned_after_an_end() -> None:
    """In the model every rollout ends with its first step, by either kind of termination."""
    played = walked()
    played.reward.fill_(1.0)
    always = torch.ones(1, dtype=torch.bool)
    for found in (
        return_gaps(drifting(ends=1.0), played, GAMMA),
        return_gaps(drifting(), played, GAMMA, lambda o, a, o2: always.expand(len(o))),
    ):
        started = sum(DISCOUNTS) - 4.5  # the first reward is obs: 0 to 9
        assert found["gap/full"] == pytest.approx(-started, rel=1e-4)
        assert found["gap/k5"] == pytest.approx(-started, rel=1e-4)


def test_real_episodes_that_have_ended_start_no_rollout() -> None:
    played = walked()
    played.valid[1:] = False
    played.reward.fill_(7.0)
    found = return_gaps(drifting(miss=7.0), played, GAMMA)
    assert found["gap/return"] == pytest.approx(7.0)
    assert found["gap/k1"] == pytest.approx(4.5, rel=1e-4)  # the first obs, and nothing later


def test_a_model_in_which_nobody_falls_is_off_by_what_it_imagines_until_the_time_limit() -> None:
    played = walked()
    played.reward.fill_(1.0)
    played.valid[5:] = False
    model = drifting()
    model.imagine = lambda obs, state, action: Imagined(
        obs, torch.ones(len(obs)), torch.zeros(len(obs)), state
    )
    short = Played(*(x[:6] if x is played.obs or x is played.state else x[:5] for x in played))
    for seen in (played, short):  # however long the longest real episode is
        found = return_gaps(model, seen, GAMMA, horizon=LENGTH)
        assert found["gap/full"] == pytest.approx(sum(DISCOUNTS[5:]), rel=1e-4)
        assert found["gap/k5"] == pytest.approx(sum(DISCOUNTS[5:9]), rel=1e-4)
        assert found["gap/k1"] == pytest.approx(0.0, abs=1e-5)


def test_what_the_model_drives_to_infinity_is_left_out() -> None:
    found = return_gaps(drifting(bias=float("inf")), walked(), GAMMA)
    assert "gap/k1" in found  # one prediction is not reached by the drift
    assert not {"gap/k2", "gap/full"} & set(found)


def gaussian(shift: float, width: float = 1.0) -> tuple[MetaModel, Played]:
    """A model that says nothing, of outcomes ``width`` as wide as it says, ``shift`` aside.

    Only the reward is off, in deviations of what the model predicts.
    """
    model = MetaModel(1, 1, history=False)
    for head in (model.dynamics, model.reward):
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
    deviation = math.exp(0.5 * model.dynamics(torch.zeros(1, 2))[1][0, 0, 0].item())
    generator = torch.Generator().manual_seed(0)
    draws = deviation * torch.randn(200, 40, 2, generator=generator)
    obs = torch.cat([torch.zeros(1, 40, 1), draws[..., :1].cumsum(0)])
    played = Played(
        obs=obs,
        state=torch.zeros(201, 40, 0),
        action=torch.zeros(200, 40, 1),
        reward=width * draws[..., 1] + shift * deviation,
        task=torch.zeros(200, 40, 0),
        age=torch.zeros(200, 40),
        valid=torch.ones(200, 40, dtype=torch.bool),
    )
    return model, played


@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0])
def test_the_true_total_variation_is_enclosed(shift: float) -> None:
    truth = 2.0 * NormalDist().cdf(shift / 2.0) - 1.0
    found = model_error(*gaussian(shift))
    assert 0.1 * truth < found["gap/eps_low"] < truth < found["gap/eps_high"] <= 1.0


def test_a_right_model_is_not_told_apart() -> None:
    found = model_error(*gaussian(0.0))
    assert found["gap/eps_low"] < 0.03
    assert found["gap/eps_high"] < 0.15  # the square root of noise in 8,000 draws
    assert found["gap/horizon"] == 200.0


@pytest.mark.parametrize("width", [0.2, 3.0])
def test_a_wrong_spread_is_an_error_too(width: float) -> None:
    """TV of N(0, w^2) and N(0, 1): they cross at x^2 = 2 ln w / (1 - 1/w^2)."""
    crossing = math.sqrt(2.0 * math.log(width) / (1.0 - width**-2))
    normal = NormalDist()
    truth = abs(2.0 * (normal.cdf(crossing) - normal.cdf(crossing / width)))
    found = model_error(*gaussian(0.0, width))
    assert 0.3 * truth < found["gap/eps_low"] < truth < found["gap/eps_high"]


def test_padding_is_no_outcome() -> None:
    model, played = gaussian(0.0)
    played.valid[100:] = False
    played.reward[100:] = 1e6
    assert model_error(model, played)["gap/eps_high"] < 0.2
    assert model_error(model, played)["gap/reward_span"] < 100.0


def test_the_span_is_of_real_and_predicted_rewards_and_of_what_follows_on_an_end() -> None:
    model, played = gaussian(0.0)
    played = played._replace(reward=torch.full_like(played.reward, 50.0))
    assert model_error(model, played)["gap/reward_span"] > 40.0  # predictions are near 0
    model, played = gaussian(0.0)
    played = played._replace(reward=played.reward + 100.0)
    model.reward_norm.mean.fill_(100.0)
    assert model_error(model, played)["gap/reward_span"] < 50.0
    found = model_error(model, played, horizon=300)  # real ones have ended before
    assert (found["gap/horizon"], found["gap/reward_span"] > 90.0) == (300.0, True)
