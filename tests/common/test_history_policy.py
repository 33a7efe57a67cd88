"""The face of policies with a memory, on one that counts the transitions it has taken in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from m3po_bench.common.history_policy import HistoryPolicy, Memory, Seen, keep_where
from m3po_bench.wrappers import ObservationLayout

LAYOUT = ObservationLayout((("observation", 2),)).with_history(1)


class Counting(HistoryPolicy):
    """Acts with a tenth of the transitions since its memory began."""

    def empty(self, n: int) -> Memory:
        return torch.zeros(n), torch.zeros(n, self.obs_dim)

    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        count = memory[0] + (~seen.first).float()
        return 0.1 * count[:, None], (count, seen.obs)


def counting(obs_columns: NDArray[np.int64] | None = None) -> Counting:
    """In an env whose actions reach from -1 to 3."""
    space = spaces.Box(-np.inf, np.inf, (LAYOUT.width,))
    action_space = spaces.Box(-1.0, 3.0, (1,), np.float32)
    return Counting(space, action_space, LAYOUT, obs_columns)


def rows(n: int, first: bool) -> NDArray[np.float32]:
    obs = np.tile(np.arange(LAYOUT.width, dtype=np.float32), (n, 1))
    obs[:, -1] = first
    return obs


def test_memory_begins_anew_where_it_is_told_to_and_only_there() -> None:
    policy = counting()
    _, state = policy.predict(rows(3, first=True))
    _, state = policy.predict(rows(3, first=False), state, np.zeros(3, bool))
    _, state = policy.predict(rows(3, first=False), state)
    assert state is not None
    assert state[0].tolist() == [2.0, 2.0, 2.0]
    _, state = policy.predict(rows(3, first=True), state)  # an inner episode of a trial
    assert state is not None
    assert state[0].tolist() == [2.0, 2.0, 2.0]
    # Of what led to a memory's first observation nothing is taken in, whatever its columns say.
    _, after = policy.predict(rows(3, first=False), state, np.array([False, True, False]))
    assert after is not None
    assert after[0].tolist() == [3.0, 0.0, 3.0]
    assert state[0].tolist() == [2.0, 2.0, 2.0]  # what was passed in stays
    _, after = policy.predict(rows(3, first=False))
    assert after is not None
    assert after[0].tolist() == [0.0, 0.0, 0.0]


def test_actions_are_in_the_range_of_the_env() -> None:
    policy, state = counting(), (np.full(2, 4.0, np.float32), np.zeros((2, 2), np.float32))
    together, _ = policy.predict(rows(2, first=False), state)
    np.testing.assert_allclose(together, [[2.0], [2.0]])  # 0.5 of [-1, 1]
    alone, _ = policy.predict(rows(1, first=False)[0], tuple(x[:1] for x in state))
    np.testing.assert_allclose(alone, [2.0])
    inside = policy.forward(torch.from_numpy(rows(2, first=False)))
    assert inside.tolist() == [[0.0], [0.0]]  # of an empty memory, in [-1, 1]


def test_an_observation_is_taken_apart() -> None:
    obs = rows(2, first=False)
    seen = counting().unpack(obs)
    assert seen.obs.tolist() == [[0.0, 1.0]] * 2
    assert seen.action.tolist() == [[0.5]] * 2  # 2 in [-1, 3]
    assert seen.reward.tolist() == [3.0] * 2
    assert seen.first.tolist() == [False] * 2
    np.testing.assert_array_equal(seen.shown, obs)
    chosen = counting(np.array([1]))
    assert chosen.obs_dim == 1
    assert chosen.unpack(obs).obs.tolist() == [[1.0]] * 2


def test_a_missing_wrapper_is_named() -> None:
    with pytest.raises(ValueError, match=r"2 columns, expected 5: .*PreviousActionReward"):
        counting().predict(np.zeros((1, 2)))


def test_a_change_of_memory_is_row_by_row() -> None:
    new, old = (torch.ones(3, 2), torch.ones(3)), (torch.zeros(3, 2), torch.zeros(3))
    wide, flat = keep_where(torch.tensor([True, False, True]), new, old)
    assert wide.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert flat.tolist() == [1.0, 0.0, 1.0]
