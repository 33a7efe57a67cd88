"""What the oracle is shown of a task, and how the references are made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from m3po_baselines import MemorylessSAC, OracleSAC
from m3po_bench import make_agent
from m3po_bench.wrappers import layout_of


def shown(env_id: str, task: Any) -> list[float]:
    """The task's part of the oracle's features."""
    env = gym.make(env_id, visibility="oracle", schedule="static", max_episode_steps=20)
    model = make_agent("Oracle", env, preset="tiny", seed=0)
    obs, _ = env.reset(seed=0, options={"task": task})
    extractor = model.policy.actor.features_extractor
    features = extractor(torch.as_tensor(obs[None], dtype=torch.float32))[0]
    assert len(features) == extractor.features_dim
    own = layout_of(env).columns("observation")
    assert features[: len(own)].tolist() == pytest.approx(obs[own].astype(np.float32).tolist())
    found: list[float] = features[len(own) :].tolist()
    return found


@pytest.mark.parametrize("leg", [0, 1, 2])
def test_one_of_a_list_is_shown_by_its_place(leg: int) -> None:
    assert shown("M3PO/AntCrippledLeg-v0", leg) == [float(i == leg) for i in range(3)]


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_one_of_two_is_shown_by_its_sign(direction: float) -> None:
    assert shown("M3PO/PointFwdBwd-v0", (direction,)) == [direction]


def test_an_angle_is_shown_by_where_it_points() -> None:
    assert shown("M3PO/AntDirection-v0", (1.0,)) == pytest.approx([math.cos(1.0), math.sin(1.0)])


def test_ranges_are_shown_from_minus_one_to_one() -> None:
    found = shown("M3PO/PendulumRandomParams-v0", (-1.5, 0.8, 1.1))
    assert found == pytest.approx([-1.0, -1.0, 0.5])


@pytest.mark.parametrize("cls", [MemorylessSAC, OracleSAC])
def test_arguments_are_sb3s_in_their_order(cls: type[MemorylessSAC]) -> None:
    env = gym.make("M3PO/PointFwdBwd-v0", visibility="oracle")
    model = cls("MlpPolicy", env, 1e-2, 500, policy_kwargs={"net_arch": [8]})
    assert (model.learning_rate, model.buffer_size) == (1e-2, 500)
    assert model.policy.net_arch == [8]


def test_a_loaded_oracle_sees_tasks_as_it_has_learnt_them(tmp_path: Path) -> None:
    train, ood = (
        gym.make("M3PO/PendulumRandomParams-v0", visibility="oracle", split=split)
        for split in ("train", "ood")
    )
    model = make_agent("Oracle", train, preset="tiny", seed=0)
    model.save(tmp_path / "oracle")
    loaded = OracleSAC.load(tmp_path / "oracle", env=ood)
    obs, _ = ood.reset(seed=0)
    action, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], action)
    lowest, lowest_ood = (env.get_wrapper_attr("tasks").low.tolist() for env in (train, ood))
    assert lowest != lowest_ood
