"""Agents whose stored steps can be kept in a file of their own, as those of SB3's off-policy ones.

SB3's ``CheckpointCallback(save_replay_buffer=True)`` asks every agent that has a ``replay_buffer``
for ``save_replay_buffer``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from m3po_bench.common.checkpoints import File, read_checkpoint, write_checkpoint
from m3po_bench.common.meta_algorithm import MetaAlgorithm


class ReplayAlgorithm(MetaAlgorithm):
    """A ``MetaAlgorithm`` that learns again and again from stored steps; ``save`` leaves them out.

    A subclass says what is stored (``_stored``) and how to go on with it (``_take_over``).
    """

    @abstractmethod
    def _stored(self) -> dict[str, Any]:
        """What is stored, as tensors and plain values."""

    @abstractmethod
    def _take_over(self, stored: dict[str, Any]) -> None:
        """The inverse of ``_stored``.

        Raises:
            ValueError: If it is of another kind of agent, or does not fit this one.
        """

    def save_replay_buffer(self, path: File) -> None:
        """Save the stored steps, as SB3's method of this name does; nothing is pickled."""
        write_checkpoint(path, self._stored())

    def load_replay_buffer(self, path: File) -> None:
        """Go on with saved steps, in new episodes; nothing is unpickled.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If they were saved by another kind of agent, or do not fit this one: from
                another env or number of envs.
        """
        self._take_over(read_checkpoint(path))
        self._last_obs = None  # a running episode would be stored as the last saved one's end
