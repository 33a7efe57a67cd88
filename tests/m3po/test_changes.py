"""Steps in which the task changes are told by hindsight, and left out of what is learnt from."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from m3po_bench import M3PO
from m3po_bench.common.sequence_replay import RealTransitions
from m3po_bench.m3po.changes import foreseen, without_changes
from m3po_bench.registry import agent_spec

ENV = "M3PO/PointFwdBwd-v0"
NEVER = 10**6


def tiny(**kwargs: Any) -> M3PO:
    settings = {**agent_spec("M3PO").kwargs("tiny"), **kwargs}
    return M3PO("MlpPolicy", gym.make(ENV), seed=0, **settings)


class RewardOfState(torch.nn.Module):
    """Predicts the history state's last column, by members ``spread`` apart, with variance 1."""

    def __init__(self, spread: float = 0.0) -> None:
        super().__init__()
        self.offsets = torch.tensor([-spread, spread])

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean = inputs[..., -1:] + self.offsets[:, None, None]
        return mean, torch.zeros_like(mean)


def transitions(model: M3PO, changes: list[float]) -> RealTransitions:
    """Transitions whose history state's last column rises by ``changes``; obs are numbered."""
    n, policy = len(changes), model.policy
    state = torch.zeros(n, policy.state_dim)
    later = state.clone()
    later[:, -1] = torch.tensor(changes)
    obs = torch.arange(n)[:, None].expand(n, policy.obs_dim).float()
    zero = torch.zeros(n)
    action = torch.zeros(n, policy.action_dim)
    return RealTransitions(obs, action, zero, obs, zero, state, later, zero.long())


def test_surprise_is_in_deviations_of_all_rewards_and_of_the_predicted_one() -> None:
    model = tiny()
    data = transitions(model, [0.0, 1.0, -3.0])
    for spread in (0.0, 2.0):
        model.policy.meta_model.reward = RewardOfState(spread)  # type: ignore[assignment]
        found = model.policy.meta_model.surprise(data.obs, data.state, data.action, data.next_state)
        expected = np.array([0.0, 1.0, 3.0]) / math.sqrt(1.0 + 1.0 + spread**2)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_changes_are_replaced_by_other_transitions() -> None:
    model = tiny()
    model.policy.meta_model.reward = RewardOfState()  # type: ignore[assignment]
    data = transitions(model, [0.0, 5.0, 0.1, -5.0, 0.2])
    kept = foreseen(model.policy, data, 1.0)
    assert kept.tolist() == [True, False, True, False, True]
    found = without_changes(model.policy, data, 1.0).obs[:, 0].tolist()
    assert [found[i] for i in (0, 2, 4)] == [0.0, 2.0, 4.0]
    assert {found[1], found[3]} <= {0.0, 2.0, 4.0}
    assert without_changes(model.policy, data, math.inf) is data
    assert without_changes(model.policy, data, 1e-9).obs[0, 0] == 0.0


def test_a_limit_that_leaves_nothing_is_none() -> None:
    model = tiny()
    model.policy.meta_model.reward = RewardOfState()  # type: ignore[assignment]
    assert foreseen(model.policy, transitions(model, [2.0, 3.0]), 1e-9).all()
    assert len(without_changes(model.policy, transitions(model, []), 1.0).obs) == 0


@pytest.mark.parametrize("kwargs", [{"hindsight": False}, {"history": False}])
def test_without_hindsight_or_history_nothing_is_left_out(kwargs: dict[str, Any]) -> None:
    found = []
    for limit in (1e-3, math.inf):
        model = tiny(surprise_limit=limit, **kwargs).learn(60)
        found.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.equal(*found)


def test_a_limit_that_is_not_positive_is_refused() -> None:
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="surprise_limit"):
            tiny(surprise_limit=limit)


def test_windows_are_not_learnt_from_in_steps_that_were_not_foreseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(encoder="separate", surprise_limit=0.5).learn(60)
    judged: list[tuple[Tensor, float]] = []

    def every_second(policy: Any, real: RealTransitions, limit: float) -> Tensor:
        kept = torch.arange(len(real.reward)) % 2 == 0
        judged.append((kept, limit))
        return kept[:, None].expand(real.reward.shape)

    monkeypatch.setattr("m3po_bench.m3po.changes.foreseen", every_second)
    model.windows.clear()
    model._branch_meta_rollouts()
    ((kept, limit),) = judged
    windows = model.windows.sample(200)
    assert limit == 0.5
    assert windows.learn[:, kept].any()
    assert not windows.learn[:, ~kept].any()
    assert not windows.taken[~windows.learn].any()


@pytest.mark.parametrize("left", [0, 1])
def test_windows_with_nothing_to_learn_from_are_left_out(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit may leave one window, or none: then it is none, as in samples."""

    def few(policy: Any, real: RealTransitions, limit: float) -> Tensor:
        kept = torch.zeros_like(real.reward, dtype=torch.bool)
        kept[:, :left] = True
        return kept

    model = tiny(encoder="separate", surprise_limit=0.5).learn(60)
    monkeypatch.setattr("m3po_bench.m3po.changes.foreseen", few)
    model.windows.clear()
    model._branch_meta_rollouts()
    assert len(model.windows) == 1 if left else len(model.windows) > 1
    assert model.windows.sample(50).learn.any(1).all()
    model.learn(5, reset_num_timesteps=False)


class AgesOf(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps how long ago the task of each step began, ``NEVER`` for an episode's first task."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.ages: list[int] = []
        self._info: dict[str, Any] = {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, self._info = self.env.reset(**kwargs)
        return obs, self._info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        first = self._info["n_changes"] == 0
        self.ages.append(NEVER if first else self._info["steps_since_change"])
        obs, reward, terminated, truncated, self._info = self.env.step(action)
        return obs, reward, terminated, truncated, self._info


def test_changes_at_speed_are_told_from_other_steps() -> None:
    """A point is pushed to and fro; the meta-model is fitted as in learning, and is not told."""
    env = AgesOf(gym.make(ENV, schedule={"name": "hazard", "rate": 0.03}))
    policy = {"net_arch": [16, 16], "hidden": [64, 64], "reward_hidden": [64, 64]}
    model = M3PO(
        "MlpPolicy", env, seed=0, learning_starts=10_000, model_first_fit=600,
        warm_start_correlation=0.95, policy_kwargs=policy,
    )  # fmt: skip
    model.learn(2000, log_interval=None)
    model._fit_meta_model()
    data = model.replay_buffer.all
    kept = foreseen(model.policy, data, model.surprise_limit)
    changed = torch.tensor(env.ages) == 0
    fast = data.obs[:, 0].abs() > 0.5
    told = (~kept)[changed & fast].float().mean()
    wrongly = (~kept)[~changed].float().mean()
    assert (changed & fast).sum() >= 10
    assert told > 0.75
    assert wrongly < 0.02
