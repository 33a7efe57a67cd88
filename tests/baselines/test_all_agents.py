"""What every agent of the package leaves as it was."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from m3po_bench import agent_names, make_agent
from m3po_bench.registry import agent_spec
from m3po_bench.wrappers import PreviousActionReward, TrialWrapper
from m3po_envs.non_stationary import NonStationary

ENV = "M3PO/PointFwdBwd-v0"
NAMES = [n for n in agent_names() if not agent_spec(n).entry_point.startswith("m3po_bench.")]


class FailAt(BaseCallback):
    """Fails at an env step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise RuntimeError("no luck")
        return True


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ["MAML", "ProMP", "RL2", "PEARL"])
def test_who_chooses_tasks_gives_the_env_back(name: str, fails: bool) -> None:
    """In the middle of an episode, and of a trial."""
    env = gym.make(ENV, schedule={"name": "hazard", "rate": 0.2}, max_episode_steps=20)
    model = make_agent(name, env, preset="tiny", seed=0)
    if fails:
        with pytest.raises(RuntimeError, match="no luck"):
            model.learn(60, callback=FailAt(25))
    else:
        model.learn(30)
    assert env.get_wrapper_attr("schedule").name == "hazard"
    tasks = set()
    for _ in range(20):
        env.reset()
        tasks.add(env.get_wrapper_attr("first_task").params)
    assert tasks == {(-1.0,), (1.0,)}


@pytest.mark.parametrize("name", ["PEARL", "GrBAL", "RL2", "SAC-PrevReward"])
def test_a_trial_without_history_columns_is_refused(name: str) -> None:
    """Added outside of it, they would not show where its inner episodes begin."""
    hopper = NonStationary(gym.make("Hopper-v5", max_episode_steps=20), {"body_mass": [0.5, 2.0]})
    with pytest.raises(ValueError, match=r"use TrialWrapper\(PreviousActionReward\(env\)\)"):
        make_agent(name, TrialWrapper(hopper, 3), preset="tiny")
    with pytest.raises(ValueError, match="its inner episodes would begin unseen"):
        PreviousActionReward(TrialWrapper(hopper, 3))
    make_agent(name, TrialWrapper(PreviousActionReward(hopper), 3), preset="tiny")


def generators() -> list[int]:
    """The states of the global generators."""
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return [*torch.get_rng_state().tolist(), *state["key"].tolist(), state["pos"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_deterministic_prediction_draws_from_no_global_generator(name: str) -> None:
    env = gym.make(ENV, **dict(agent_spec(name).env_kwargs))
    model = make_agent(name, env, preset="tiny", seed=0).learn(60)
    obs, _ = env.reset(seed=0)
    state: Any = None
    before = generators()
    for step in range(12):
        action, state = model.predict(obs, state, np.array([step == 0]), deterministic=True)
        obs, *_ = env.step(action)
    assert generators() == before
