"""Replay of whole sequences: real transitions in order, with the history state at each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class RealTransitions(NamedTuple):
    """Real transitions; leading axes are (n,) for samples, (length, n) for windows.

    Attributes:
        obs: Shape (..., obs_dim).
        action: In [-1, 1], shape (..., action_dim).
        reward: Shape (...,).
        next_obs: Shape (..., obs_dim).
        terminated: 1 where the episode ended in a terminal state, shape (...,).
        state: History state at ``obs``, shape (..., state_dim).
        next_state: History state at ``next_obs``, shape (..., state_dim).
        sequence: Number of the sequence, shape (...,), int64.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    state: Tensor
    next_state: Tensor
    sequence: Tensor


class Sequences(NamedTuple):
    """Every stored sequence, side by side and padded; time first.

    Attributes:
        rows: Where each transition is stored, shape (longest, n_sequences); padding repeats.
        valid: False for padding, shape (longest, n_sequences).
        cut: True where the next observation belongs to another episode of the same trial,
            so that the memory skips the transition; shape (longest, n_sequences).
    """

    rows: Tensor
    valid: Tensor
    cut: Tensor


class SequenceReplay:
    """Transitions of ``n_envs`` parallel streams, in the order they happened.

    A *sequence* is what memory lasts for: an episode, or a trial of several. The transition that
    a trial's wrapper puts between two inner episodes is stored as ``cut`` and never sampled: its
    next observation belongs to another episode.

    Storage grows by doubling up to ``max_steps`` and is a ring from then on. Sampling uses
    torch's global generator, which SB3 seeds.

    Args:
        n_envs: Number of parallel streams.
        obs_dim: Width of observations.
        action_dim: Width of actions.
        state_dim: Width of history states.
        max_steps: Transitions kept over all streams.
    """

    def __init__(
        self, n_envs: int, obs_dim: int, action_dim: int, state_dim: int, max_steps: int
    ) -> None:
        self.n_envs = n_envs
        self._max_length = max(1, max_steps // n_envs)
        self._capacity = min(1024, self._max_length)
        self._n_added = 0
        self._n_sequences = 0
        self._sequence = torch.full((n_envs,), -1, dtype=torch.int64)
        shape = (self._capacity, n_envs)
        self._data = RealTransitions(
            obs=torch.zeros(*shape, obs_dim),
            action=torch.zeros(*shape, action_dim),
            reward=torch.zeros(shape),
            next_obs=torch.zeros(*shape, obs_dim),
            terminated=torch.zeros(shape),
            state=torch.zeros(*shape, state_dim),
            next_state=torch.zeros(*shape, state_dim),
            sequence=torch.full(shape, -1, dtype=torch.int64),
        )
        self._cut = torch.zeros(shape, dtype=torch.bool)

    def __len__(self) -> int:
        """Number of stored transitions over all streams."""
        return min(self._n_added, self._capacity) * self.n_envs

    def add(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        starts: Tensor,
        cut: Tensor,
    ) -> None:
        """Append one transition of every stream.

        Its history state is empty where a sequence starts, else the one that the last transition
        led to. Until ``set_last_next_state`` says otherwise it leads to the same again.

        Args:
            obs: Shape (n_envs, obs_dim).
            action: In [-1, 1], shape (n_envs, action_dim).
            reward: Shape (n_envs,).
            next_obs: What followed, before any reset; shape (n_envs, obs_dim).
            terminated: Whether ``next_obs`` is terminal, shape (n_envs,).
            starts: Whether a sequence begins with this transition; shape (n_envs,), bool.
            cut: Whether ``next_obs`` belongs to another episode; shape (n_envs,), bool.
        """
        if self._n_added == self._capacity < self._max_length:
            self._grow()
        for stream in torch.nonzero(starts).flatten():
            self._sequence[stream] = self._n_sequences
            self._n_sequences += 1
        row = self._n_added % self._capacity
        data = self._data
        data.obs[row], data.action[row], data.reward[row] = obs, action, reward
        data.next_obs[row], data.terminated[row] = next_obs, terminated
        carried = torch.where(starts[:, None], 0.0, data.next_state[row - 1])
        data.state[row], data.next_state[row] = carried, carried
        data.sequence[row], self._cut[row] = self._sequence, cut
        self._n_added += 1

    def _grow(self) -> None:
        extra = min(self._capacity, self._max_length - self._capacity)
        self._data = RealTransitions(
            *(torch.cat([x, torch.zeros((extra, *x.shape[1:]), dtype=x.dtype)]) for x in self._data)
        )
        self._cut = torch.cat([self._cut, torch.zeros((extra, self.n_envs), dtype=torch.bool)])
        self._capacity += extra

    def take(self, rows: Tensor) -> RealTransitions:
        """The transitions stored at flat ``rows`` (of any shape)."""
        flat, shape = rows.flatten(), rows.shape
        return RealTransitions(  # half the time of indexing by rows
            *(x.flatten(0, 1).index_select(0, flat).view(*shape, *x.shape[2:]) for x in self._data)
        )

    def sample(self, n: int, recency: float = 1.0) -> RealTransitions:
        """``n`` transitions with replacement.

        Args:
            n: How many.
            recency: 1 draws uniformly. With c, the share of what is stored that is older than a
                transition drawn is below x with probability x^c.
        """
        return self.take(self._sample_rows(n, recency))

    def _sample_rows(self, n: int, recency: float = 1.0) -> Tensor:
        stored = len(self) // self.n_envs
        steps = (stored * torch.rand(n, dtype=torch.float64) ** (1.0 / recency)).long()
        rows = self._rows(steps.clamp(max=stored - 1), torch.randint(self.n_envs, (n,)))
        again = torch.nonzero(self._cut.flatten()[rows]).flatten()
        if len(again):  # rare: one transition per inner episode of a trial
            rows[again] = self._sample_rows(len(again), recency)
        return rows

    def sample_first(self, n: int) -> RealTransitions:
        """``n`` first transitions of stored sequences, uniformly with replacement.

        Once the ring is full, the oldest sequence of each stream may have lost its beginning, and
        is left out.

        Raises:
            ValueError: If no sequence is left, each being as long as the ring.
        """
        first = self.sequences().rows[0]
        if self._n_added > self._capacity:
            first = first[first // self.n_envs != self._oldest % self._capacity]
        if len(first) == 0:
            raise ValueError(
                f"no first step of a sequence is stored: expected a replay of more than "
                f"{self._capacity} steps of each env, or shorter episodes"
            )
        return self.take(first[torch.randint(len(first), (n,))])

    @property
    def longest_sequence(self) -> int:
        """Steps of the longest stored sequence."""
        return len(self.sequences().rows)

    def windows(self, n: int, length: int) -> tuple[RealTransitions, Tensor]:
        """``n`` contiguous pieces of up to ``length`` steps, starting anywhere.

        A piece ends with its episode, or where the stored data do; what would lie behind is
        marked as not valid.

        Returns:
            Transitions of shape (length, n, ...) and their validity, shape (length, n).
        """
        stored = len(self) // self.n_envs
        step = torch.randint(stored, (n,))  # 0 = the oldest stored step
        stream = torch.randint(self.n_envs, (n,))
        return self._from(step, stream, length)

    def windows_to_learn_from(
        self, n: int, length: int, burn_in: int, recency: float = 1.0
    ) -> tuple[RealTransitions, Tensor]:
        """``n`` contiguous pieces of up to ``length`` steps, the first of them for burn-in.

        A piece reaches ``burn_in`` or more steps back from a step drawn as by ``sample``, as far as
        its episode goes. So a piece that begins with its episode is no rarer than others, and there
        nothing has to be burnt in: all of it is learnt from.

        Returns:
            Transitions of shape (length, n, ...) and which to learn from, shape (length, n), bool.
        """
        drawn = self._sample_rows(n, recency)
        stream = drawn % self.n_envs
        step = (drawn // self.n_envs - self._oldest) % self._capacity
        wanted = torch.randint(burn_in, length, (n,))
        steps = step - torch.arange(1, length + 1)[:, None]  # one more than wanted
        rows = self._rows(steps, stream)
        same = self._data.sequence.flatten()[rows] == self._data.sequence.flatten()[drawn]
        before = ((steps >= 0) & same & ~self._cut.flatten()[rows]).int().cumprod(0).sum(0)
        window, valid = self._from(step - torch.minimum(wanted, before), stream, length)
        burnt_in = torch.arange(length)[:, None] >= burn_in
        return window, valid & (burnt_in | (wanted >= before))

    def _from(self, step: Tensor, stream: Tensor, length: int) -> tuple[RealTransitions, Tensor]:
        stored = len(self) // self.n_envs
        steps = step + torch.arange(length)[:, None]
        inside = steps < stored
        rows = self._rows(steps.clamp(max=stored - 1), stream)
        same = self._data.sequence.flatten()[rows] == self._data.sequence.flatten()[rows[0]]
        cut = self._cut.flatten()[rows]
        behind_cut = torch.cumsum(cut.int(), 0).bool()  # includes the cut transition itself
        return self.take(rows), inside & same & ~behind_cut

    @property
    def _oldest(self) -> int:
        return max(0, self._n_added - self._capacity)

    def _rows(self, steps: Tensor, stream: Tensor) -> Tensor:
        return ((self._oldest + steps) % self._capacity) * self.n_envs + stream

    def sequences(self) -> Sequences:
        """Every stored sequence in full, for recomputing its history states."""
        stored = len(self) // self.n_envs
        steps = torch.arange(stored)[:, None].expand(stored, self.n_envs)
        rows = self._rows(steps, torch.arange(self.n_envs)[None, :]).T.flatten()
        number = self._data.sequence.flatten()[rows]  # constant along each sequence
        _, lengths = torch.unique_consecutive(number, return_counts=True)
        starts = torch.cumsum(lengths, 0) - lengths
        time = torch.arange(int(lengths.max()))[:, None]
        valid = time < lengths
        padded = rows[starts + torch.minimum(time, lengths - 1)]
        return Sequences(padded, valid, self._cut.flatten()[padded])

    def set_states(self, sequences: Sequences, state: Tensor, next_state: Tensor) -> None:
        """Store recomputed history states, each of shape (longest, n_sequences, state_dim)."""
        rows = sequences.rows[sequences.valid]
        self._data.state.flatten(0, 1)[rows] = state[sequences.valid]
        self._data.next_state.flatten(0, 1)[rows] = next_state[sequences.valid]

    def set_last_next_state(self, next_state: Tensor) -> None:
        """Store the history states that the newest transitions lead to, (n_envs, state_dim).

        A ``cut`` transition keeps its state: memory skips it.
        """
        row = (self._n_added - 1) % self._capacity
        cut = self._cut[row][:, None]
        self._data.next_state[row] = torch.where(cut, self._data.state[row], next_state)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything stored, as tensors by name."""
        counters = torch.tensor([self._n_added, self._n_sequences])
        return {
            **self._data._asdict(),
            "cut": self._cut,
            "counters": counters,
            "current_sequence": self._sequence,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``.

        Raises:
            ValueError: If what was stored is no such replay, or has another shape than this one.
        """
        if missing := set(self.state_dict()) - set(state):
            raise ValueError(
                f"replay buffer: {sorted(missing)} missing, expected what an agent of this class "
                f"has saved, got {sorted(state)}"
            )
        for name, mine in self._data._asdict().items():
            theirs = state[name].shape
            if theirs[1:] != mine.shape[1:]:
                raise ValueError(
                    f"replay buffer: {name} of shape {tuple(theirs[1:])}, expected "
                    f"{tuple(mine.shape[1:])}: another env, number of envs or history size"
                )
        self._data = RealTransitions(*(state[name].clone() for name in RealTransitions._fields))
        self._cut = state["cut"].clone()
        self._n_added, self._n_sequences = (int(x) for x in state["counters"])
        self._sequence = state["current_sequence"].clone()
        self._capacity = len(self._cut)
        self._max_length = max(self._max_length, self._capacity)

    @property
    def last(self) -> RealTransitions:
        """The newest transition of every stream, shape (n_envs, ...)."""
        row = (self._n_added - 1) % self._capacity
        return RealTransitions(*(x[row].clone() for x in self._data))

    @property
    def all(self) -> RealTransitions:
        """Every stored transition, shape (len, ...), in no particular order."""
        return self.take(torch.arange(len(self)))
