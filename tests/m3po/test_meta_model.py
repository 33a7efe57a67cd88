"""The meta-model on data whose hidden task is known."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m3po_bench.common.sequence_replay import RealTransitions, SequenceReplay
from m3po_bench.common.soft_actor_critic import Actor, Transitions
from m3po_bench.m3po.branched_rollouts import ImaginedReplay, branch
from m3po_bench.m3po.meta_model import Imagined, MetaModel, MetaModelTrainer

SMALL = {"state_dim": 8, "embedding": 16, "ensemble_size": 3, "hidden": (32,)}


def two_task_data(n_episodes: int = 24, length: int = 20) -> SequenceReplay:
    """o' = 0.8 o + 0.2 a; r = d o', with d = +-1 fixed per episode and never shown."""
    replay = SequenceReplay(1, 1, 1, 16, 10_000)
    for episode in range(n_episodes):
        obs, direction = torch.randn(1, 1), 1.0 - 2.0 * (episode % 2)
        for t in range(length):
            action = torch.rand(1, 1) * 2 - 1
            next_obs = 0.8 * obs + 0.2 * action
            starts = torch.tensor([t == 0])
            replay.add(
                obs,
                action,
                direction * next_obs[:, 0],
                next_obs,
                torch.zeros(1),
                starts,
                torch.zeros(1, dtype=torch.bool),
            )
            obs = next_obs
    return replay


def fitted(history: bool, steps: int = 400) -> tuple[MetaModel, SequenceReplay]:
    torch.manual_seed(0)
    replay = two_task_data()
    model = MetaModel(1, 1, reward_hidden=(32,), history=history, **SMALL)  # type: ignore[arg-type]
    if not history:
        replay = _without_states(replay)
    MetaModelTrainer(model, 3e-3, 0.0, windows=16, length=10, rows=64).fit(replay, steps)
    return model, replay


def _without_states(source: SequenceReplay) -> SequenceReplay:
    replay, data = SequenceReplay(1, 1, 1, 0, 10_000), source.all
    for i in range(len(source)):
        starts = torch.tensor([i % 20 == 0])
        replay.add(
            data.obs[i : i + 1], data.action[i : i + 1], data.reward[i : i + 1],
            data.next_obs[i : i + 1], torch.zeros(1), starts,
            torch.zeros(1, dtype=torch.bool),
        )  # fmt: skip
    return replay


def reward_error(model: MetaModel, data: RealTransitions) -> float:
    """Mean squared error of sampled rewards over their variance."""
    torch.manual_seed(1)
    reward = model.imagine(data.obs, data.state, data.action).reward
    return float((reward - data.reward).square().mean() / data.reward.var())


def test_history_tells_the_reward_that_no_observation_tells() -> None:
    model, replay = fitted(history=True, steps=500)
    data = replay.all
    known = data.next_state.abs().sum(-1) > 0
    age = torch.arange(len(data.reward)) % 20
    later = RealTransitions(*(x[known & (age > 0)] for x in data))
    assert reward_error(model, later) < 0.35
    blind, blind_replay = fitted(history=False)
    assert reward_error(blind, blind_replay.all) > 0.8


def test_every_member_learns_from_every_episode() -> None:
    """An episode that a member has not seen is far off for it: each has a place of its own."""
    torch.manual_seed(0)
    replay = SequenceReplay(1, 12, 1, 0, 1000)
    for place, reward in zip(torch.eye(12), torch.randn(12), strict=True):
        for t in range(10):
            row = (place[None], torch.zeros(1, 1), reward[None], place[None], torch.zeros(1))
            replay.add(*row, torch.tensor([t == 0]), torch.zeros(1, dtype=torch.bool))
    model = MetaModel(12, 1, reward_hidden=(32,), history=False, ensemble_size=5, hidden=(8,))
    MetaModelTrainer(model, 5e-3, 0.0, windows=16, length=10, rows=64).fit(replay, 300)
    data = replay.all
    inputs = model.reward_inputs(data.obs, data.state, data.action, data.next_obs)
    said = model.reward_norm.inverse(model.reward(inputs)[0])[..., 0]
    assert (said - data.reward).abs().max() < 0.2


def test_states_are_those_of_acting_step_by_step() -> None:
    model, replay = fitted(history=True, steps=20)
    data = replay.all
    state = torch.zeros(1, model.state_dim)
    for i in range(40):
        if i % 20 == 0:
            state = torch.zeros(1, model.state_dim)
        torch.testing.assert_close(data.state[i : i + 1], state, rtol=1e-4, atol=1e-5)
        row = (data.obs, data.action, data.reward, data.next_obs)
        state = model.step_state(state, *(x[i : i + 1] for x in row)).detach()
        torch.testing.assert_close(data.next_state[i : i + 1], state, rtol=1e-4, atol=1e-5)


def test_window_states_continue_the_stored_one() -> None:
    model, replay = fitted(history=True, steps=20)
    torch.manual_seed(0)
    model.encoder_dropout = model.memory_dropout = 0.0
    window, valid = replay.windows(50, 6)
    states = model.window_states(window)
    torch.testing.assert_close(states[valid], window.state[valid], rtol=1e-4, atol=1e-5)


def test_reward_and_dynamics_do_not_share_gradients() -> None:
    model, replay = fitted(history=True, steps=2)
    window, _ = replay.windows(4, 6)
    states = model.window_states(window).flatten(0, 1).expand(3, -1, -1)
    data = RealTransitions(*(x.flatten(0, 1).expand(3, *x.flatten(0, 1).shape) for x in window))
    dynamics, _, _ = model.loss(data, states)
    model.zero_grad()
    dynamics.backward()  # type: ignore[no-untyped-call]
    assert model.encoder is not None
    grad = model.encoder.from_state.weight.grad
    assert grad is not None
    assert grad[0].abs().sum() > 0
    assert grad[1].abs().sum() == 0
    assert model.reward.net.layers[0].weight.grad is None


def test_rollouts_carry_states_and_stop_where_episodes_end() -> None:
    model, replay = fitted(history=True, steps=20)
    actor = Actor(1 + model.state_dim, 1, (8,))
    policy: Any = SimpleNamespace(
        actor=actor, features=model.features, imagine=model.imagine, meta_model=model
    )
    starts = replay.sample(50)
    steps = list(branch(policy, starts, 3, lambda o, a, n: (n[:, 0] > 0.0) & (n[:, 0] < 0.1)))
    assert len(steps) == 3
    torch.testing.assert_close(steps[0].state, starts.state)
    for step, following in pairwise(steps):
        goes_on = step.not_terminated > 0.5
        assert 0 < int(goes_on.sum()) < len(goes_on)
        for now, later in (
            (step.rows, following.rows),
            (step.next_obs, following.obs),
            (step.next_state, following.state),
        ):
            torch.testing.assert_close(now[goes_on], later)
    (only,) = branch(policy, starts, 3, lambda o, a, n: torch.ones(len(o)))
    assert only.not_terminated.sum() == 0


def test_spread_is_how_far_members_are_apart() -> None:
    model, replay = fitted(history=True, steps=1)
    data = replay.sample(7)
    apart = torch.linspace(0.0, 3.0, 7)

    def members(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.stack([apart, -apart])[..., None] + inputs[:, :1] * 0.0
        return mean, torch.zeros_like(mean)

    model.dynamics.forward = members  # type: ignore[method-assign]
    torch.testing.assert_close(model.spread(data.obs, data.state, data.action), apart)


def test_rollouts_end_where_members_are_further_apart_than_at_most_starts() -> None:
    """From its 2nd step on every rollout is at a place of its own choosing, known or unknown."""
    model, replay = fitted(history=True, steps=20)
    policy: Any = SimpleNamespace(
        actor=Actor(1 + model.state_dim, 1, (8,)), features=model.features, meta_model=model
    )
    starts = replay.sample(40)._replace(obs=torch.linspace(0.0, 1.0, 40)[:, None])
    model.spread = lambda obs, state, action: obs[:, 0]  # type: ignore[method-assign]

    def imagine(obs: Any, state: Any, action: Any, later: Any) -> Imagined:
        zero = torch.zeros(len(obs))
        return Imagined(obs + 0.25, zero, zero, state)

    policy.imagine = imagine
    steps = list(branch(policy, starts, 10, trust=0.6))
    limit = torch.quantile(starts.obs[:, 0], 0.6)
    assert len(steps[0].rows) == 40  # a start is known by definition
    for h, step in enumerate(steps[1:], 1):
        inside = torch.nonzero(starts.obs[:, 0] + 0.25 * h <= limit).flatten()
        assert step.rows.tolist() == inside.tolist()
    assert len(steps) == 3
    assert [len(s.rows) for s in branch(policy, starts, 3)] == [40] * 3
    assert len(list(branch(policy, starts, 10, trust=0.0))) == 1


def test_the_newest_are_kept() -> None:
    kept = ImaginedReplay(Transitions, 5)
    with pytest.raises(ValueError, match="empty"):
        kept.sample(1)
    for first in (0.0, 3.0, 6.0):
        values = first + torch.arange(3.0)
        kept.add(Transitions(values[:, None], values[:, None], values, values[:, None], values))
    assert len(kept) == 5
    sample = kept.sample(200)
    assert sorted(set(sample.reward.tolist())) == [4.0, 5.0, 6.0, 7.0, 8.0]
    assert torch.equal(sample.features[:, 0], sample.reward)
    kept.clear()
    assert len(kept) == 0


def test_learns_when_episodes_end() -> None:
    torch.manual_seed(0)
    replay = SequenceReplay(1, 1, 1, 16, 10_000)
    for _ in range(60):
        obs = torch.zeros(1, 1)
        for t in range(30):
            action = torch.rand(1, 1)
            next_obs = obs + 0.2 * action
            ends, starts = next_obs[:, 0] > 1.0, torch.tensor([t == 0])
            replay.add(obs, action, torch.zeros(1), next_obs, ends.float(), starts, ~ends & ends)
            obs = next_obs
            if ends:
                break
    model = MetaModel(1, 1, reward_hidden=(32,), learn_termination=True, **SMALL)  # type: ignore[arg-type]
    MetaModelTrainer(model, 3e-3, 0.0, windows=16, length=5, rows=64).fit(replay, 300)
    obs = torch.tensor([[0.3], [1.3]])
    ends = model.imagine(obs, torch.zeros(2, 16), torch.zeros(2, 1)).terminated
    assert ends[0] < 0.1
    assert ends[1] > 0.9


def test_memory_dropout_begins_a_share_of_the_windows_of_a_fit_without_memory() -> None:
    torch.manual_seed(0)
    window, _ = two_task_data().windows(400, 5)
    stored = torch.rand_like(window.state) + 0.1
    window = window._replace(state=stored)

    def first_states(share: float) -> torch.Tensor:
        model = MetaModel(1, 1, **SMALL, memory_dropout=share)  # type: ignore[arg-type]
        return model.window_states(window)[0]

    torch.testing.assert_close(first_states(0.0), stored[0])
    assert not first_states(1.0).any()
    some = first_states(0.25)
    empty = ~some.any(-1)
    torch.testing.assert_close(some[~empty], stored[0][~empty])
    assert 0.15 < float(empty.float().mean()) < 0.35


def test_encoder_dropout_is_for_fits_and_not_for_what_is_remembered() -> None:
    torch.manual_seed(0)
    replay = two_task_data()
    window, _ = replay.windows(4, 5)
    model = MetaModel(1, 1, **SMALL, encoder_dropout=0.5)  # type: ignore[arg-type]
    one, other = model.window_states(window), model.window_states(window)
    assert not torch.allclose(one, other)
    model.refresh_states(replay)
    remembered = replay.all.next_state.clone()
    model.refresh_states(replay)
    torch.testing.assert_close(replay.all.next_state, remembered)
    step = [x[0] for x in (window.state, window.obs, window.action, window.reward, window.next_obs)]
    torch.testing.assert_close(model.step_state(*step), model.step_state(*step))


@pytest.mark.parametrize("name", ["dynamics_beta", "encoder_dropout", "memory_dropout"])
def test_what_is_no_share_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=1.5: expected a share from 0 to 1"):
        MetaModel(1, 1, **{name: 1.5})  # type: ignore[arg-type]


def test_the_dynamics_weigh_errors_as_asked() -> None:
    for beta in (0.0, 1.0):
        model = MetaModel(1, 1, **SMALL, dynamics_beta=beta)  # type: ignore[arg-type]
        assert (model.dynamics.beta, model.reward.beta) == (beta, 0.5)
