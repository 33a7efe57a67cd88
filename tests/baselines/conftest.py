"""Data and returns that several baselines are tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from m3po_baselines.learning_to_adapt.adaptive_model import Observed
from m3po_bench.common.sequence_replay import SequenceReplay
from m3po_bench.leaderboard.evaluation import evaluate, isolated_randomness
from m3po_bench.wrappers import TrialWrapper

POINT = "M3PO/PointFwdBwd-v0"


@pytest.fixture
def random_observed() -> Callable[..., Observed]:
    """Makes ``n`` windows of ``steps`` transitions that have nothing to do with each other."""

    def make(n: int, steps: int, seed: int = 0) -> Observed:
        g = torch.Generator().manual_seed(seed)
        return Observed(
            obs=torch.randn(n, steps, 1, generator=g),
            action=2 * torch.rand(n, steps, 1, generator=g) - 1,
            reward=torch.randn(n, steps, generator=g),
            next_obs=torch.randn(n, steps, 1, generator=g),
            terminated=torch.zeros(n, steps),
            weight=torch.ones(n, steps),
        )

    return make


@pytest.fixture
def hidden_signs() -> Callable[..., SequenceReplay]:
    """Makes sequences of x' = 0.8 x + d a / 2 with reward e x'; d and e are +1 or -1 in each."""

    def make(n_sequences: int, steps: int = 40) -> SequenceReplay:
        rng = np.random.default_rng(0)
        replay = SequenceReplay(1, 1, 1, 0, 100_000)
        for _ in range(n_sequences):
            (d, e), x = rng.choice([-1.0, 1.0], 2), rng.uniform(-1, 1)
            for t in range(steps):
                a = rng.uniform(-1, 1)
                after = 0.8 * x + 0.5 * d * a
                replay.add(
                    torch.tensor([[x]]), torch.tensor([[a]]), torch.tensor([e * after]),
                    torch.tensor([[after]]), torch.zeros(1),
                    torch.tensor([t == 0]), torch.tensor([False]),
                )  # fmt: skip
                x = after
        return replay

    return make


@pytest.fixture
def online_return() -> Callable[[Any], float]:
    """Measures an agent's mean return where the direction may change within test episodes."""

    def measure(model: Any) -> float:
        envs = [gym.make(POINT, schedule="hazard", split="test") for _ in range(20)]
        with isolated_randomness(0):
            return float(np.mean([episode.total for episode in evaluate(model, envs, range(20))]))

    return measure


@pytest.fixture
def trial_returns() -> Callable[[Any], tuple[float, float]]:
    """Measures an agent's mean returns in the first and the second episode of test trials."""

    def measure(model: Any) -> tuple[float, float]:
        n = 20
        envs = [
            TrialWrapper(gym.make(POINT, split="test", schedule="episodic"), 2) for _ in range(n)
        ]
        obs = np.stack([env.reset(options={"episode": i})[0] for i, env in enumerate(envs)])
        returns, state = np.zeros((n, 2)), None
        for step in range(200):
            starts = np.full(n, step == 0)
            actions, state = model.predict(obs, state, episode_start=starts, deterministic=True)
            for i, env in enumerate(envs):
                obs[i], reward, *_ = env.step(actions[i])
                returns[i, step // 100] += float(reward)
        first, second = returns.mean(0).tolist()
        return first, second

    return measure
