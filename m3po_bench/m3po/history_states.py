"""History states as D_env stores them: kept up to date step by step, or recomputed at once."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from m3po_bench.common.sequence_replay import SequenceReplay


class HistoryStates:
    """What the meta-model and the meta-policy do alike with the states of what they encode.

    Attributes:
        state_dim: Columns of a state.
    """

    state_dim: int

    @abstractmethod
    def step_state(
        self, state: Tensor, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor
    ) -> Tensor:
        """The history state after one more transition, shape (n, state_dim).

        Args:
            state: Shape (n, state_dim).
            obs: Shape (n, obs_dim).
            action: In [-1, 1], shape (n, action_dim).
            reward: Shape (n,).
            next_obs: Shape (n, obs_dim).
        """

    @torch.no_grad()
    def carry_states(self, replay: SequenceReplay) -> None:
        """Take the newest transitions into their history states."""
        last = replay.last
        new = self.step_state(last.state, last.obs, last.action, last.reward, last.next_obs)
        replay.set_last_next_state(new)

    @torch.no_grad()
    def refresh_states(self, replay: SequenceReplay) -> None:
        """Recompute the history state of every stored step, all sequences side by side."""
        if self.state_dim == 0:
            return
        sequences = replay.sequences()
        state = torch.zeros(sequences.rows.shape[1], self.state_dim)
        states, next_states = [], []
        for rows, cut in zip(sequences.rows, sequences.cut, strict=True):
            data = replay.take(rows)
            states.append(state)
            new = self.step_state(state, data.obs, data.action, data.reward, data.next_obs)
            state = torch.where(cut[:, None], state, new)
            next_states.append(state)
        replay.set_states(sequences, torch.stack(states), torch.stack(next_states))
