from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import m3po_bench  # noqa: F401 - registers the agents
from m3po_bench import make_agent
from m3po_bench.wrappers import PreviousActionReward, layout_of
from m3po_envs.base import VISIBILITIES
from m3po_envs.non_stationary import NonStationary

FIELDS: dict[str, Any] = {
    "body_mass": [0.5, 2.0],
    "dof_damping": {"scale": [0.5, 2.0], "log": True},
    "actuator_gear": {"scale": [0.8, 1.2], "entries": ["thigh_joint", "leg_joint"], "sign": True},
    "opt.gravity": {"add": [-2.0, 2.0], "entries": ["2"]},
}
BUSY = {"name": "hazard", "rate": 0.2}


def make(body: str = "Hopper-v5", fields: Any = FIELDS, **kwargs: Any) -> NonStationary:
    return NonStationary(gym.make(body, max_episode_steps=50), fields, **kwargs)


def rollout(env: gym.Env[Any, Any], n: int = 20, **reset: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    obs, info = env.reset(**reset)
    rows = [(obs, 0.0, info["task"])]
    for _ in range(n):
        obs, reward, terminated, truncated, info = env.step(
            rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        )
        rows.append((obs, float(reward), info["task"]))
        if terminated or truncated:
            break
    return rows


def same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b) and r == s and np.array_equal(t, u)
        for (a, r, t), (b, s, u) in zip(first, second, strict=True)
    )


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_the_flag_of_older_bodies_is_no_method_of_a_meta_env() -> None:
    env = make("Hopper-v4")
    assert isinstance(env.get_wrapper_attr("terminated"), bool)
    assert not PreviousActionReward(env).has_wrapper_attr("terminated")
    assert env.has_wrapper_attr("tasks")
    assert env.has_wrapper_attr("model")
    model: Any = make_agent("M3PO", env, preset="tiny", seed=0).learn(130)
    assert model.policy.meta_model.termination is not None  # learnt


def test_copies_change_their_physics_too() -> None:
    made = make(schedule=BUSY)
    played = rollout(made, seed=3)
    for env in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        body: Any = env.unwrapped
        model, task = body.model, env.task
        assert np.allclose(model.body_mass, made.unwrapped.model.body_mass)  # type: ignore[attr-defined]
        assert same(rollout(env, seed=3), played)
        assert env.task == task
        env.reset(options={"task": (1.5, 0.7, -1.1, 0.9, 1.0)})
        nominal = gym.make("Hopper-v5").unwrapped.model  # type: ignore[attr-defined]
        assert np.allclose(model.body_mass, 1.5 * nominal.body_mass)


def test_a_task_writes_its_values_into_the_model() -> None:
    env, plain = make(schedule="static"), gym.make("Hopper-v5").unwrapped
    nominal, model = plain.model, env.unwrapped.model  # type: ignore[attr-defined]
    env.reset(seed=0, options={"task": (1.5, 0.7, -1.1, 0.9, 1.0)})
    assert env.tasks.names == (
        "body_mass", "dof_damping", "actuator_gear:thigh_joint", "actuator_gear:leg_joint",
        "opt.gravity:2",
    )  # fmt: skip
    assert np.allclose(model.body_mass, 1.5 * nominal.body_mass)
    assert np.allclose(model.body_subtreemass, 1.5 * nominal.body_subtreemass)
    assert np.allclose(model.dof_damping, 0.7 * nominal.dof_damping)
    factors = np.array([-1.1, 0.9, 1.0])[:, None]
    assert np.allclose(model.actuator_gear, factors * nominal.actuator_gear)
    assert np.allclose(model.opt.gravity, [0.0, 0.0, -8.81])


def test_a_weight_of_the_reward_varies_beside_the_dynamics() -> None:
    fields = {
        "forward_reward_weight": {"scale": [0.5, 1.0], "sign": True},
        "body_mass": {"scale": [0.5, 2.0], "log": True},
    }
    parts = [
        {"params": ["forward_reward_weight"], "schedule": {"name": "periodic", "period": 7}},
        {"params": ["body_mass"], "schedule": {"name": "periodic", "period": 5}},
    ]
    env = make("HalfCheetah-v5", fields, schedule={"name": "compound", "parts": parts})
    nominal = gym.make("HalfCheetah-v5").unwrapped.model.body_mass.sum()  # type: ignore[attr-defined]
    _, info = env.reset(seed=0)
    changes = []
    for step in range(19):
        weight, mass = info["task"]
        assert env.unwrapped.model.body_mass.sum() == pytest.approx(mass * nominal)  # type: ignore[attr-defined]
        _, _, _, _, info = env.step(np.full(6, 0.3, np.float32))
        assert info["reward_forward"] == pytest.approx(weight * info["x_velocity"])
        if info["task_changed"]:
            changes.append((step + 1, info["task"][0] != weight, info["task"][1] != mass))
    assert changes == [
        (5, False, True), (7, True, False), (10, False, True), (14, True, False), (15, False, True)
    ]  # fmt: skip


def test_changes_leave_nothing_behind() -> None:
    used, fresh = make(schedule="static"), make(schedule="static")
    rng = np.random.default_rng(0)
    for _ in range(1000):
        used._enter(used.tasks.sample(rng))
    task = used.tasks.sample(rng).params
    rows = [rollout(env, seed=3, options={"task": task}) for env in (used, fresh)]
    assert same(*rows)
    model, other = used.unwrapped.model, fresh.unwrapped.model  # type: ignore[attr-defined]
    for name in dir(model):
        if isinstance(getattr(model, name), np.ndarray):
            assert np.array_equal(getattr(model, name), getattr(other, name), equal_nan=True), name


@pytest.mark.parametrize("body", ["Hopper-v5", "HalfCheetah-v5", "InvertedPendulum-v5"])
def test_equal_seeds_give_equal_episodes_with_changes(body: str) -> None:
    fields = {"body_mass": [0.5, 2.0]}
    first, second = (make(body, fields, schedule=BUSY) for _ in range(2))
    rollout(second, seed=1)
    assert same(rollout(first, seed=5), rollout(second, seed=5))
    assert first.changes
    assert [c.step for c in first.changes] == [c.step for c in second.changes]
    assert max(c.step for c in first.changes) < 50


def test_a_change_changes_what_follows() -> None:
    changing = make(schedule={"name": "single", "step": 5})
    changed = rollout(changing, 8, seed=0)
    stayed = rollout(make(schedule="static"), 8, seed=0, options={"task": changed[0][2]})
    assert same([row[:2] + (0,) for row in changed[:6]], [row[:2] + (0,) for row in stayed[:6]])
    assert not np.array_equal(changed[6][0], stayed[6][0])


def test_frozen_episodes_can_be_played_again() -> None:
    envs = [make(split="test", schedule=BUSY) for _ in range(2)]
    rows = [rollout(env, options={"episode": 7}) for env in envs]
    assert same(*rows)
    assert len(envs[0].episodes) == 40
    other = make(fields={"body_mass": [0.5, 1.9]}, split="test")
    assert other.episodes[0].change_seed != envs[0].episodes[0].change_seed


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_agents_learn_on_it(visibility: str) -> None:
    env = PreviousActionReward(make(schedule=BUSY, visibility=visibility))
    names = layout_of(env).names
    assert ("task" in names, "task_changed" in names) == (
        visibility == "oracle", visibility == "notified",
    )  # fmt: skip
    model = make_agent("M3PO", env, preset="tiny", seed=0).learn(120)
    assert not model.termination_from_env  # it is not known here: learnt
    assert model._n_updates > 0


def test_specs_survive_json() -> None:
    env = make(schedule=BUSY)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert same(rollout(env, seed=2), rollout(again, seed=2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "fields is empty"),
        ({"body_mas": [1, 2]}, "unknown field of MjModel 'body_mas'; nearest: body_mass"),
        ({"forward_reward_wieght": [1, 2]}, "nearest: forward_reward_weight"),
        ({"body_mass": [-1, 2]}, "'body_mass': a range from -1.0 makes values below 0"),
        ({"dof_damping": {"add": [-9, 2]}}, "'dof_damping': a range from -9.0 makes values below"),
        ({"opt.gravty": [1, 2]}, "unknown field of MjModel 'opt.gravty'; nearest: opt.gravity"),
        (
            {"healthy_reward": {"scale": [1, 2], "entries": ["x"]}},
            "field 'healthy_reward' is one number, without entries such as 'x'",
        ),
        ({"body_mass": [2, 1]}, "field 'body_mass': expected a range [low, high] with low < high"),
        ({"body_mass": [1, 1]}, "with low < high, got [1, 1]"),
        ({"body_mass": 2}, "with low < high, got 2"),
        ({"body_mass": {"scale": [1, 2], "entries": []}}, "entries=[], expected names or 'each'"),
        ({"body_mass": {"scael": [1, 2]}}, "unknown option of field 'body_mass' 'scael'; nearest"),
        ({"body_mass": {"log": True}}, "expected either 'scale' or 'add'"),
        ({"body_mass": {"add": [-1, 1], "log": True}}, "need a range above 0"),
        (
            {"body_mass": {"scale": [1, 2], "entries": ["tors"]}},
            "unknown entry of field 'body_mass' 'tors'; nearest: torso",
        ),
        ({"opt.wind": [1, 2]}, "is 0 in this env, and scaled stays so; use 'add'"),
        ({"opt.wind": {"add": [0, 2]}}, "no effect in a vacuum"),
    ],
)
def test_what_is_wrong_with_fields_is_said(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(fields=fields)


def test_other_envs_are_refused() -> None:
    with pytest.raises(ValueError, match="expected an env on MuJoCo"):
        NonStationary(gym.make("Pendulum-v1"), FIELDS)
