"""What every registered ``M3PO/*`` id must do; a new one is tested by being registered."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import m3po_bench  # noqa: F401 - registers the ids
from m3po_bench.tasks import FiniteTasks, MetaEnv
from m3po_bench.wrappers import PreviousActionReward, layout_of
from m3po_envs.base import VISIBILITIES, MetaEnvBase
from m3po_envs.schedules import SCHEDULES

IDS = sorted(env_id for env_id in gym.registry if env_id.startswith("M3PO/"))
BUSY = {"name": "hazard", "rate": 0.2}
INFO_KEYS = {"task_id", "task_changed", "steps_since_change", "n_changes", "task"}
# Both checkers find fault with bounds that Gymnasium's own MuJoCo envs and rewards have.
EXPECTED_WARNINGS = ("bound", "infinity", "normalize")

every_id = pytest.mark.parametrize("env_id", IDS)


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """The env as users get it; gymnasium's passive checker has tests of its own here."""
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def body(env: gym.Env[Any, Any]) -> MetaEnvBase:
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, MetaEnvBase)
    return unwrapped


def actions_of(env: gym.Env[Any, Any], n: int, seed: int = 0) -> NDArray[np.float32]:
    assert env.action_space.shape is not None
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, *env.action_space.shape)).astype(np.float32)


def rollout(env: gym.Env[Any, Any], n: int = 60, **reset: Any) -> list[tuple[Any, ...]]:
    """(observation, reward, info) of each step; the reset's reward is 0."""
    obs, info = env.reset(**reset)
    rows: list[tuple[Any, ...]] = [(obs, 0.0, info)]
    for action in actions_of(env, n):
        obs, reward, _, _, info = env.step(action)
        rows.append((obs, float(reward), info))
    return rows


def assert_same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    assert len(first) == len(second)
    for (obs, reward, info), (other_obs, other_reward, other_info) in zip(
        first, second, strict=True
    ):
        assert np.array_equal(obs, other_obs)
        assert reward == other_reward
        assert info.keys() == other_info.keys()
        assert all(np.array_equal(info[key], other_info[key]) for key in info)


def refuse_where_it_must(env_id: str, schedule: Any) -> None:
    """Skips the schedules that need a range of tasks where there is a list, if refused clearly."""
    if schedule in ("drift", "compound") and isinstance(body(make(env_id)).tasks, FiniteTasks):
        with pytest.raises(ValueError, match="a list; nearest: schedule='hazard'"):
            make(env_id, schedule=schedule)
        pytest.skip("this schedule needs a range of tasks; refused with a clear error")


def test_there_are_ids_to_test() -> None:
    assert len(IDS) >= 3


@every_id
@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_both_checkers_pass(env_id: str, schedule: str, visibility: str) -> None:
    refuse_where_it_must(env_id, schedule)
    env = make(env_id, schedule=schedule, visibility=visibility)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check_env(env.unwrapped, skip_render_check=True)
        sb3_check_env(env.unwrapped)
        sb3_check_env(env)
    messages = [str(warning.message) for warning in caught]
    assert not [m for m in messages if not any(word in m for word in EXPECTED_WARNINGS)]


@every_id
def test_it_is_a_meta_env_with_unit_actions(env_id: str) -> None:
    env = make(env_id)
    assert isinstance(env.unwrapped, MetaEnv)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    assert space.dtype == np.float32
    assert np.all(space.low == -1)
    assert np.all(space.high == 1)
    assert body(env).env_id == env_id
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[-1]
    assert all(np.isfinite(float(info[name])) for name in body(env).reported)


@every_id
@pytest.mark.parametrize("split", ["train", "test"])
def test_equal_seeds_give_equal_trajectories(env_id: str, split: str) -> None:
    fresh, used = (make(env_id, split=split, schedule=BUSY) for _ in range(2))
    rollout(used, seed=1)
    expected = rollout(fresh, seed=5)
    again = rollout(used, seed=5)
    assert_same(expected, again)
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(expected, rollout(used), strict=True))


@every_id
def test_specs_survive_json(env_id: str) -> None:
    env = make(env_id, schedule=BUSY, visibility="notified", split="test", max_episode_steps=30)
    assert env.spec is not None
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert again.spec == env.spec
    assert isinstance(again, PreviousActionReward)
    assert body(again).schedule == body(env).schedule
    assert (body(again).visibility, body(again).split) == ("notified", "test")
    assert body(again).horizon == 30
    assert_same(rollout(env, 30, seed=0), rollout(again, 30, seed=0))


@every_id
def test_infos_are_flat_and_numeric(env_id: str) -> None:
    env = make(env_id, schedule=BUSY)
    for _, _, info in rollout(env, seed=0):
        assert info.keys() >= INFO_KEYS
        assert info["task"].shape == (len(body(env).tasks.names),)
        assert info["task"].dtype == np.float64
        assert all(
            np.ndim(info[key]) == 0 and np.isfinite(info[key]) for key in info if key != "task"
        )


@every_id
def test_infos_agree_with_the_change_list(env_id: str) -> None:
    env = make(env_id, schedule=BUSY)
    rows = rollout(env, seed=0)
    at = {change.step: change.task for change in body(env).changes}
    assert at
    task, last, n_changes = body(env).first_task, 0, 0
    for step, (_, _, info) in enumerate(rows):
        if step in at:
            task, last, n_changes = at[step], step, n_changes + 1
        assert info["task_changed"] == int(step in at)
        assert info["n_changes"] == n_changes
        assert info["steps_since_change"] == step - last
        assert np.array_equal(info["task"], task.vector)
        if task.index >= 0:
            assert info["task_id"] == task.index


@every_id
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_changes_depend_on_the_seed_alone(env_id: str, schedule: str) -> None:
    refuse_where_it_must(env_id, schedule)
    lists = []
    for seed_of_actions in (0, 1):
        env, found = make(env_id, schedule=schedule), []
        env.reset(seed=3)
        for _ in range(3):
            for action in actions_of(env, 20, seed_of_actions):
                env.step(action)
            env.reset()
            found.append((body(env).first_task, body(env).changes))
        lists.append(found)
    assert lists[0] == lists[1]
    firsts = [first for first, _ in lists[0]]
    assert (len(set(firsts)) == 1) >= (schedule == "static")


@every_id
@pytest.mark.parametrize("schedule", [*SCHEDULES, BUSY])
def test_a_change_always_brings_another_task(env_id: str, schedule: Any) -> None:
    refuse_where_it_must(env_id, schedule)
    env = make(env_id, schedule=schedule)
    env.reset(seed=0)
    for _ in range(20):
        env.reset()
        task = body(env).first_task
        for change in body(env).changes:
            assert change.task.params != task.params
            task = change.task


@every_id
def test_a_change_changes_what_follows_and_nothing_before(env_id: str) -> None:
    step, after = 10, 20  # a block of the pier that rests does not show its damping at once
    changing = make(env_id, schedule={"name": "single", "step": step})
    staying = make(env_id, schedule="static")
    changed = rollout(changing, step + after, seed=2)
    task = body(changing).first_task
    stayed = rollout(staying, step + after, seed=2, options={"task": task})
    assert [row[1] for row in changed[: step + 1]] == [row[1] for row in stayed[: step + 1]]
    columns = layout_of(changing).columns("observation")
    for row, other in zip(changed[: step + 1], stayed[: step + 1], strict=True):
        assert np.array_equal(row[0][columns], other[0][columns])
    assert any(
        row[1] != other[1] or not np.array_equal(row[0][columns], other[0][columns])
        for row, other in zip(changed[step + 1 :], stayed[step + 1 :], strict=True)
    )


@every_id
def test_a_thousand_changes_leave_nothing_behind(env_id: str) -> None:
    """What a task does to the physics depends on the task alone, to the last bit."""
    used, fresh = (make(env_id, schedule="static") for _ in range(2))
    rng, tasks = np.random.default_rng(0), body(used).tasks
    action = np.zeros(used.action_space.shape or (), np.float32)
    for i in range(1000):
        body(used)._enter(tasks.sample(rng))
        if i % 100 == 0:
            used.reset(seed=i)
            used.step(action)
    task = tasks.sample(rng)
    for env in (used, fresh):
        env.reset(seed=1, options={"task": task.params})
    model, other = (getattr(env.unwrapped, "model", None) for env in (used, fresh))
    fields = [name for name in dir(model) if isinstance(getattr(model, name), np.ndarray)]
    assert bool(fields) == (model is not None)
    for name in fields:
        assert np.array_equal(getattr(model, name), getattr(other, name), equal_nan=True), name
    expected, found = (rollout(env, 20, seed=1) for env in (fresh, used))
    assert_same(expected, found)


@every_id
def test_forced_tasks_and_schedules_stay_until_the_next(env_id: str) -> None:
    env = make(env_id)
    env.reset(seed=0)
    tasks = [body(env).tasks.sample(np.random.default_rng(0))]
    tasks.append(body(env).tasks.sample(np.random.default_rng(1), other_than=tasks[0]))
    for task, schedule in zip(tasks, ("recurrent", "episodic"), strict=True):
        env.reset(options={"task": task.params, "schedule": schedule})
        for _ in range(4):
            assert body(env).first_task.params == task.params
            assert body(env).schedule.name == schedule
            env.reset()


@every_id
def test_the_horizon_is_the_time_limit(env_id: str) -> None:
    always = {"name": "hazard", "rate": 1.0}
    default, short = (
        make(env_id, schedule=always),
        make(env_id, schedule=always, max_episode_steps=7),
    )
    assert default.spec is not None
    for env, horizon in ((default, default.spec.max_episode_steps), (short, 7)):
        env.reset(seed=0)
        assert horizon is not None
        assert [change.step for change in body(env).changes] == list(range(1, horizon))
        truncated = [env.step(action)[3] for action in actions_of(env, horizon)]
        assert truncated == [False] * (horizon - 1) + [True]


@every_id
def test_asynchronous_copies_do_what_single_envs_do(env_id: str) -> None:
    """Four copies; as Gymnasium has it, the step after an episode's last one resets."""
    vec = gym.make_vec(env_id, num_envs=4, vectorization_mode="async", max_episode_steps=6)
    singles = [make(env_id, max_episode_steps=6) for _ in range(4)]
    try:
        seen, _ = vec.reset(seed=9)
        expected = [env.reset(seed=9 + i)[0] for i, env in enumerate(singles)]
        over = [False] * 4
        actions = actions_of(singles[0], 4 * 15).reshape(15, 4, -1)
        for joint in actions:
            assert np.array_equal(seen, np.stack(expected))
            seen, rewards, ends, limits, infos = vec.step(joint)
            for i, env in enumerate(singles):
                if over[i]:
                    expected[i], info = env.reset()
                    row = (0.0, False, False)
                else:
                    expected[i], reward, end, limit, info = env.step(joint[i])
                    row = (float(reward), end, limit)
                assert (rewards[i], ends[i], limits[i]) == row
                assert np.array_equal(infos["task"][i], info["task"])
                over[i] = row[1] or row[2]
    finally:
        vec.close()


@every_id
def test_subprocesses_do_what_single_envs_do(env_id: str) -> None:
    """Four copies; as SB3 has it, an episode's last step resets and keeps what it saw."""
    make_one = functools.partial(make, env_id, max_episode_steps=6)
    vec = SubprocVecEnv([make_one] * 4, start_method="fork")
    singles = [make_one() for _ in range(4)]
    try:
        vec.seed(9)
        seen = np.asarray(vec.reset())
        assert layout_of(vec).width == seen.shape[1]
        expected = [env.reset(seed=9 + i)[0] for i, env in enumerate(singles)]
        for joint in actions_of(singles[0], 4 * 15).reshape(15, 4, -1):
            assert np.array_equal(seen, np.stack(expected))
            found, rewards, dones, infos = vec.step(joint)
            seen = np.asarray(found)
            for i, env in enumerate(singles):
                last, reward, end, limit, info = env.step(joint[i])
                assert rewards[i] == reward
                assert dones[i] == (end or limit)
                assert np.array_equal(infos[i]["task"], info["task"])
                expected[i] = last
                if end or limit:
                    assert np.array_equal(infos[i]["terminal_observation"], last)
                    expected[i] = env.reset()[0]
    finally:
        vec.close()


def test_new_processes_find_the_ids_by_module() -> None:
    env_id = "m3po_bench:M3PO/HalfCheetahFwdBwd-v0"
    vec = SubprocVecEnv([functools.partial(gym.make, env_id)], start_method="spawn")
    try:
        assert np.asarray(vec.reset()).shape == (1, 25)
    finally:
        vec.close()


@every_id
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_the_layout_covers_the_observation(env_id: str, visibility: str) -> None:
    env = make(env_id, visibility=visibility)
    obs, _ = env.reset(seed=0)
    layout = layout_of(env)
    assert layout.width == obs.shape[0] == env.observation_space.shape[0]  # type: ignore[index]
    extra = {"hidden": (), "notified": ("task_changed",), "oracle": ("task",)}[visibility]
    history = ("previous_action", "previous_reward", "first_step")
    assert layout.names == ("observation", *extra, *history)


@every_id
def test_the_oracle_sees_the_task_of_the_next_transition(env_id: str) -> None:
    env = make(env_id, visibility="oracle", schedule=BUSY)
    columns = layout_of(env).columns("task")
    obs, _ = env.reset(seed=0)
    for action in actions_of(env, 60):
        assert np.array_equal(obs[columns], body(env).task.vector.astype(obs.dtype))
        obs, *_ = env.step(action)


@every_id
def test_spaces_are_the_same_in_all_splits(env_id: str) -> None:
    for visibility in VISIBILITIES:
        train = make(env_id, visibility=visibility)
        for split in {"test", *body(train).distributions} - {"train"}:
            other = make(env_id, visibility=visibility, split=split)
            assert other.observation_space == train.observation_space
