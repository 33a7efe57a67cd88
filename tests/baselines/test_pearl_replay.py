"""PEARL's buffers are saved and loaded: nothing is collected twice, and other data is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from m3po_baselines import PEARL
from m3po_baselines.pearl.task_replay import TaskReplay
from m3po_bench import make_agent

ENV = "M3PO/PointFwdBwd-v0"


def tiny(env: Any = ENV, **kwargs: Any) -> PEARL:
    model: PEARL = make_agent("PEARL", env, preset="tiny", seed=0, **kwargs)
    return model


def test_what_is_loaded_is_not_collected_again(tmp_path: Path) -> None:
    env = gym.make(ENV, max_episode_steps=20)
    model = tiny(env, initial_steps=20, buffer_size=100).learn(120)
    model.save_replay_buffer(tmp_path / "data")
    other = tiny(env, initial_steps=20, buffer_size=300)
    other.load_replay_buffer(tmp_path / "data")
    for name in ("replay_buffer", "encoder_buffer"):
        mine, theirs = (getattr(agent, name) for agent in (other, model))
        assert torch.equal(mine.sizes, theirs.sizes)
        assert torch.equal(mine._rows, theirs._rows)
    before = int(other.replay_buffer.sizes.sum())
    other.learn(20)  # one iteration, at once
    assert other._n_updates > 0
    assert int(other.replay_buffer.sizes.sum()) == before + 20


def test_a_full_ring_grows_where_there_is_room_for_more() -> None:
    small, large = TaskReplay(1, 1, 1, 10), TaskReplay(1, 1, 1, 1000)

    def add(replay: TaskReplay, n: float) -> None:
        replay.add(0, torch.zeros(1), torch.zeros(1), n, torch.zeros(1), False)

    for n in range(25):
        add(small, n)
    large.load_state_dict(small.state_dict())
    assert large.sizes.tolist() == [10]
    little = TaskReplay(1, 1, 1, 12)
    little.load_state_dict(small.state_dict())
    for n in range(25, 50):
        add(large, n)
    assert large.sizes.tolist() == [35]
    for n in range(25, 31):
        add(little, n)
    kept = little.sample(torch.tensor([0]), 500).reward.flatten().tolist()
    assert sorted(set(kept)) == [*range(19, 31)]  # the latest


def test_buffers_of_other_tasks_or_agents_are_refused(tmp_path: Path) -> None:
    pendulum = "M3PO/PendulumRandomParams-v0"
    data = tmp_path / "data"
    tiny(pendulum).save_replay_buffer(data)
    tiny(pendulum).load_replay_buffer(data)
    other: PEARL = make_agent("PEARL", pendulum, preset="tiny", seed=1)
    with pytest.raises(ValueError, match=r"replay buffer of the training tasks .*, expected"):
        other.load_replay_buffer(data)
    with pytest.raises(ValueError, match=r"replay buffer: .* missing, expected"):
        make_agent("GrBAL", pendulum, preset="tiny").load_replay_buffer(data)
    make_agent("GrBAL", pendulum, preset="tiny").save_replay_buffer(data)
    with pytest.raises(ValueError, match="replay buffer of the training tasks None, expected"):
        other.load_replay_buffer(data)
