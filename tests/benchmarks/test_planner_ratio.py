"""Planning through an adapted model against the bare matrix products of the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from m3po_baselines import GrBAL
from m3po_bench import make_agent

CANDIDATES, HORIZON, HIDDEN = 500, 10, (256, 256, 256)
ENV = "M3PO/HalfCheetahDisabledJoint-v0"


def planning_agent(reward_hidden: tuple[int, ...]) -> GrBAL:
    model: GrBAL = make_agent(
        "GrBAL",
        ENV,
        seed=0,
        learning_starts=200,
        fit_every=10_000,
        max_epochs=1,
        planner_kwargs={"candidates": CANDIDATES, "horizon": HORIZON},
        policy_kwargs={"hidden": HIDDEN, "reward_hidden": reward_hidden},
    ).learn(210)
    torch.set_num_threads(1)
    return model


def products(
    obs_dim: int, action_dim: int, reward_hidden: tuple[int, ...]
) -> list[tuple[Tensor, Tensor]]:
    """Inputs and weights of every layer that one imagined step of all candidates passes."""
    shapes = [
        (obs_dim + action_dim, *HIDDEN, obs_dim),
        (2 * obs_dim + action_dim, *reward_hidden, 1),
    ]
    return [
        (torch.randn(1, CANDIDATES, a), torch.randn(1, a, b))
        for widths in shapes
        for a, b in pairwise(widths)
    ]


@pytest.mark.parametrize("reward_hidden", [(128, 128), HIDDEN], ids=["lite", "same"])
def test_an_action_costs_little_more_than_its_matrix_products(
    reward_hidden: tuple[int, ...], ratio: Callable[..., float]
) -> None:
    """Memory, inner step, draws and all of the planning are in ours.

    One core does 25 actions a second with the larger reward head too, if these products, 2.8
    GFLOP an action, take it no more than 34 ms; ``rounds_per_second`` tells.
    """
    agent = planning_agent(reward_hidden)
    obs, _ = gym.make(ENV).reset(seed=0)
    state, start = None, np.zeros(1, bool)
    for _ in range(20):
        _, state = agent.predict(obs[None], state, start)
    layers = products(agent.policy.model.obs_dim, agent.policy.model.action_dim, reward_hidden)

    def ours() -> None:
        agent.predict(obs[None], state, start, deterministic=True)

    def peer() -> None:
        for _ in range(HORIZON):
            for x, weight in layers:
                torch.bmm(x, weight)

    assert ratio(ours, peer) < 1.8
