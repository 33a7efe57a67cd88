"""Random actions to begin with, one alike the next where asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray


class WarmStart:
    """Actions uniform in the action space at every step, correlated in time.

    Independent actions cancel out before a heavy body moves: what is learnt from them is the
    neighbourhood of standing still. So noise that remembers is drawn, x' = c x + sqrt(1 - c^2) e
    with normal x and e, and its distribution function makes it uniform.

    Args:
        space: Drawn from its generator.
        n_envs: Number of parallel streams.
        correlation: c, from 0 (independent, as SB3 does it) to less than 1.
    """

    def __init__(self, space: spaces.Box, n_envs: int, correlation: float) -> None:
        self.space, self.n_envs, self.correlation = space, n_envs, correlation
        self._noise: NDArray[np.float64] | None = None

    def draw(self) -> NDArray[Any]:
        """Actions in the env's range, shape (n_envs, action_dim)."""
        space, c = self.space, self.correlation
        if c == 0.0:
            return np.stack([space.sample() for _ in range(self.n_envs)])
        new = space.np_random.normal(size=(self.n_envs, *space.shape))
        old = self._noise
        self._noise = new if old is None else c * old + np.sqrt(1.0 - c * c) * new
        share = torch.special.ndtr(torch.from_numpy(self._noise)).numpy()
        actions: NDArray[Any] = space.low + (space.high - space.low) * share
        return actions.astype(space.dtype)
