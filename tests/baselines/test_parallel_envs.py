"""Copies of an env: as many as wanted, each with a stream of its own."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from m3po_baselines.parallel_envs import parallel_copies
from m3po_bench import make_agent


def test_agents_with_neighbouring_seeds_share_no_env() -> None:
    first: dict[int, list[bytes]] = {}
    for seed in (0, 1):
        venv = parallel_copies("M3PO/PendulumRandomParams-v0", 4)
        venv.seed(seed)
        obs = np.asarray(venv.reset())
        first[seed] = [row.tobytes() for row in obs]
        venv.seed(seed)
        assert np.array_equal(obs, np.asarray(venv.reset()))
    assert len({*first[0], *first[1]}) == 8


def test_one_env_gets_the_seed_itself() -> None:
    assert list(parallel_copies("M3PO/PendulumRandomParams-v0", 1).seed(7)) == [7]


@pytest.mark.parametrize("name", ["MAML", "ProMP", "RL2"])
def test_who_is_loaded_with_one_env_trains_in_as_many_copies_as_before(
    name: str, tmp_path: Path
) -> None:
    env, kwargs = "M3PO/PointFwdBwd-v0", {} if name == "RL2" else {"n_tasks": 2}
    model = make_agent(name, gym.make(env), preset="tiny", seed=0, n_envs=2, **kwargs)
    assert model.n_envs == 2
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=gym.make(env))
    assert (loaded.n_envs, loaded.env.num_envs) == (model.n_envs, model.n_envs)
    one = type(model).load(tmp_path / "agent", env=parallel_copies(env, 1))
    assert one.env.num_envs == 1
