from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from m3po_envs.pendulum import MAX_TORQUE, PendulumRandomParamsEnv


@pytest.mark.parametrize("task", [(1.0, 1.0, 1.0), (-1.3, 0.8, 1.2)])
def test_it_is_gymnasiums_pendulum_with_another_torque_and_body(task: tuple[float, ...]) -> None:
    env, plain = PendulumRandomParamsEnv(schedule="static"), cast(Any, PendulumEnv())
    env.reset(seed=0, options={"task": task})
    gain, plain.m, plain.l = task
    plain.max_torque = 100.0
    plain.reset(seed=0)
    plain.state = env.state.copy()
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.uniform(-1, 1, 1)
        obs, reward, *_ = env.step(action)
        expected, expected_reward, *_ = plain.step(MAX_TORQUE * gain * action)
        assert np.allclose(obs, expected, atol=1e-6)
        assert reward == pytest.approx(expected_reward)


def test_actions_are_cut_at_one_before_the_gain() -> None:
    torques = []
    for action in (1.0, 5.0, -1.0, -5.0):
        env = PendulumRandomParamsEnv(schedule="static")
        env.reset(seed=0, options={"task": (-1.5, 1.0, 1.0)})
        env.step(np.array([action], dtype=np.float32))
        torques.append(float(env.last_u))
    assert torques == pytest.approx([-6.0, -6.0, 6.0, 6.0])


def test_ood_actuators_are_weaker_and_bodies_heavier() -> None:
    ood, train = (PendulumRandomParamsEnv.distributions[split] for split in ("ood", "train"))
    assert ood.ranges[0][1] <= train.ranges[0][0]
    assert all(ood.ranges[i][0] >= train.ranges[i][1] for i in (1, 2))
