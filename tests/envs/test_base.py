from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.base import MetaEnvBase
from m3po_envs.pendulum import PendulumRandomParamsEnv
from m3po_envs.point import PointFwdBwdEnv

FORWARD, BACKWARD = (1.0,), (-1.0,)
STILL = np.zeros(1, dtype=np.float32)


def first_tasks(env: MetaEnvBase, n: int = 12, **reset: Any) -> list[tuple[float, ...]]:
    found = []
    for _ in range(n):
        env.reset(**reset)
        found.append(env.first_task.params)
    return found


def test_a_change_is_told_by_the_step_before_its_first_transition() -> None:
    env = PointFwdBwdEnv(schedule={"name": "single", "step": 3})
    _, info = env.reset(seed=0, options={"task": FORWARD})
    reports, signs = [info], []
    for _ in range(5):
        _, _, _, _, info = env.step(STILL)
        reports.append(info)
        signs.append(np.sign(info["reward_forward"] * env.velocity))
    assert [report["task_changed"] for report in reports] == [0, 0, 0, 1, 0, 0]
    assert [report["steps_since_change"] for report in reports] == [0, 1, 2, 0, 1, 2]
    assert [report["n_changes"] for report in reports] == [0, 0, 0, 1, 1, 1]
    assert [report["task_id"] for report in reports] == [1, 1, 1, 0, 0, 0]
    assert [report["task"].item() for report in reports] == [1, 1, 1, -1, -1, -1]
    assert signs == [1, 1, 1, -1, -1]  # transition 3 is the first that is paid the other way


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_an_episode_that_outlives_its_changes_says_so_once(rate: float) -> None:
    env = PointFwdBwdEnv(schedule={"name": "hazard", "rate": rate})
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(env.horizon):
            *_, last = env.step(STILL)
    with pytest.warns(UserWarning, match=r"drawn for 100 steps.* max_episode_steps"):
        *_, info = env.step(STILL)
    assert (info["task_changed"], info["n_changes"]) == (0, last["n_changes"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(STILL)
        env.reset(options={"schedule": "single"})  # as many changes as it is to have
        for _ in range(env.horizon + 5):
            env.step(STILL)


def test_infos_are_copies() -> None:
    env = PointFwdBwdEnv()
    _, info = env.reset(seed=0)
    info["task"][:] = 7
    assert env.step(STILL)[4]["task"].tolist() == env.task.vector.tolist()


def test_visibilities_add_their_columns() -> None:
    schedule = {"name": "single", "step": 2}
    columns = {}
    for visibility in ("hidden", "notified", "oracle"):
        env = PointFwdBwdEnv(schedule=schedule, visibility=visibility)
        observed = [env.reset(seed=0, options={"task": FORWARD})[0]]
        observed += [env.step(STILL)[0] for _ in range(3)]
        assert all(env.observation_space.contains(obs) for obs in observed)
        assert env.observation_layout.width == observed[0].shape[0]
        columns[visibility] = np.array(observed)
    assert np.array_equal(columns["notified"][:, :3], columns["hidden"])
    assert np.array_equal(columns["oracle"][:, :3], columns["hidden"])
    assert columns["notified"][:, 3].tolist() == [0, 0, 1, 0]
    assert columns["oracle"][:, 3].tolist() == [1, 1, -1, -1]


def test_every_schedule_but_static_draws_a_first_task_at_each_reset() -> None:
    for name in ("episodic", "single", "periodic", "hazard", "recurrent"):
        env = PointFwdBwdEnv(schedule=name)
        env.reset(seed=3)
        assert set(first_tasks(env)) == {FORWARD, BACKWARD}


def test_static_keeps_its_task_for_life() -> None:
    env = PendulumRandomParamsEnv(schedule="static")
    env.reset(seed=3)
    task = env.task.params
    assert set(first_tasks(env)) == {task}
    env.reset(seed=4)  # a seed starts a new life ...
    assert env.task.params != task
    env.reset(seed=3)  # ... so that it alone decides the trajectory
    assert env.task.params == task


def test_a_forced_task_stays_until_it_is_freed() -> None:
    env = PointFwdBwdEnv(schedule="episodic")
    env.reset(seed=0)
    assert set(first_tasks(env, 2, options={"task": 0})) == {BACKWARD}
    assert set(first_tasks(env)) == {BACKWARD}
    env.reset(options={"task": FORWARD})
    assert set(first_tasks(env)) == {FORWARD}
    env.reset(options={"task": None})
    assert set(first_tasks(env)) == {FORWARD, BACKWARD}


def test_a_forced_schedule_stays_until_it_is_freed() -> None:
    env = PointFwdBwdEnv(schedule="static")
    env.reset(seed=0, options={"schedule": {"name": "periodic", "period": 30}})
    assert [change.step for change in env.changes] == [30, 60, 90]
    env.reset()
    assert [change.step for change in env.changes] == [30, 60, 90]
    env.reset(options={"schedule": None})
    assert env.schedule.name == "static"
    assert env.changes == ()


def test_the_initial_state_does_not_depend_on_schedule_or_task() -> None:
    def states(schedule: str, **options: Any) -> list[list[float]]:
        env = PendulumRandomParamsEnv(schedule=schedule)
        env.reset(seed=0, options=options)
        found = [env.state.tolist()]
        for _ in range(3):
            env.reset()
            found.append(env.state.tolist())
        return found

    expected = states("hazard")
    assert states("static") == states("single") == states("recurrent") == expected
    assert states("hazard", task=(1.0, 1.0, 1.0)) == expected


def test_a_change_seed_gives_the_same_changes_once() -> None:
    env = PendulumRandomParamsEnv(schedule={"name": "hazard", "rate": 0.1})
    env.reset(seed=0, options={"change_seed": 5})
    task, changes = env.first_task, env.changes
    env.reset()
    assert env.changes != changes
    env.reset(seed=1, options={"change_seed": 5})
    assert (env.first_task, env.changes) == (task, changes)
    env.reset(options={"change_seed": 5, "task": (1.0, 1.0, 1.0)})
    assert env.changes == changes  # a forced first task leaves the rest of the list alone


def test_task_ids_count_the_tasks_that_an_episode_has_met() -> None:
    env = PendulumRandomParamsEnv(schedule="recurrent")
    _, info = env.reset(seed=0)
    ids = [info["task_id"]] + [env.step(STILL)[4]["task_id"] for _ in range(199)]
    assert list(dict.fromkeys(ids)) == [0, 1]
    assert ids[-1] == 0  # the first task is back
    _, info = env.reset()
    assert info["task_id"] == 0  # each episode counts its own


def play(env: gym.Env[Any, Any], **reset: Any) -> list[float]:
    obs, _ = env.reset(**reset)
    flat, over = list(obs), False
    while not over:
        obs, reward, terminated, truncated, info = env.step(STILL)
        flat += [*obs, reward, *info["task"]]
        over = terminated or truncated
    return flat


def test_a_frozen_episode_is_the_same_in_every_env_and_after_anything() -> None:
    fresh, used = (gym.make("M3PO/PointFwdBwd-v0", split="test") for _ in range(2))
    play(used, seed=9)
    play(used)
    expected = play(fresh, options={"episode": 4})
    assert play(used, options={"episode": 4}) == expected
    assert play(used, seed=1, options={"episode": 4}) == expected
    assert play(used, options={"episode": 5}) != expected


def test_a_frozen_episode_starts_in_its_task_under_any_schedule() -> None:
    for schedule in ("static", "episodic", "hazard"):
        env = PendulumRandomParamsEnv(split="ood", schedule=schedule)
        for index in (3, 0, 19):
            env.reset(options={"episode": index})
            assert env.first_task.params == env.episodes[index].task


def test_a_frozen_episode_outranks_a_task_forced_before() -> None:
    env = PointFwdBwdEnv(split="test")
    env.reset(options={"task": BACKWARD})
    env.reset(options={"episode": 1})
    assert env.first_task.params == FORWARD
    assert set(first_tasks(env)) == {BACKWARD}


def test_test_resets_draw_all_frozen_episodes() -> None:
    env = PendulumRandomParamsEnv(split="test")
    env.reset(seed=0)
    frozen = {episode.task for episode in env.episodes}
    met = first_tasks(env, 600)
    assert set(met) == frozen  # an episode's own state seed does not lead into a cycle
    env.reset(seed=0)
    assert first_tasks(env, 20) == met[:20]


def test_trial_resets_after_a_frozen_episode_follow_from_it() -> None:
    def second_start(seed: int) -> list[float]:
        env = PendulumRandomParamsEnv(split="test")
        env.reset(seed=seed, options={"episode": 2})
        env.reset(options={"task": env.first_task})
        return [*env.state, *env.task.params]

    assert second_start(0) == second_start(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointFwdBwdEnv(split="tset"), "unknown split 'tset'; nearest: test"),
        (lambda: PointFwdBwdEnv(visibility="orcle"), "unknown visibility 'orcle'; nearest: oracle"),
        (lambda: PointFwdBwdEnv(schedule="hazrd"), "unknown schedule 'hazrd'; nearest: hazard"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], MetaEnvBase], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("train", {"taks": 0}, "unknown reset option 'taks'; nearest: task"),
        ("train", {"task": 2}, "task 2 is not one of the indices 0..1"),
        ("train", {"task": 0, "schedule": "hazrd"}, "unknown schedule 'hazrd'; nearest: hazard"),
        ("train", {"task": 0, "schedule": "drift"}, "are a list; nearest: schedule='hazard'"),
        ("train", {"schedule": "static", "change_seed": -1}, "change_seed=-1: expected a whole"),
        ("train", {"episode": 0}, "episode=0: split 'train' has no frozen episodes"),
        ("test", {"schedule": "static", "episode": 40}, "episode=40: expected an index 0..39"),
        ("test", {"episode": "first"}, "episode='first': expected an index 0..39"),
        ("test", {"episode": 0, "task": 0}, "leave out 'task' and 'change_seed'"),
        ("test", {"episode": 0, "change_seed": 0}, "leave out 'task' and 'change_seed'"),
    ],
)
def test_wrong_options_are_named_and_change_nothing(
    split: str, options: dict[str, Any], message: str, seed: int | None
) -> None:
    refused, other = (gym.make("M3PO/PointFwdBwd-v0", split=split) for _ in range(2))
    assert play(refused, seed=0) == play(other, seed=0)
    with pytest.raises(ValueError, match=re.escape(message)):
        refused.unwrapped.reset(seed=seed, options=options)
    assert [play(refused) for _ in range(3)] == [play(other) for _ in range(3)]
