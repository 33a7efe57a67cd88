"""The contract of every registered agent, in its tiny preset; registering one tests it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from m3po_bench import agent_names, make_agent
from m3po_bench.common.checkpoints import ExactCheckpoint
from m3po_bench.registry import PRESETS, agent_spec

ENV = "M3PO/PointFwdBwd-v0"
LEARNERS = [name for name in agent_names() if name != "Random"]


def env_kwargs(name: str) -> dict[str, Any]:
    return dict(agent_spec(name).env_kwargs)


def make(name: str, seed: int = 0, env: Any = ENV, **kwargs: Any) -> Any:
    if isinstance(env, str):
        env = gym.make(env, **env_kwargs(name))
    return make_agent(name, env, preset="tiny", seed=seed, **kwargs)


def rollout(model: Any, name: str, n_steps: int = 40, seed: int = 5) -> list[np.ndarray]:
    """Deterministic actions along an episode, with the agent's own memory."""
    env = gym.make(ENV, **env_kwargs(name))
    obs, _ = env.reset(seed=seed)
    state, start, actions = None, np.ones(1, bool), []
    for _ in range(n_steps):
        action, state = model.predict(obs[None], state, episode_start=start, deterministic=True)
        start = np.zeros(1, bool)
        actions.append(action[0])
        obs, *_ = env.step(action[0])
    return actions


def parameters(model: Any) -> torch.Tensor:
    values = [p.detach().flatten() for p in model.policy.parameters()]
    return torch.cat([torch.zeros(1), *values])


@pytest.mark.parametrize("name", agent_names())
def test_has_the_face_of_sb3_and_every_preset(name: str) -> None:
    assert issubclass(agent_spec(name).load_class(), BaseAlgorithm)
    for preset in PRESETS:
        assert isinstance(agent_spec(name).kwargs(preset), dict)


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_something_within_200_steps(name: str) -> None:
    model = make(name)
    before, acts_before = parameters(model), rollout(model, name)
    model.learn(200)
    assert model.num_timesteps == 200
    assert model._n_updates >= 2
    assert not torch.equal(before, parameters(model))
    assert not np.allclose(acts_before, rollout(model, name))
    assert torch.isfinite(parameters(model)).all()


@pytest.mark.parametrize("name", agent_names())
def test_same_seed_same_numbers(name: str) -> None:
    first, second, other = (rollout(make(name, seed=seed).learn(120), name) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("name", agent_names())
def test_a_saved_agent_predicts_the_same(name: str, tmp_path: Path) -> None:
    model = make(name).learn(120)
    model.save(tmp_path / "agent")
    for env in (None, gym.make(ENV, **env_kwargs(name))):
        loaded = type(model).load(tmp_path / "agent", env=env)
        np.testing.assert_array_equal(rollout(model, name), rollout(loaded, name))
    before = parameters(loaded)
    loaded.learn(150, reset_num_timesteps=False)  # goes on with an env
    assert loaded.num_timesteps == 270
    if name in LEARNERS:
        assert not torch.equal(before, parameters(loaded))


@pytest.mark.parametrize("name", agent_names())
def test_a_policy_saved_without_its_agent_predicts_the_same(name: str, tmp_path: Path) -> None:
    if name == "RecurrentPPO":
        pytest.skip("sb3-contrib does not save the width of an LSTM")
    model = make(name).learn(120)
    expected = rollout(model, name)
    model.policy.save(tmp_path / "policy.pt")
    model.policy = type(model.policy).load(tmp_path / "policy.pt")
    np.testing.assert_array_equal(expected, rollout(model, name))


@pytest.mark.parametrize("name", agent_names())
def test_memory_starts_anew_with_an_episode(name: str) -> None:
    model = make(name).learn(60)
    env = gym.make(ENV, **env_kwargs(name))
    obs, _ = env.reset(seed=0)
    fresh, _ = model.predict(obs[None], None, np.ones(1, bool), deterministic=True)
    state, start, now = None, np.ones(1, bool), obs
    for _ in range(5):
        action, state = model.predict(now[None], state, episode_start=start, deterministic=True)
        start = np.zeros(1, bool)
        now, *_ = env.step(action[0])
    again, _ = model.predict(obs[None], state, np.ones(1, bool), deterministic=True)
    np.testing.assert_allclose(fresh, again, rtol=1e-6)


@pytest.mark.parametrize("name", agent_names())
def test_predicts_in_batches_as_one_by_one(name: str) -> None:
    model = make(name).learn(60)
    obs = np.stack([gym.make(ENV, **env_kwargs(name)).reset(seed=seed)[0] for seed in range(3)])
    together, _ = model.predict(obs, None, np.ones(3, bool), deterministic=True)
    for row, action in zip(obs, together, strict=True):
        alone, _ = model.predict(row, None, np.ones(1, bool), deterministic=True)
        assert alone.shape == model.action_space.shape
        np.testing.assert_allclose(alone, action, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", agent_names())
def test_callbacks_see_every_step_and_can_stop(name: str) -> None:
    class StopAt(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 33

    assert make(name).learn(200, callback=StopAt()).num_timesteps == 33
    stop, model = StopTrainingOnMaxEpisodes(max_episodes=1), make(name)
    episode = 100 * getattr(model, "n_episodes", 1)  # of an agent of trials: a trial
    assert model.learn(350, callback=stop).num_timesteps == episode


@pytest.mark.parametrize("name", agent_names())
def test_learn_shorter_than_one_iteration(name: str) -> None:
    model = make(name).learn(1)
    # SB3's on-policy algorithms take whole rollouts.
    whole = model.n_steps if isinstance(model, OnPolicyAlgorithm) else 1
    assert model.num_timesteps == whole


@pytest.mark.parametrize("name", agent_names())
def test_two_parallel_envs(name: str) -> None:
    venv = make_vec_env(ENV, n_envs=2, env_kwargs=env_kwargs(name))
    model = make(name, env=venv).learn(200)
    assert model.num_timesteps == 200
    mean, _ = evaluate_policy(model, venv, n_eval_episodes=2)
    assert np.isfinite(mean)


@pytest.mark.parametrize("name", agent_names())
def test_what_is_resumed_equals_what_went_on(name: str, tmp_path: Path) -> None:
    """Where an agent declares it; the others refuse the callback by name."""
    callback = ExactCheckpoint(tmp_path / "at.pt", every=150)  # episodes end at 100, 200, 300
    model = make(name)
    if not getattr(model, "exact_resume", False):
        with pytest.raises(ValueError, match="cannot be resumed exactly"):
            model.learn(10, callback=callback)
        return
    model.learn(330, callback=callback)
    resumed = make(name).resume(tmp_path / "at.pt")
    assert resumed.num_timesteps == 200
    resumed.learn(130, reset_num_timesteps=False)
    assert resumed.num_timesteps == model.num_timesteps == 330
    assert torch.equal(parameters(resumed), parameters(model))
    untouched = make(name).learn(330)
    assert not torch.equal(parameters(untouched), parameters(model))  # a new seed at 200


@pytest.mark.parametrize("name", agent_names())
def test_sb3s_checkpoints_keep_the_replay_buffer_of_those_that_have_one(
    name: str, tmp_path: Path
) -> None:
    model = make(name)
    model.learn(100, callback=CheckpointCallback(100, str(tmp_path), save_replay_buffer=True))
    kept = tmp_path / "rl_model_replay_buffer_100_steps.pkl"
    assert kept.exists() == hasattr(model, "replay_buffer")
    if kept.exists():
        env = gym.make(ENV, **env_kwargs(name))
        loaded = type(model).load(tmp_path / "rl_model_100_steps", env=env)
        loaded.load_replay_buffer(kept)
        n_updates = loaded._n_updates
        assert loaded.learn(100, reset_num_timesteps=False).num_timesteps == 200
        assert loaded._n_updates > n_updates


@pytest.mark.parametrize("name", LEARNERS)
def test_writes_sb3_log_keys(name: str) -> None:
    seen: set[str] = set()

    class Keys(BaseCallback):
        def _on_step(self) -> bool:
            seen.update(self.logger.name_to_value)
            return True

    make(name).learn(200, callback=Keys(), log_interval=None)
    assert "train/n_updates" in seen
    assert any(key.startswith("train/") and "loss" in key for key in seen)


@pytest.mark.parametrize("name", LEARNERS)
def test_callbacks_hear_of_rollouts(name: str) -> None:
    heard: list[str] = []

    class Rollouts(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            heard.append("start")

        def _on_rollout_end(self) -> None:
            heard.append("end")

    make(name).learn(60, callback=Rollouts())
    assert heard
    assert heard == ["start", "end"] * (len(heard) // 2)


@pytest.mark.parametrize("name", agent_names())
def test_eval_callback_and_progress_bar(name: str, tmp_path: Path) -> None:
    eval_env = DummyVecEnv([lambda: Monitor(gym.make(ENV, **env_kwargs(name)))])
    callback = EvalCallback(
        eval_env, eval_freq=60, n_eval_episodes=1, best_model_save_path=str(tmp_path), verbose=0
    )
    make(name).learn(120, callback=callback, progress_bar=True)
    assert (tmp_path / "best_model.zip").exists()


@pytest.mark.parametrize("name", agent_names())
def test_set_env_accepts_the_same_kind_and_refuses_others(name: str) -> None:
    model = make(name).learn(60)
    model.set_env(gym.make(ENV, **env_kwargs(name)))
    model.learn(20, reset_num_timesteps=False)
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(gym.make("Pendulum-v1"))
