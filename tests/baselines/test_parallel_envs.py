"""Copies of an env: as many as wanted, each with a stream of its own."""

from __future__ import annotations

import numpy as np

from m3po_baselines.parallel_envs import parallel_copies


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
