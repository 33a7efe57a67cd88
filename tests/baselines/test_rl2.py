"""RL2: what its trials are, where its memory ends, that it learns within a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from m3po_baselines import RL2
from m3po_bench import make_agent
from m3po_bench.wrappers import TrialWrapper, layout_of

ENV = "M3PO/PointFwdBwd-v0"


def short(**kwargs: Any) -> gym.Env[Any, Any]:
    """Episodes of 10 steps."""
    return gym.make(ENV, max_episode_steps=10, schedule="episodic", **kwargs)


def tiny(env: Any = None, **kwargs: Any) -> RL2:
    made = short() if env is None else env
    model: RL2 = make_agent("RL2", made, preset="tiny", seed=0, **kwargs)
    return model


class Recorded(BaseCallback):
    """Keeps what the training envs show before each step and report after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[np.ndarray] = []
        self.starts: list[np.ndarray] = []
        self.tasks: list[float] = []

    def _on_step(self) -> bool:
        model = self.model
        assert isinstance(model, RL2)
        obs, starts = model._last_obs, model._last_episode_starts
        assert isinstance(obs, np.ndarray)
        assert starts is not None
        self.first.append(obs[0, -1])
        self.starts.append(starts[0])
        self.tasks.append(float(self.locals["infos"][0]["task"][0]))
        return True


def test_memory_is_reset_where_a_trial_starts_and_nowhere_else() -> None:
    model, seen = tiny(n_steps=40, n_episodes=2), Recorded()
    model.learn(240, callback=seen)
    assert np.flatnonzero(seen.first).tolist() == list(range(0, 240, 10))
    assert np.flatnonzero(seen.starts).tolist() == list(range(0, 240, 20))
    # What PPO learns from, and so where its LSTM states begin anew in training.
    assert np.flatnonzero(model.rollout_buffer.episode_starts.reshape(-1)).tolist() == [0, 20]
    inner = np.array(seen.tasks).reshape(12, 2, 10)[:, :, :9]  # the last shows the next task
    assert (inner == inner[:, :1, :1]).all()
    assert len(set(inner[:, 0, 0])) == 2


def test_a_trial_is_an_episode_of_sb3() -> None:
    model = tiny(n_episodes=3).learn(60)
    assert model.ep_info_buffer is not None
    assert [info["l"] for info in model.ep_info_buffer] == [30, 30]


def test_one_env_is_copied_into_trials_and_keeps_them(tmp_path: Path) -> None:
    model = tiny(n_envs=3, n_episodes=4).learn(30)
    assert model.n_envs == 3
    model.set_env(short())
    assert model.n_envs == 3
    model.save(tmp_path / "agent")
    loaded = RL2.load(tmp_path / "agent", env=short())
    for agent in (model, loaded):
        agent.learn(30, reset_num_timesteps=False)
        assert agent.env is not None
        assert all(agent.env.env_is_wrapped(TrialWrapper))
        assert agent.env.env_method("get_wrapper_attr", "n_episodes") == [4] * agent.n_envs


def test_an_env_in_trials_is_not_wrapped_again() -> None:
    model = tiny(TrialWrapper(short(), 5), n_episodes=2).learn(40)
    assert model.ep_info_buffer is not None
    assert [info["l"] for info in model.ep_info_buffer] == [20, 20]
    venv = make_vec_env(ENV, n_envs=2, wrapper_class=TrialWrapper)
    assert tiny(venv).learn(20).env is venv


def test_columns_of_memory_are_added_inside_the_trial() -> None:
    model = tiny(gym.make("Pendulum-v1"))
    assert layout_of(model.env).has_history
    with pytest.raises(ValueError, match="has no 'first_task'"):
        model.learn(10)


def test_a_vec_env_without_trials_is_named() -> None:
    model = tiny(DummyVecEnv([short]))
    with pytest.warns(UserWarning, match="every trial is one episode"):
        model.learn(10)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="n_episodes=0: expected at least 1"):
        tiny(n_episodes=0)
    with pytest.raises(ValueError, match="n_envs=0: expected at least 1"):
        tiny(n_envs=0)


@pytest.mark.slow
def test_returns_rise_within_a_trial(trial_returns: Callable[[Any], tuple[float, float]]) -> None:
    """The first episode pays for finding the direction out, the second does not."""
    env = gym.make(ENV, schedule="episodic")
    model = make_agent("RL2", env, preset="lite", seed=0).learn(160_000)
    first, second = trial_returns(model)
    assert second > 50.0  # the oracle earns 91
    assert second > first + 5.0
