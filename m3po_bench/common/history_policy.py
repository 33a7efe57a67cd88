"""The face of policies with a memory: what an observation's history columns tell them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from m3po_bench.common.kept_policy import KeptPolicy
from m3po_bench.wrappers import (
    FIRST_STEP,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    ObservationLayout,
)

Array = NDArray[Any]
Memory = tuple[Tensor, ...]
"""What is remembered, one row per env in each tensor."""


class Seen(NamedTuple):
    """An observation, and what led to it.

    Attributes:
        obs: What the policy looks at, without the history columns; shape (n, obs_dim).
        action: The previous action, in [-1, 1], shape (n, action_dim).
        reward: The previous reward, shape (n,).
        first: Whether nothing led here, because an episode or the memory begins; (n,), bool.
        shown: All columns, shape (n, width).
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    first: Tensor
    shown: Tensor


class HistoryPolicy(KeptPolicy):
    """An SB3 policy that remembers; a subclass says what (``empty``, ``respond``).

    Args:
        observation_space: With the history columns.
        action_space: A flat Box; policies act in [-1, 1].
        layout: Which columns of the observation are which.
        obs_columns: Columns that the policy looks at; all but the history columns by default.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        layout: ObservationLayout,
        obs_columns: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.layout = layout
        self.obs_columns = layout.memoryless_columns if obs_columns is None else obs_columns
        self._action_columns = layout.columns(PREVIOUS_ACTION)
        self._reward_column = int(layout.columns(PREVIOUS_REWARD)[0])
        self._first_column = int(layout.columns(FIRST_STEP)[0])
        self.obs_dim, self.action_dim = len(self.obs_columns), int(action_space.shape[0])

    @abstractmethod
    def empty(self, n: int) -> Memory:
        """The memory of ``n`` envs of which nothing has been seen."""

    @abstractmethod
    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        """Take in what was seen, and act.

        Args:
            seen: The observations and what led to them.
            memory: What the last call returned; empty in rows where it begins anew.
            deterministic: The mean action instead of a sample.

        Returns:
            Actions in [-1, 1], shape (n, action_dim), and the new memory.
        """

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Actions for histories; see ``BaseAlgorithm.predict``.

        Args:
            observation: Shape (width,) or (n, width), history columns included.
            state: What the last call returned; None for empty histories.
            episode_start: Where memory begins anew, shape (n,): the start of an episode, or of
                a trial of several.
            deterministic: The mean action instead of a sample.

        Returns:
            Actions in the env's range, and the state to pass next time.

        Raises:
            ValueError: If the observation has not the width that the agent was trained on, or is
                the pair that Gymnasium's ``reset`` returns.
        """
        if isinstance(observation, tuple):
            raise ValueError("a tuple, expected an array: env.reset() returns (observation, info)")
        obs = np.asarray(observation, dtype=np.float32)
        single = obs.ndim == 1
        obs = np.atleast_2d(obs)
        if obs.shape[1] != self.layout.width:
            raise ValueError(
                f"an observation of {obs.shape[1]} columns, expected {self.layout.width}: "
                f"{dict(self.layout.blocks)}; an env that is not registered by m3po_bench needs "
                "the wrapper m3po_bench.wrappers.PreviousActionReward"
            )
        memory = None if state is None else tuple(torch.as_tensor(np.asarray(x)) for x in state)
        starts = None if episode_start is None else torch.as_tensor(np.array(episode_start, bool))
        with torch.no_grad():
            scaled, new = self._respond_from(memory, starts, self.unpack(obs), deterministic)
        action = self.unscale_action(scaled.numpy())
        return (action[0] if single else action), tuple(x.numpy() for x in new)

    def forward(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """Actions in [-1, 1] for empty histories."""
        return self._predict(obs, deterministic)

    @torch.no_grad()
    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        seen = self.unpack(observation.float().numpy())
        return self._respond_from(None, None, seen, deterministic)[0]

    def _respond_from(
        self, memory: Memory | None, starts: Tensor | None, seen: Seen, deterministic: bool
    ) -> tuple[Tensor, Memory]:
        """``respond`` with empty memories where there is none or ``starts``, (n,), holds."""
        empty = self.empty(len(seen.obs))
        if memory is None:
            memory, starts = empty, torch.ones_like(seen.first)
        if starts is not None:
            memory = keep_where(starts, empty, memory)
            seen = seen._replace(first=seen.first | starts)
        return self.respond(seen, memory, deterministic)

    def unpack(self, obs: Array) -> Seen:
        """Take float32 observations of shape (n, width) apart."""
        return Seen(
            obs=torch.from_numpy(obs[:, self.obs_columns]),
            action=torch.from_numpy(self.scale_action(obs[:, self._action_columns])),
            reward=torch.from_numpy(obs[:, self._reward_column]),
            first=torch.from_numpy(obs[:, self._first_column] > 0.5),
            shown=torch.from_numpy(obs),
        )


def keep_where(chosen: Tensor, new: Memory, old: Memory) -> Memory:
    """Row by row the new memory where ``chosen``, of shape (n,), says so, else the old one."""
    return tuple(
        torch.where(chosen.view(-1, *[1] * (a.dim() - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )
