"""Measures of the meta-model, on data whose answers are known."""

from __future__ import annotations

import math
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from m3po_bench import make_agent
from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.m3po.diagnostics import (
    AGES,
    imagined_beliefs,
    one_step_errors,
    open_loop_errors,
    task_probe,
)
from m3po_bench.m3po.meta_model import Imagined, MetaModel
from m3po_bench.m3po.played import Played, recall

PERIOD, LENGTH, N = 20, 60, 40


def played(state: Any = None, **changes: Any) -> Played:
    """Two tasks that take turns every 20 steps; obs' = obs + action, the reward is the action."""
    generator = torch.Generator().manual_seed(0)
    action = torch.randn(LENGTH, N, 2, generator=generator)
    obs = torch.cat([torch.zeros(1, N, 2), action.cumsum(0)])
    age = (torch.arange(LENGTH) % PERIOD)[:, None].expand(LENGTH, N)
    turn = (torch.arange(LENGTH) // PERIOD)[:, None] + torch.arange(N) // 2
    task = (1.0 - 2.0 * (turn % 2))[..., None]
    if state is None:
        state = torch.randn(LENGTH + 1, N, 8, generator=generator)
    valid = torch.ones(LENGTH, N, dtype=torch.bool)
    whole = Played(obs, state, action, action[..., 0], task, age, valid)
    return whole._replace(**changes)


def knows_after(delay: int) -> torch.Tensor:
    """States that show the task once ``delay`` of its transitions have been seen."""
    data = played()
    shown = torch.where(data.age[..., None] >= delay, data.task, -data.task)
    noise = 0.01 * torch.randn(LENGTH + 1, N, 8, generator=torch.Generator().manual_seed(1))
    noise[:-1, :, :1] += shown
    return noise


def test_the_probe_finds_what_the_state_shows_and_nothing_else() -> None:
    found = task_probe(played(knows_after(0)))
    assert all(found[f"probe/accuracy_age{first}"] == 1.0 for first, _ in AGES[:-1])
    assert "probe/accuracy_age25" not in found  # no task lasts that long
    ignorant = task_probe(played())
    assert 0.35 < ignorant["probe/accuracy_age6"] < 0.65


@pytest.mark.parametrize(("delay", "share"), [(0, 1.0), (1, 1.0), (3, 1.0), (4, 0.0)])
def test_the_probe_counts_transitions_after_a_change(delay: int, share: float) -> None:
    assert task_probe(played(knows_after(delay)))["probe/right_within_3"] == share


def test_a_continuous_task_is_probed_by_its_variance_explained() -> None:
    values = torch.rand(LENGTH, N, 3, generator=torch.Generator().manual_seed(2))
    state = torch.zeros(LENGTH + 1, N, 8)
    state[:-1, :, :3] = values
    found = task_probe(played(state, task=values))
    assert found["probe/r2_age0"] == pytest.approx(1.0, abs=1e-3)
    assert abs(task_probe(played(task=values))["probe/r2_age6"]) < 0.1


def test_tasks_that_take_turns_between_episodes_are_all_met() -> None:
    task = (1.0 - 2.0 * (torch.arange(N) % 2))[None, :, None].expand(LENGTH, N, 1)
    state = torch.zeros(LENGTH + 1, N, 8)
    state[:-1, :, :1] = task
    data = played(state, task=task)
    assert data.half.sum() == data.half[::2].sum() * 2 == N // 2
    assert task_probe(data)["probe/accuracy_age0"] == 1.0


@pytest.mark.parametrize(
    ("task", "half"), [([[2.0], [1.0], [2.0]], [1, 2]), ([[], [], []], [0, 2])]
)
def test_halves_of_few_episodes(task: list[list[float]], half: list[int]) -> None:
    data = played(task=torch.tensor([task]))
    assert torch.nonzero(data.half).flatten().tolist() == half


def test_tasks_that_were_never_met_before_cannot_be_named() -> None:
    each_its_own = torch.arange(N, dtype=torch.float32).remainder(6)[None, :, None]
    lone = played()._replace(task=each_its_own.expand(LENGTH, N, 1))
    found = task_probe(Played(*(x[:, :6] for x in lone)))
    assert any(name.startswith("probe/r2") for name in found)
    assert not any(name.startswith("probe/accuracy") for name in found)


@pytest.mark.parametrize("deluded", [False, True])
def test_rollouts_that_forsake_a_task_are_told_from_a_task_that_changes(deluded: bool) -> None:
    """Tasks take turns every 20 steps; what is imagined leaves the task -1, or none."""
    data = played(knows_after(0))
    data = data._replace(age=torch.where(data.age < 8, data.age, data.age + 5))  # 15 at the tenth

    def imagine(obs: Any, state: Any, action: Any) -> Imagined:
        after = torch.cat([state[:, :1].abs() if deluded else state[:, :1], state[:, 1:]], 1)
        return Imagined(obs, obs[:, 0], obs[:, 0], after)

    policy: Any = SimpleNamespace(
        meta_model=SimpleNamespace(state_dim=8),
        actor=SimpleNamespace(act=lambda features: features),
        features=lambda obs, state: obs,
        imagine=imagine,
    )
    found = imagined_beliefs(policy, data)
    assert set(found) == {
        f"belief/{x}_h{h}" for x in ("other", "real_other", "excess") for h in (1, 2, 5, 10, 20)
    }
    for h in (1, 2, 5, 10, 20):
        changes = h in (10, 20)  # the real task does, at the tenth step after each start
        assert found[f"belief/real_other_h{h}"] == float(changes)
        assert found[f"belief/other_h{h}"] == pytest.approx(0.5 if deluded else 0.0, abs=0.1)
        assert found[f"belief/excess_h{h}"] == (float(deluded) - float(changes))
    assert imagined_beliefs(policy, played(knows_after(0))) == {}  # no start is of age 12


class Exact(MetaModel):
    """Knows the dynamics of ``played`` but for a constant, and for what it adds to the reward."""

    bias, miss = 0.0, 0.0

    def imagine(self, obs: Any, state: Any, action: Any, later: Any = None) -> Imagined:
        zeros = torch.zeros(len(obs))
        return Imagined(obs + action + self.bias, action[:, 0] + self.miss, zeros, state)


@pytest.mark.parametrize(("bias", "miss"), [(0.0, 0.0), (0.25, 0.5)])
def test_open_loop_errors_add_up(bias: float, miss: float) -> None:
    model = Exact(2, 2, state_dim=4)
    model.bias, model.miss = bias, miss
    model.obs_norm.std.fill_(2.0)
    found = open_loop_errors(model, played())
    assert set(found) == {
        f"model/{x}_error_h{h}" for x in ("obs", "reward") for h in (1, 2, 5, 10, 20)
    }
    for h in (1, 2, 5, 10, 20):
        assert found[f"model/obs_error_h{h}"] == pytest.approx(h * bias / 2.0, abs=1e-5)
        assert found[f"model/reward_error_h{h}"] == pytest.approx(miss, abs=1e-5)


def test_padding_and_other_tasks_are_left_out() -> None:
    model, data = Exact(2, 2, state_dim=4), played()
    data.valid[30:] = False
    data.obs[31:] += 100.0
    assert open_loop_errors(model, data)["model/obs_error_h10"] == pytest.approx(0.0, abs=1e-5)
    assert "model/obs_error_h50" not in open_loop_errors(model, data)


def test_coverage_and_errors_of_heads_that_say_nothing() -> None:
    """With zero weights every mean is 0 and every deviation the same, whatever the input."""
    model = MetaModel(2, 2, state_dim=4)
    for head in (model.dynamics, model.reward):
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
    found = one_step_errors(model, played())
    deviation = math.exp(0.5 * model.dynamics(torch.zeros(1, 8))[1][0, 0, 0].item())
    expected = 2.0 * NormalDist().cdf(deviation) - 1.0  # actions, so outcomes, are N(0, 1)
    assert found["model/obs_coverage"] == pytest.approx(expected, abs=0.03)
    assert found["model/reward_coverage"] == pytest.approx(expected, abs=0.03)
    assert found["model/disagreement"] == 0.0
    assert found["model/obs_error_age0"] == pytest.approx(1.0, abs=0.1)
    assert found["model/reward_error_age6"] == pytest.approx(1.0, abs=0.1)
    # A start is no change; where nothing changes there is nothing else to speak of.
    data = played()
    data.obs[1:] += 100.0  # the first step goes where no action leads
    assert one_step_errors(model, data)["model/obs_error_age0"] == pytest.approx(1.0, abs=0.1)
    data = data._replace(age=torch.arange(LENGTH)[:, None].expand(LENGTH, N))
    assert one_step_errors(model, data)["model/obs_error_age0"] == 10.0  # what is clipped to


def test_an_agent_recalls_what_it_remembered_and_reports_on_it() -> None:
    model = make_agent("M3PO", "M3PO/PointFwdBwd-v0", preset="tiny", seed=0).learn(150)
    envs = [gym.make("M3PO/PointFwdBwd-v0", split="test") for _ in range(2)]
    episodes = evaluate(model, envs, range(4))
    again = recall(model.policy, episodes)
    assert again.state.shape == (101, 4, model.policy.meta_model.state_dim)
    obs, start, state = episodes[1].observations, np.ones(1, bool), None
    for t in range(100):
        action, state = model.predict(obs[None, t], state, start, deterministic=True)
        start[:] = False
        np.testing.assert_allclose(action[0], episodes[1].actions[t], atol=1e-5)
        np.testing.assert_allclose(state[0][0], again.state[t, 1], atol=1e-5)
    found = model.diagnostics(episodes)
    assert np.isfinite(list(found.values())).all()
    assert {"model/obs_error_h50", "model/reward_error_age0", "probe/accuracy_age6"} <= set(found)
    memoryless = make_agent("MBPO", "M3PO/PointFwdBwd-v0", preset="tiny", seed=0).learn(60)
    assert not any(key.startswith("probe") for key in memoryless.diagnostics(episodes))
