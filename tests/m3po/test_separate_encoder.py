"""M3PO whose policy and critics encode histories themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

from m3po_bench import M3PO, make_agent
from m3po_bench.common.checkpoints import ExactCheckpoint
from m3po_bench.common.soft_actor_critic import actor_loss, critic_loss
from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.m3po.branched_windows import BranchedWindows, states_along, window_batch
from m3po_bench.m3po.recurrent import RecurrentActor, RecurrentCritics
from m3po_bench.wrappers import TrialWrapper

ENV = "M3PO/PointFwdBwd-v0"


def separate(env: Any = ENV, **kwargs: Any) -> M3PO:
    env = gym.make(env) if isinstance(env, str) else env
    made: M3PO = make_agent("M3PO", env, preset="tiny", seed=0, encoder="separate", **kwargs)
    return made


@pytest.fixture(scope="module")
def agent() -> M3PO:
    """Branches of three steps, and states that are those of the encoders as they are."""
    model = separate(rollout_length=3).learn(160)
    model.policy.refresh_states(model.replay_buffer)
    model.windows.clear()
    model._branch_meta_rollouts()
    return model


def encoders(model: M3PO) -> tuple[RecurrentActor, RecurrentCritics, RecurrentCritics]:
    found = model.policy.actor, model.policy.critics, model.policy.critic_targets
    assert isinstance(found[0], RecurrentActor)
    assert isinstance(found[1], RecurrentCritics)
    assert isinstance(found[2], RecurrentCritics)
    return found  # type: ignore[return-value]


def reached(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_each_loss_reaches_its_own_encoder_and_no_other(agent: M3PO) -> None:
    actor, critics, targets = encoders(agent)
    batch, features = window_batch(agent.policy, agent.windows.sample(8), 0.1)
    agent.policy.zero_grad()
    alpha = torch.tensor(0.1)
    critic_loss(critics, targets, actor, batch, 0.9, alpha).backward()  # type: ignore[no-untyped-call]
    assert reached(critics.encoder)
    assert not reached(actor)
    assert not reached(agent.policy.meta_model)
    critics.requires_grad_(False)
    critics.zero_grad()
    actor_loss(critics, actor, features, alpha)[0].backward()  # type: ignore[no-untyped-call]
    critics.requires_grad_(True)
    assert reached(actor.encoder)
    assert not reached(critics)
    assert not reached(targets)
    assert not reached(agent.policy.meta_model)


def test_an_update_trains_both_encoders_and_the_targets_follow(agent: M3PO) -> None:
    model = separate().learn(60)
    modules = [m.encoder for m in encoders(model)] + [model.policy.meta_model]

    def values() -> list[torch.Tensor]:
        return [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in modules]

    before = values()
    model.soft_actor_critic.n_updates = 0  # one at which the actor's turn has come
    model._update_policy(1)
    actor, critics, targets, meta_model = (
        float((new - old).abs().sum()) for new, old in zip(values(), before, strict=True)
    )
    assert min(actor, critics, targets) > 0.0
    assert targets < 0.1 * critics
    assert meta_model == 0.0


def test_burnt_in_states_are_the_stored_ones_while_the_encoders_stay(agent: M3PO) -> None:
    """So a window says the same of a history wherever in the episode it begins."""
    policy, replay = agent.policy, agent.replay_buffer
    actor, critics, _ = encoders(agent)
    window, learn = replay.windows_to_learn_from(60, 12, 4)
    inputs = policy.meta_model.encoded(*window[:4])[:-1]
    assert window.state[0].any(), "some windows begin in the middle of an episode"
    own = window.state[..., policy.seen_columns].chunk(2, -1)
    for encoder, stored in zip((actor.encoder, critics.encoder), own, strict=True):
        states = states_along(encoder, inputs, stored[0])
        torch.testing.assert_close(states[learn], stored[learn], rtol=1e-4, atol=1e-5)
        stale = states_along(encoder, inputs, stored[0] + 0.5)
        error = (stale - stored).abs().amax(-1)
        assert error[8:][learn[8:]].mean() < 0.5 * error[0].mean(), "burn-in forgets its start"


def test_a_batch_is_what_acting_step_by_step_would_see(agent: M3PO) -> None:
    """Branches of three steps: features lead on from each other, by the encoders' own steps."""
    policy = agent.policy
    windows: BranchedWindows = agent.windows.sample(6)
    policy.critic_targets.load_state_dict(policy.critics.state_dict())
    batch, actor_features = window_batch(policy, windows, 0.0)
    assert torch.equal(batch.features, actor_features)
    assert windows.taken.all(-1)[windows.learn].all()  # this env never terminates
    k, width = 3, policy.obs_dim
    shape = (k, int(windows.learn.sum()), -1)
    features, following = batch.features.view(shape), batch.next_features.view(shape)
    torch.testing.assert_close(features[1:], following[:-1], rtol=1e-4, atol=1e-5)
    obs, stored = windows.obs[windows.learn], agent.replay_buffer.all
    rows = (obs[:, None] == stored.obs).all(-1).int().argmax(1)
    known = policy.features(obs, stored.state[rows])
    torch.testing.assert_close(features[0], known, rtol=1e-4, atol=1e-5)
    model_state = torch.zeros(len(obs), policy.meta_model.state_dim)
    for step in range(k):
        tail = [x[windows.learn][:, step] for x in windows[7:10]]
        state = torch.cat([model_state, features[step, :, width:]], -1)
        new = policy.step_state(state, obs, tail[0], tail[1], tail[2])
        expected = policy.features(tail[2], new)
        torch.testing.assert_close(expected, following[step], rtol=1e-4, atol=1e-5)
        obs = tail[2]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_real_steps_take_the_place_of_branches(agent: M3PO, share: float) -> None:
    windows = agent.windows.sample(40)
    tail = windows.tails(share)
    real = windows.reward[windows.learn]
    is_real = (tail.reward[0] == real) & (tail.next_obs[0] == windows.next_obs[windows.learn]).all(
        -1
    )
    assert int(is_real.sum()) / int(tail.taken.sum()) == pytest.approx(share, abs=0.01)
    assert not tail.taken[1:, is_real].any()
    assert tail.taken[:, ~is_real].all()


def test_branches_end_where_episodes_do(agent: M3PO) -> None:
    model = separate("Pendulum-v1", rollout_length=4).learn(60)
    ends = model.policy.meta_model.termination
    assert ends is not None
    torch.nn.init.constant_(list(ends.parameters())[-1], 0.0)  # about one step in two
    model.windows.clear()
    model._branch_meta_rollouts()
    windows = model.windows.sample(50)
    taken, goes_on = windows.taken[windows.learn], windows.goes_on[windows.learn] > 0.5
    assert taken[:, 0].all()
    assert torch.equal(taken[:, 1:], taken[:, :-1] & goes_on[:, :-1])
    assert 0.1 < float(taken[:, 1:].float().mean()) < 0.9
    batch, _ = window_batch(model.policy, windows, 0.1)
    assert batch.features.isfinite().all()


def test_predicts_with_the_states_that_are_stored() -> None:
    model = separate(TrialWrapper(gym.make(ENV, max_episode_steps=10), 2), learning_starts=10_000)
    states = []
    for _ in range(25):
        model.learn(1, reset_num_timesteps=False, log_interval=None)
        assert model._agent_state is not None
        states.append(model._agent_state[0][0])
    stored = model.replay_buffer.all
    assert stored.state.shape[1] == model.policy.meta_model.state_dim + 2 * 4
    np.testing.assert_allclose(np.stack(states), stored.state, rtol=1e-3, atol=1e-5)
    model.policy.refresh_states(model.replay_buffer)
    for name in ("state", "next_state"):
        again = getattr(model.replay_buffer.all, name)
        np.testing.assert_allclose(getattr(stored, name), again, rtol=1e-3, atol=1e-5)


def test_d_model_outlasts_a_refit(agent: M3PO) -> None:
    model = separate().learn(99)
    n = len(model.windows)
    model.learn(1, reset_num_timesteps=False)  # refitted, and branched anew
    assert model._next_fit == 150
    assert len(model.windows) > n


def test_saved_resumed_and_diagnosed(tmp_path: Path) -> None:
    venv = make_vec_env(ENV, n_envs=2)
    assert separate(venv).learn(120).num_timesteps == 120
    callback = ExactCheckpoint(tmp_path / "at.pt", every=100)
    model = separate().learn(150, callback=callback)
    resumed = separate().resume(tmp_path / "at.pt")
    assert resumed.num_timesteps == 100
    resumed.learn(50, reset_num_timesteps=False)
    model.save(tmp_path / "agent")
    loaded = M3PO.load(tmp_path / "agent", env=gym.make(ENV))
    for name, value in model.policy.state_dict().items():
        assert torch.equal(resumed.policy.state_dict()[name], value), name
        assert torch.equal(loaded.policy.state_dict()[name], value), name
    loaded.learn(70, reset_num_timesteps=False)
    assert loaded._n_updates > model._n_updates
    episodes = evaluate(model, [gym.make(ENV, split="test")], range(4))
    found = model.diagnostics(episodes)
    assert {"model/obs_error_h5", "probe/accuracy_age6", "gap/full"} <= set(found)
    assert np.isfinite(list(found.values())).all()


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="encoder='sharde': expected 'shared' or 'separate'"):
        make_agent("M3PO", ENV, preset="tiny", encoder="sharde")
    with pytest.raises(ValueError, match="expected history=True"):
        separate(history=False)
    with pytest.raises(ValueError, match="got 'full'"):
        separate(rollout_length="full")
    with pytest.raises(ValueError, match=r"policy_burn_in=8: expected .* less than .*=8"):
        separate(policy_burn_in=8, policy_window_length=8)


@pytest.mark.slow
def test_learns_to_follow_the_direction() -> None:
    """Standing still, the best without memory, gives 0; so does any memoryless agent."""
    env = gym.make(ENV, schedule="hazard")
    model = make_agent("M3PO", env, preset="quick", seed=1, encoder="separate").learn(1500)
    tests = [gym.make(ENV, schedule="hazard", split="test") for _ in range(10)]
    returns = [float(np.sum(e.rewards)) for e in evaluate(model, tests, range(20))]
    assert np.mean(returns) > 15.0
