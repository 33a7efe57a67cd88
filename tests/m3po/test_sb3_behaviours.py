"""What SB3's own tests ask of its algorithms, asked of M3PO.

Its contract with all agents has the rest (``tests/test_contracts_agents.py``): equal seeds, saving
and loading, batches, logs, callbacks that stop, and memory.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
)

from m3po_bench import M3PO, make_agent

ENV = "M3PO/PointFwdBwd-v0"


def tiny(env: Any = ENV, seed: int = 0, **kwargs: Any) -> M3PO:
    env = gym.make(env) if isinstance(env, str) else env
    model: M3PO = make_agent("M3PO", env, preset="tiny", seed=seed, **kwargs)
    return model


@pytest.fixture(scope="module")
def model() -> M3PO:
    return tiny().learn(120)


def action(model: M3PO) -> np.ndarray:
    obs, _ = gym.make(ENV).reset(seed=0)
    return np.asarray(model.predict(obs, deterministic=True)[0])


def test_parameters_are_taken_over_from_an_agent_or_a_file(model: M3PO, tmp_path: Path) -> None:
    model.save(tmp_path / "agent")
    sources: list[Any] = [model.get_parameters(), str(tmp_path / "agent.zip")]
    for source in sources:
        other = tiny(seed=1)
        assert not np.array_equal(action(other), action(model))
        other.set_parameters(source)
        np.testing.assert_array_equal(action(other), action(model))
        other.learn(60)
        assert not np.array_equal(action(other), action(model))
    some: dict[str, Any] = {"policy": model.policy.state_dict()}
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters(some)
    other.set_parameters(some, exact_match=False)
    np.testing.assert_array_equal(action(other), action(model))


def test_agents_go_through_open_files(model: M3PO, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    model.save(buffer)
    buffer.seek(0)
    np.testing.assert_array_equal(action(M3PO.load(buffer)), action(model))
    with (tmp_path / "agent.zip").open("wb") as file:
        model.save(file)
    with (tmp_path / "agent.zip").open("rb") as file:
        loaded = M3PO.load(file, env=gym.make(ENV))
    assert loaded.learn(30, reset_num_timesteps=False).num_timesteps == 150


def test_replay_buffers_go_through_open_files(model: M3PO, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    model.save_replay_buffer(buffer)
    model.save_replay_buffer(str(tmp_path / "new folder" / "data"))
    buffer.seek(0)
    for source in (buffer, tmp_path / "new folder" / "data"):
        other = tiny()
        other.load_replay_buffer(source)
        assert torch.equal(other.replay_buffer.all.obs, model.replay_buffer.all.obs)


def test_a_saved_buffer_is_not_joined_to_a_running_episode(tmp_path: Path) -> None:
    tiny().learn(30).save_replay_buffer(tmp_path / "data")
    model = tiny().learn(45)
    model.load_replay_buffer(tmp_path / "data")
    model.learn(20, reset_num_timesteps=False)
    last = model.replay_buffer.all
    assert last.sequence.tolist() == [0] * 30 + [1] * 20


def test_what_is_saved_and_loaded_can_be_chosen(model: M3PO, tmp_path: Path) -> None:
    other = tiny(gamma=0.4)
    other.save(tmp_path / "agent", exclude=["gamma"])
    assert M3PO.load(tmp_path / "agent", device="cpu").gamma == M3PO("MlpPolicy", ENV).gamma
    other.save(tmp_path / "agent", exclude=["gamma"], include=["gamma"])
    assert M3PO.load(tmp_path / "agent").gamma == 0.4
    model.save(tmp_path / "agent")
    loaded = M3PO.load(tmp_path / "agent", custom_objects={"gamma": 0.5})
    assert (loaded.gamma, loaded.soft_actor_critic.gamma) == (0.5, 0.5)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        M3PO.load(tmp_path / "agent", env=gym.make("M3PO/PendulumRandomParams-v0"))


def test_a_policy_may_be_a_class(model: M3PO) -> None:
    other = M3PO(type(model.policy), gym.make(ENV), seed=0, stats_window_size=7).learn(10)
    assert type(other.policy) is type(model.policy)
    assert other._stats_window_size == 7
    with pytest.raises(ValueError, match="CnnPolicy"):
        M3PO("CnnPolicy", gym.make(ENV))


def test_sb3s_callbacks_and_evaluation(tmp_path: Path) -> None:
    seen = EvalCallback(
        Monitor(gym.make(ENV)), n_eval_episodes=2, eval_freq=60, log_path=str(tmp_path),
        best_model_save_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    kept = CheckpointCallback(60, str(tmp_path), save_replay_buffer=True)
    model = tiny().learn(130, callback=[seen, kept], progress_bar=False)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 2)
    best = M3PO.load(tmp_path / "best_model")
    mean, _ = evaluate_policy(best, Monitor(gym.make(ENV)), n_eval_episodes=2)
    assert np.isfinite(mean)
    saved = M3PO.load(tmp_path / "rl_model_120_steps", env=gym.make(ENV))
    saved.load_replay_buffer(tmp_path / "rl_model_replay_buffer_120_steps.pkl")
    assert len(saved.replay_buffer) == 120
    for name in ("obs", "action", "reward", "next_obs", "sequence"):
        mine = getattr(model.replay_buffer.all, name)[:120]
        assert torch.equal(getattr(saved.replay_buffer.all, name), mine), name
    n = saved._n_updates
    saved.learn(20, reset_num_timesteps=False)
    assert (saved.num_timesteps, len(saved.replay_buffer)) == (140, 140)
    assert saved._n_updates == n + 20  # it learns at once, without new random steps
    assert int(saved.replay_buffer.all.sequence[120]) == 2  # after episodes 0 and 1
    with pytest.raises(ValueError, match=r"obs of shape \(1, 3\), expected \(1, 17\)"):
        tiny("M3PO/HalfCheetahFwdBwd-v0").load_replay_buffer(
            tmp_path / "rl_model_replay_buffer_120_steps.pkl"
        )


def test_callbacks_of_callbacks(tmp_path: Path) -> None:
    every = EveryNTimesteps(50, CheckpointCallback(1, str(tmp_path)))
    tiny().learn(110, callback=[every])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "rl_model_100_steps.zip", "rl_model_50_steps.zip",
    ]  # fmt: skip
    heard = []

    def hear(local: dict[str, Any], _: dict[str, Any]) -> bool:
        heard.append("self" in local)
        return len(heard) < 5

    assert tiny().learn(50, callback=hear).num_timesteps == 5
    assert heard == [True] * 5


def test_learning_stops_by_what_evaluations_find() -> None:
    def judged(**after: Any) -> EvalCallback:
        return EvalCallback(
            Monitor(gym.make(ENV)), eval_freq=40, n_eval_episodes=1, verbose=0, **after
        )

    threshold = judged(callback_on_new_best=StopTrainingOnRewardThreshold(-1e9, verbose=0))
    assert tiny().learn(300, callback=threshold).num_timesteps == 40
    patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    stopped = tiny(learning_starts=1000).learn(400, callback=judged(callback_after_eval=patience))
    assert stopped.num_timesteps in range(80, 400, 40)  # who learns nothing is not better for long


def test_logs_go_where_sb3_sends_them(tmp_path: Path) -> None:
    model = tiny(tensorboard_log=str(tmp_path / "board"))
    for reset in (True, False, True):
        model.learn(30, tb_log_name="run", reset_num_timesteps=reset)
    assert sorted(p.name for p in (tmp_path / "board").iterdir()) == ["run_1", "run_2"]
    model = tiny()
    model.set_logger(configure(str(tmp_path / "log"), ["csv"]))
    model.learn(300, log_interval=1)
    rows = pd.read_csv(tmp_path / "log" / "progress.csv")
    assert rows["time/total_timesteps"].tolist() == [100, 200, 300]
    assert rows["train/critic_loss"].iloc[1:].notna().all()


def test_wrappers_of_vectorised_envs(model: M3PO) -> None:
    copies = DummyVecEnv([lambda: gym.make(ENV)] * 2)
    assert tiny(VecMonitor(copies)).learn(100).num_timesteps == 100
    assert tiny(VecCheckNan(copies)).learn(100).num_timesteps == 100
    with pytest.raises(ValueError, match="go inside PreviousActionReward"):
        tiny(VecFrameStack(copies, 2))


def test_subprocess_envs() -> None:
    venv = SubprocVecEnv([lambda: gym.make(f"m3po_bench:{ENV}")] * 2)
    assert tiny(venv).learn(120).num_timesteps == 120
    venv.close()


def test_predict_says_what_it_wants(model: M3PO) -> None:
    with pytest.raises(ValueError, match=r"a tuple, expected an array: env\.reset\(\) returns"):
        model.predict(gym.make(ENV).reset(seed=0))  # type: ignore[arg-type]  # a common mistake
    with pytest.raises(ValueError, match="an observation of 5 columns, expected 6"):
        model.predict(np.zeros(5))
