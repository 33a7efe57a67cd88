"""What is resumed equals what went on, also where an agent forces tasks or plays several envs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env
from torch.testing import assert_close

from m3po_baselines.pearl.pearl import PEARL
from m3po_bench import agent_names, make_agent
from m3po_bench.common.checkpoints import ExactCheckpoint
from m3po_bench.registry import agent_spec

RESUMED = [
    name for name in agent_names() if getattr(agent_spec(name).load_class(), "exact_resume", False)
]


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("name", RESUMED)
def test_where_a_task_is_kept(name: str, n_envs: int, tmp_path: Path) -> None:
    """An agent that forces tasks has to leave no trace of them in the env."""

    def made() -> Any:
        env_kwargs = {**agent_spec(name).env_kwargs, "schedule": "static", "max_episode_steps": 20}
        env = make_vec_env("M3PO/PointActuatorFault-v0", n_envs, env_kwargs=env_kwargs)
        return make_agent(name, env, preset="tiny", seed=3)

    whole = made()
    whole.learn(n_envs * 130, callback=ExactCheckpoint(tmp_path / "at.pt", every=n_envs * 70))
    resumed = made().resume(tmp_path / "at.pt")
    done = resumed.num_timesteps // n_envs
    assert done in (70, 80)  # MAML's tasks change after 50 steps, within a phase and a meta-batch
    resumed.learn(n_envs * (130 - done), reset_num_timesteps=False)
    assert resumed.num_timesteps == whole.num_timesteps == n_envs * 130
    assert_equal(resumed, whole)


def assert_equal(one: Any, other: Any) -> None:
    """So are networks, optimisers, replays and all else that training goes on from."""
    assert_close(one.get_parameters(), other.get_parameters(), rtol=0.0, atol=0.0)
    assert_close(one._training_state(), other._training_state(), rtol=0.0, atol=0.0)


class DrawsWhereForced(gym.Wrapper[Any, Any, Any, Any]):
    """Its generator tells whether a reset was one to a task that keeps to the end."""

    def reset(self, **kwargs: Any) -> Any:
        found = super().reset(**kwargs)
        if self.get_wrapper_attr("schedule").name == "static":
            self.unwrapped.np_random.random()
        return found


def test_pearl_is_resumed_within_an_iteration_and_a_segment(tmp_path: Path) -> None:
    def made() -> PEARL:
        settings = {
            "initial_steps": 20, "prior_steps": 60, "posterior_steps": 40, "tasks_per_iteration": 3,
            "updates_per_iteration": 2,
        }  # fmt: skip
        env = DrawsWhereForced(gym.make("M3PO/PendulumRandomParams-v0", max_episode_steps=20))
        agent = make_agent("PEARL", env, preset="tiny", seed=0, n_train_tasks=3, **settings)
        assert isinstance(agent, PEARL)
        return agent

    whole = made().learn(480, callback=ExactCheckpoint(tmp_path / "at.pt", every=400))
    resumed = made().resume(tmp_path / "at.pt")
    assert resumed.num_timesteps == 400
    assert resumed.plan.state_dict()["left"] > 0
    resumed.learn(80, reset_num_timesteps=False)
    assert resumed.plan.state_dict() == whole.plan.state_dict()
    assert_equal(resumed, whole)


def test_mamls_envs_are_in_the_tasks_of_the_running_meta_batch(tmp_path: Path) -> None:
    env = "M3PO/PendulumRandomParams-v0"
    callback = ExactCheckpoint(tmp_path / "at.pt", every=400)
    make_agent("MAML", env, preset="tiny", seed=0, n_envs=2).learn(510, callback=callback)
    resumed = make_agent("MAML", env, preset="tiny", seed=1, n_envs=2).resume(tmp_path / "at.pt")
    venv = resumed.get_env()
    assert venv is not None
    assert [task.params for task in venv.get_attr("task")] == [
        task.params for task in resumed._collection.tasks
    ]
    assert [schedule.name for schedule in venv.get_attr("schedule")] == ["episodic"] * 2


def test_the_page_names_every_agent_that_can_be_resumed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "m3po.md").read_text()
    said = page.partition("This works with ")[2].partition(";")[0]
    variants = {"M3PO", "M3PO-Oracle", "GrBAL-EnvReward"}  # the page's own, or of the same class
    assert set(said.replace(" and ", ", ").replace(" too", "").split(", ")) | variants == set(
        RESUMED
    )
