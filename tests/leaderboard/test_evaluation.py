from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from m3po_bench.leaderboard.evaluation import evaluate, isolated_randomness


@pytest.fixture
def model(toys: Any) -> Any:
    agent = toys.ToyAgent("", None)
    agent.best = np.asarray([0.2], np.float32)
    return agent


def _envs(toys: Any, copies: int) -> list[gym.Env[Any, Any]]:
    return [gym.make(toys.ENV, split="test") for _ in range(copies)]


@pytest.mark.parametrize("copies", [1, 2, 4, 6, 9])
def test_number_of_copies_does_not_matter(toys: Any, model: Any, copies: int) -> None:
    played = evaluate(model, _envs(toys, copies), range(6))
    assert [episode.index for episode in played] == list(range(6))
    for episode in played:
        length = toys.HORIZON - episode.index
        # The toy's memory counts steps and shows in its actions: it must start empty.
        actions = (0.2 + 0.01 * np.arange(1, length + 1)).astype(np.float32)
        np.testing.assert_allclose(episode.actions[:, 0], actions, rtol=1e-6)
        np.testing.assert_allclose(
            episode.rewards, -np.abs(actions - 0.1 * episode.index), atol=1e-6
        )
        assert episode.observations.shape == (length + 1, 2)
        assert list(episode.steps_since_change) == list(range(length))
        assert episode.total == pytest.approx(episode.rewards.sum())


def test_a_fall_is_told_from_the_time_limit(toys: Any, model: Any) -> None:
    class Slippery(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            obs, reward, _, truncated, info = self.env.step(action)
            return obs, reward, info["steps_since_change"] == 7, truncated, info

    envs: list[gym.Env[Any, Any]] = [Slippery(env) for env in _envs(toys, 2)]
    played = evaluate(model, envs, range(6))
    assert [len(episode.rewards) for episode in played] == [7, 7, 7, 7, 6, 5]
    assert [episode.terminated for episode in played] == [True] * 4 + [False] * 2


def test_episodes_can_be_chosen(toys: Any, model: Any) -> None:
    assert [e.index for e in evaluate(model, _envs(toys, 2), [4, 1, 3])] == [4, 1, 3]


def test_evaluation_leaves_no_trace_in_randomness() -> None:
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    inside = []
    for _ in range(2):
        with isolated_randomness(5):
            inside.append((np.random.random(), random.random()))  # noqa: NPY002
    assert inside[0] == inside[1]
    assert (np.random.random(), random.random()) == expected  # noqa: NPY002


def test_evaluation_leaves_no_trace_in_torch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with isolated_randomness(5):
        torch.rand(7)
    assert torch.equal(torch.rand(2), expected)
