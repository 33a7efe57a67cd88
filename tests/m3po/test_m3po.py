"""M3PO as an SB3 algorithm: its memory, its options, its errors, and that it learns."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from m3po_bench import M3PO, make_agent
from m3po_bench.m3po import m3po
from m3po_bench.m3po.branched_rollouts import branch
from m3po_bench.m3po.turns import turns_due
from m3po_bench.registry import agent_spec
from m3po_bench.wrappers import PreviousActionReward, TrialWrapper

ENV = "M3PO/PointFwdBwd-v0"


def tiny(env: Any = ENV, **kwargs: Any) -> M3PO:
    settings = {**agent_spec("M3PO").kwargs("tiny"), **kwargs}
    return M3PO("MlpPolicy", gym.make(env) if isinstance(env, str) else env, seed=0, **settings)


def states_acted_on(model: M3PO, n_steps: int) -> np.ndarray:
    """What ``predict`` remembers at each of the next steps, shape (n_steps, state_dim)."""
    states = []
    for _ in range(n_steps):
        model.learn(1, reset_num_timesteps=False, log_interval=None)
        assert model._agent_state is not None
        states.append(model._agent_state[0][0])
    return np.stack(states)


def assert_replay_agrees(model: M3PO, states: np.ndarray) -> None:
    """The same history states are stored at once, and recomputed by the model."""
    replay = model.replay_buffer
    np.testing.assert_allclose(states, replay.all.state, rtol=1e-3, atol=1e-5)
    stored = replay.all.next_state
    model.policy.meta_model.refresh_states(replay)
    np.testing.assert_allclose(states, replay.all.state, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stored, replay.all.next_state, rtol=1e-3, atol=1e-5)


def test_the_name_is_the_class() -> None:
    assert M3PO is m3po.M3PO


@pytest.mark.parametrize("env_id", ["Pendulum-v1", ENV])
def test_acting_and_replay_agree_on_every_history_state(env_id: str) -> None:
    model = tiny(env_id, learning_starts=10_000)
    seen = states_acted_on(model, 250)
    assert_replay_agrees(model, seen)


def test_memory_outlasts_inner_episodes_of_a_trial() -> None:
    env = TrialWrapper(gym.make(ENV, max_episode_steps=10), 2)
    model = tiny(env, learning_starts=10_000)
    states = states_acted_on(model, 21)
    assert not states[0].any()
    np.testing.assert_array_equal(states[10], states[9])  # the boundary leaves memory alone
    assert not states[20].any()  # the next trial starts afresh
    assert_replay_agrees(model, states)


def test_without_history_nothing_is_remembered() -> None:
    model = tiny(history=False).learn(120)
    assert model.policy.meta_model.state_dim == 0
    obs = np.zeros((1, model.observation_space.shape[0]))  # type: ignore[index]
    other = obs.copy()
    other[:, -3:] = (0.7, 1.0, 0.0)  # previous action, previous reward, first-step flag
    state = model.predict(obs)[1]
    first, _ = model.predict(obs, state, np.zeros(1, bool), deterministic=True)
    second, _ = model.predict(other, state, np.zeros(1, bool), deterministic=True)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("real_ratio", [0.0, 0.5, 1.0])
def test_real_ratio_is_the_share_of_real_transitions(real_ratio: float) -> None:
    model = tiny(real_ratio=real_ratio, batch_size=40).learn(60)
    real = model.policy.meta_model.features(
        model.replay_buffer.all.obs, model.replay_buffer.all.state
    )
    # k = 1: imagined transitions start at real features too, so tell them by where they lead
    ends = model.policy.meta_model.features(
        model.replay_buffer.all.next_obs, model.replay_buffer.all.next_state
    )
    for batch in model._policy_batches(3):
        assert len(batch.reward) == 40
        found = (batch.features[:, None] == real[None]).all(-1).any(1)
        led = (batch.next_features[:, None] - ends[None]).abs().amax(-1).amin(1) < 1e-6
        assert int((found & led).sum()) == round(40 * real_ratio)


@pytest.mark.parametrize("n_envs", [1, 7, 8, 30, 120])
def test_fits_and_rollouts_follow_env_steps_however_many_envs_there_are(
    n_envs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rollouts, n_fitted = [], []

    def branched(policy: Any, starts: Any, *args: Any) -> Any:
        n_rollouts.append(len(starts.obs))
        return branch(policy, starts, *args)

    monkeypatch.setattr(m3po, "branch", branched)
    model = tiny(
        DummyVecEnv([lambda: gym.make(ENV)] * n_envs), learning_starts=120, gradient_steps=0,
        rollouts_per_step=4, rollout_every=10, model_fit_every=50, model_fit_steps=5,
        model_first_fit=1,
    )  # fmt: skip
    fit = model.trainer.fit

    def fitted(replay: Any, n_steps: int) -> dict[str, float]:
        n_fitted.append(n_steps)
        return fit(replay, n_steps)

    monkeypatch.setattr(model.trainer, "fit", fitted)
    model.learn(720)
    steps = model.num_timesteps - 120
    assert sum(n_rollouts) == pytest.approx(4 * steps, rel=0.04)
    assert sum(n_fitted) == pytest.approx(steps / 10, rel=0.1)
    assert max(n_rollouts) <= model.imagined.capacity  # what an update learns from is all kept


def test_what_had_to_wait_is_due_once() -> None:
    """Not as often as it would have been due; and on time, a step later is a step later."""
    assert turns_due(planned=0, every=10, now=200, n_envs=1) == (1, 210)
    assert turns_due(planned=200, every=10, now=200, n_envs=1) == (1, 210)
    assert turns_due(planned=230, every=10, now=200, n_envs=1) == (1, 210)
    assert turns_due(planned=170, every=10, now=200, n_envs=31) == (4, 210)
    assert turns_due(planned=170, every=10, now=200, n_envs=30) == (1, 210)


def test_longer_rollouts() -> None:
    model = tiny(rollout_length=np.int64(3), model_window_length=1).learn(55)
    assert len(model.imagined) == 3 * model.rollouts_per_step * model.rollout_every


@pytest.mark.parametrize(("rollout_every", "rounds"), [(20, 60), (70, 50), (200, 50)])
def test_d_model_has_room_for_all_rounds_between_two_fits(rollout_every: int, rounds: int) -> None:
    model = tiny(
        rollout_length=3, rollout_every=rollout_every, model_fit_every=50, learning_starts=50
    ).learn(99)
    assert len(model.imagined) == 3 * model.rollouts_per_step * rounds == model.imagined.capacity


@pytest.mark.parametrize("encoder", ["shared", "separate"])
def test_rollouts_end_by_trust(encoder: str) -> None:
    lengths = []
    for trust in (1.0, 0.5, 0.0):
        model = tiny(rollout_length=4, rollout_trust=trust, encoder=encoder).learn(51)
        if encoder == "separate":
            windows = model.windows.sample(500)
            taken = windows.taken.sum().item() / windows.learn.sum().item()
        else:
            taken = len(model.imagined) / (model.rollouts_per_step * model.rollout_every)
        assert model._mean_length == pytest.approx(taken, rel=0.2)
        lengths.append(taken)
    full, half, none = lengths
    assert full == 4.0
    assert 1.0 < half < 4.0
    assert 1.0 <= none < half


def test_hindsight_changes_rewards_and_memory_takes_in_what_is_imagined() -> None:
    model = tiny().learn(55)
    policy, starts = model.policy, model.replay_buffer.sample(200)
    steps = []
    with torch.no_grad():
        for hindsight in (False, True):
            torch.manual_seed(0)
            steps.append(next(iter(branch(policy, starts, 1, hindsight=hindsight))))
            torch.manual_seed(0)
            action = policy.actor.act(policy.features(starts.obs, starts.state))
            later = starts.next_state if hindsight else starts.state
            foretold = policy.imagine(starts.obs, starts.state, action, later)
            assert torch.equal(steps[-1].reward, foretold.reward)
        for step in steps:
            imagined = (starts.obs, step.action, step.reward, step.next_obs)
            assert torch.equal(step.next_state, policy.step_state(starts.state, *imagined))
    without, with_hindsight = steps
    assert torch.equal(without.next_obs, with_hindsight.next_obs)
    assert not torch.equal(without.reward, with_hindsight.reward)


def test_no_hindsight_in_full_rollouts() -> None:
    found = {}
    for length in (1, "full"):
        for hindsight in (False, True):
            env = gym.make(ENV, max_episode_steps=25)
            model = tiny(env, hindsight=hindsight, rollout_length=length).learn(60)
            torch.manual_seed(0)
            found[length, hindsight] = model.imagined.sample(200).reward
    assert torch.equal(found["full", False], found["full", True])
    assert not torch.equal(found[1, False], found[1, True])


def test_rollouts_grow_along_a_ramp() -> None:
    model = tiny(rollout_length=(0.05, 0.1, 1, 4), rollout_every=20).learn(59)
    assert len(model.imagined) == 20 * model.rollouts_per_step  # 50 steps: still k = 1
    model.learn(60, reset_num_timesteps=False)
    # Refilled after the fit at 100 steps, with rollouts of 4 steps.
    assert model._length_ramp.at(model.num_timesteps) == 4
    assert len(model.imagined) == 20 * model.rollouts_per_step * 4


def test_full_rollouts_start_where_episodes_do_and_last_as_long() -> None:
    env = gym.make(ENV, max_episode_steps=25)
    model = tiny(env, rollout_length="full", rollout_every=50, rollout_trust=0.5).learn(60)
    n = 50 * model.rollouts_per_step // 25
    assert len(model.imagined) == n * 25
    assert model.imagined._data is not None
    data = model.imagined._data.features[:n]
    assert not data[:, model.policy.meta_model.obs_dim :].any()  # empty histories
    first = model.replay_buffer.sample_first(200).obs
    assert len(torch.unique(first, dim=0)) == 3  # 60 steps: three episodes begun


def test_the_real_share_follows_its_ramp() -> None:
    model = tiny(real_ratio=(0.05, 0.1, 0.0, 1.0), batch_size=40).learn(60)
    real = model.policy.meta_model.features(
        model.replay_buffer.all.next_obs, model.replay_buffer.all.next_state
    )
    shares = []
    for model.num_timesteps in (50, 75, 100):
        led = model._policy_batches(1)[0].next_features
        shares.append(int(((led[:, None] - real[None]).abs().amax(-1).amin(1) < 1e-6).sum()))
    assert shares == [0, 20, 40]


def test_env_without_a_termination_function_gets_a_learnt_one() -> None:
    assert tiny().policy.meta_model.termination is None
    assert tiny("Pendulum-v1").policy.meta_model.termination is not None


def test_learning_anew_in_the_middle_of_an_episode() -> None:
    """SB3 resets env and step count then: memory begins anew, and the model is fitted again."""
    model = tiny(learning_starts=50, model_fit_every=50).learn(130)
    before = model.policy.meta_model.encoder.state_dict()  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in before.items()}
    model.learn(80)
    assert model.num_timesteps == 80
    sequences = model.replay_buffer.all.sequence
    assert [int((sequences == i).sum()) for i in range(3)] == [100, 30, 80]
    assert not model.replay_buffer.all.state[130].any()
    after = model.policy.meta_model.encoder.state_dict()  # type: ignore[union-attr]
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="VecNormalize is not supported"):
        tiny(VecNormalize(DummyVecEnv([lambda: gym.make(ENV)])))
    with pytest.raises(ValueError, match="flat Box"):
        tiny("CartPole-v1")
    with pytest.raises(ValueError, match="ent_coef='car'"):
        tiny(ent_coef="car")
    with pytest.raises(ValueError, match="rollout_length=0: expected at least 1"):
        tiny(rollout_length=0)
    with pytest.raises(ValueError, match=r"rollout_trust=1\.5"):
        tiny(rollout_trust=1.5)
    with pytest.raises(ValueError, match=r"start_recency=0\.0: expected a positive number"):
        tiny(start_recency=0.0)
    with pytest.raises(ValueError, match=r"real_ratio=1\.5"):
        tiny(real_ratio=1.5)
    with pytest.raises(ValueError, match=r"rollout_length='ful': expected a number or"):
        tiny(rollout_length="ful")
    with pytest.raises(ValueError, match="expected 0 <= start_epoch < end_epoch"):
        tiny(real_ratio=(5, 2, 0.0, 1.0))
    with pytest.raises(ValueError, match="device='cuda'"):
        tiny(device="cuda")
    for wrong in ({"gamma": 1.5}, {"gamma": "high"}, {"tau": -1.0}, {"tau": 2.0}):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}={value!r}: expected a share from 0 to 1"):
            tiny(**wrong)
    with pytest.raises(ValueError, match=r"batch_size=32\.0: expected at least 1, whole"):
        tiny(batch_size=32.0)
    with pytest.raises(ValueError, match="gradient_steps=-1: expected at least 0"):
        tiny(gradient_steps=-1)
    with pytest.raises(
        ValueError, match="buffer_size=59 in 2 envs: expected room for learning_sta"
    ):
        tiny(DummyVecEnv([lambda: gym.make(ENV)] * 2), buffer_size=59, learning_starts=59)
    model = tiny()
    with pytest.raises(ValueError, match="PreviousActionReward"):
        model.predict(np.zeros((1, 3)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: gym.wrappers.TransformReward(env, lambda reward: 10.0 * float(reward)),
        lambda env: gym.wrappers.RescaleAction(env, np.float32(-2.0), np.float32(2.0)),
    ],
)
def test_refuses_wrappers_that_falsify_what_is_remembered(wrap: Any) -> None:
    with pytest.raises(ValueError, match="go inside PreviousActionReward"):
        tiny(wrap(gym.make(ENV))).learn(5)
    inside = PreviousActionReward(wrap(gym.make(ENV).unwrapped))
    assert tiny(inside).learn(5).num_timesteps == 5


def test_an_env_may_call_a_flag_terminated() -> None:
    class Flagged(gym.Wrapper[Any, Any, Any, Any]):
        terminated = False

    assert tiny(Flagged(gym.make("Pendulum-v1"))).learn(60).num_timesteps == 60


def test_a_loaded_agent_follows_the_arguments_it_is_given(tmp_path: Path) -> None:
    tiny(rollout_length=3).learn(60).save(tmp_path / "model")
    changes: Any = {"rollout_length": 2, "real_ratio": 0.5, "hindsight": False}
    model = M3PO.load(tmp_path / "model", gym.make(ENV), **changes)
    found = model._length_ramp.at(0), model._real_ramp.at(0), model._sees_later
    assert found == (2, 0.5, False)
    with pytest.raises(ValueError, match="rollout_length=-7"):
        M3PO.load(tmp_path / "model", rollout_length=-7)
    # The same spaces, but the meta-model has not learnt when episodes end.
    plain = gym.make("Pendulum-v1")
    plain = gym.wrappers.TransformAction(plain, lambda a: 2 * a, gym.make(ENV).action_space)
    plain = gym.wrappers.TransformObservation(
        plain, lambda o: o, gym.make(ENV).unwrapped.observation_space
    )
    with pytest.raises(ValueError, match="has no terminated"):
        M3PO.load(tmp_path / "model", plain).learn(5)


@pytest.mark.parametrize("gradient_steps", [1, 2])
def test_actor_and_critics_are_logged(gradient_steps: int) -> None:
    model = tiny(gradient_steps=gradient_steps, actor_every=2).learn(250, log_interval=None)
    found = model.logger.name_to_value
    assert {"train/critic_loss", "train/actor_loss", "train/entropy"} <= set(found)


def test_a_learning_rate_schedule_is_followed() -> None:
    model = tiny(learning_rate=lambda left: 1e-3 * left).learn(100)
    rate = model.soft_actor_critic.optimizers[0].param_groups[0]["lr"]
    assert 0.0 <= rate < 2e-5
    sent = pickle.loads(pickle.dumps(model.policy))  # as to another process; lambdas cannot be
    obs = np.zeros((1, 6), np.float32)
    here, there = (p.predict(obs, deterministic=True)[0] for p in (model.policy, sent))
    np.testing.assert_array_equal(here, there)


STARTS_IN_ONE_DIRECTION = pytest.mark.xfail(
    strict=True,
    reason="its first five episodes share a direction; the other is then hardly explored "
    "(docs/m3po_findings.md, An unlucky start)",
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [pytest.param(0, marks=STARTS_IN_ONE_DIRECTION), 1])
def test_learns_to_find_the_direction(seed: int) -> None:
    """Standing still, the best without memory, gives 0; so does any memoryless agent."""
    env = gym.make(ENV, schedule="episodic")
    model = make_agent("M3PO", env, preset="quick", seed=seed).learn(3000)
    test = gym.make(ENV, schedule="episodic", split="test")
    returns = []
    for episode in range(10):
        obs, _ = test.reset(options={"episode": episode})
        state, start, total, done = None, np.ones(1, bool), 0.0, False
        while not done:
            action, state = model.predict(obs[None], state, start, deterministic=True)
            start = np.zeros(1, bool)
            obs, reward, _, done, _ = test.step(action[0])
            total += float(reward)
        returns.append(total)
    assert np.mean(returns) > 40.0
    assert min(returns) > 0.0
