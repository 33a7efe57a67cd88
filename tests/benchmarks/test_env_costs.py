"""What a step and a change of each meta-env cost, beside a step of Gymnasium's own env.

Rounds of both are interleaved in one process and the fastest of each counts. ``tox -e bench``
holds steps to 1.10 times the peer's; elsewhere the limit has slack for busy machines.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.registration import EnvSpec
from pytest_benchmark.fixture import BenchmarkFixture

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.pier import HalfCheetahPierEnv

Round = tuple[Callable[[], None], Callable[[], None]]
"""What prepares a round, and what is timed."""
STEPS = 20
LONG: dict[str, Any] = {"max_episode_steps": 1_000_000}


class PierBody(HalfCheetahEnv):
    """Half-cheetah and blocks with what Gymnasium does in a step, and no more."""

    _initialize_simulation = HalfCheetahPierEnv._initialize_simulation


SHORT_ANT = {"include_cfrc_ext_in_observation": False}
SHORT_HUMANOID = {
    f"include_{name}_in_observation": False
    for name in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
}
PEERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "HalfCheetahFwdBwd": ("HalfCheetah-v5", {}),
    "HalfCheetahVelocity": ("HalfCheetah-v5", {}),
    "HalfCheetahDisabledJoint": ("HalfCheetah-v5", {}),
    "HalfCheetahPier": (PierBody, {}),
    "AntFwdBwd": ("Ant-v5", SHORT_ANT),
    "AntDirection": ("Ant-v5", SHORT_ANT),
    "AntCrippledLeg": ("Ant-v5", SHORT_ANT),
    "Walker2dRandomParams": ("Walker2d-v5", {}),
    "HopperRandomParams": ("Hopper-v5", {}),
    "HumanoidDirection": ("Humanoid-v5", SHORT_HUMANOID),
}


def fastest(ours: Round, peer: Round, rounds: int) -> tuple[float, float]:
    """Seconds of the fastest round of each; what prepares a round is not timed."""
    best = [np.inf, np.inf]
    for _ in range(rounds):
        for i, (prepare, action) in enumerate((ours, peer)):
            prepare()
            start = time.perf_counter()
            action()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1]


def make_peer(name: str) -> gym.Env[Any, Any]:
    kind, arguments = PEERS[name]
    if isinstance(kind, str):
        return gym.make(kind, **LONG, **arguments)
    return gym.make(EnvSpec("PierBody-v0", entry_point=kind, **LONG))


def stepping(env: gym.Env[Any, Any]) -> Round:
    """``STEPS`` steps from a fixed state, under small actions, so that nothing falls over."""
    shape, strength = env.action_space.shape or (), env.action_space.high  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (STEPS, *shape)) * strength
    body: Any = env.unwrapped

    def prepare() -> None:
        body.set_state(body.init_qpos, body.init_qvel)

    def run() -> None:
        for action in actions:
            env.step(action)

    return prepare, run


@pytest.mark.parametrize("name", PEERS)
def test_a_step_costs_hardly_more_than_gymnasiums(
    name: str, benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    strict = request.config.getoption("--benchmark-only")
    ours, peer = gym.make(f"M3PO/{name}-v0", schedule="static", **LONG), make_peer(name)
    ours.reset(seed=0, options={"task": nominal(name, ours)})
    peer.reset(seed=0)
    steps = stepping(ours)
    best, best_peer = fastest(steps, stepping(peer), rounds=500 if strict else 40)
    benchmark.pedantic(steps[1], rounds=3)  # type: ignore[no-untyped-call]
    benchmark.extra_info["ratio"] = best / best_peer
    assert best / best_peer < (1.10 if strict else 1.35)


def nominal(name: str, env: gym.Env[Any, Any]) -> Any:
    """The task closest to the plain body: exponents of 0, or any."""
    tasks = env.get_wrapper_attr("tasks")
    if "RandomParams" in name:
        return (0.0,) * len(tasks.names)
    return tasks.sample(np.random.default_rng(0))


@pytest.mark.parametrize("name", PEERS)
def test_a_change_costs_less_than_a_step(name: str, benchmark: BenchmarkFixture) -> None:
    env = gym.make(f"M3PO/{name}-v0", schedule="static", **LONG)
    env.reset(seed=0)
    body: Any = env.unwrapped
    rng = np.random.default_rng(0)
    tasks = [body.tasks.sample(rng)]
    for _ in range(49):
        tasks.append(body.tasks.sample(rng, other_than=tasks[-1]))
    coming = itertools.cycle(tasks)
    action = np.zeros(env.action_space.shape or (), np.float32)

    def nothing() -> None:
        pass

    def change() -> None:
        for _ in range(50):
            body._enter(next(coming))

    def step() -> None:
        for _ in range(50):
            env.step(action)

    best, best_step = fastest((nothing, change), (nothing, step), rounds=10)
    benchmark.pedantic(change, rounds=3)  # type: ignore[no-untyped-call]
    benchmark.extra_info["ratio"] = best / best_step
    assert best < best_step
