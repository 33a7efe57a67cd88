"""Hot paths against a peer in the same process: ratios, never seconds.

The limits have slack; ``tox -e bench`` prints the numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

import m3po_bench
from m3po_bench.m3po.m3po import M3PO


@pytest.fixture(scope="module")
def agent() -> M3PO:
    model: M3PO = m3po_bench.make_agent(
        "M3PO",
        "M3PO/HalfCheetahFwdBwd-v0",
        seed=0,
        learning_starts=250,
        model_first_fit=10,
        gradient_steps=0,
    )
    return model.learn(250)


def test_a_policy_update_is_faster_than_sb3s(agent: M3PO, ratio: Callable[..., float]) -> None:
    """Same batch, the same layers on wider features; sampling and target update included."""
    env = gym.make("M3PO/HalfCheetahFwdBwd-v0")
    sac = SAC("MlpPolicy", env, learning_starts=10_000, seed=0).learn(300)
    torch.set_num_threads(1)

    def ours() -> None:
        for _ in range(4):
            agent.soft_actor_critic.update(agent._policy_batch())

    def peer() -> None:
        sac.train(gradient_steps=4, batch_size=agent.batch_size)

    assert ratio(ours, peer, rounds=12) < 1.1


def test_acting_costs_no_more_than_a_few_of_sb3s_calls(
    agent: M3PO, ratio: Callable[..., float]
) -> None:
    """Two GRUs and a policy against a policy alone."""
    sac = SAC("MlpPolicy", gym.make("M3PO/HalfCheetahFwdBwd-v0"), seed=0)
    obs = np.zeros((1, 25))
    start = np.zeros(1, bool)
    _, state = agent.predict(obs)

    def ours() -> None:
        for _ in range(50):
            agent.predict(obs, state, start)

    def peer() -> None:
        for _ in range(50):
            sac.predict(obs)

    assert ratio(ours, peer) < 6.0
