"""Training that can be interrupted: what is resumed equals what went on, bit for bit.

A checkpoint is taken at an end of an episode. There the training begins anew, in the run that goes
on as in the one that is resumed: random generators and env get a fresh seed, memories start empty.
So no generator's and no simulator's state needs to be kept, and any env will do. A checkpoint is
one file of tensors and plain values; nothing in it is unpickled.
"""

from __future__ import annotations

import os
import pickle
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

File = str | Path | BufferedIOBase
"""A path, or as SB3 takes it too a file that is open in binary mode."""


class ExactCheckpoint(BaseCallback):
    """Keeps the latest checkpoint in a file, for ``MetaAlgorithm.resume``.

    Args:
        path: The file; replaced by each checkpoint.
        every: Env steps between two checkpoints, at least; each waits for the next step at which
            the episodes of all envs end.
        verbose: As in SB3's callbacks.

    Raises:
        ValueError: If ``every`` is below 1, or the agent does not declare ``exact_resume``.
    """

    def __init__(self, path: str | Path, every: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every={every}: expected at least 1 env step")
        self.path, self.every = Path(path), every
        self._last = 0

    def _init_callback(self) -> None:
        if not getattr(self.model, "exact_resume", False):
            raise ValueError(
                f"{type(self.model).__name__} cannot be resumed exactly (exact_resume is not set); "
                "use stable_baselines3's CheckpointCallback"
            )

    def _on_training_start(self) -> None:
        self._last = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last >= self.every and self.locals["dones"].all():
            self._last = self.num_timesteps
            self.model.checkpoint_due = self.path  # type: ignore[attr-defined]
        return True


def write_checkpoint(file: File, content: dict[str, Any]) -> None:
    """Replace the checkpoint; a kill or a full disk leaves the old one.

    Args:
        file: Where to.
        content: Tensors and plain values.
    """
    if isinstance(file, BufferedIOBase):
        torch.save(content, file)  # type: ignore[arg-type]  # as below: torch wants an IO
        return
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(file: File) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is something else.
    """
    if not isinstance(file, BufferedIOBase) and not Path(file).is_file():
        raise FileNotFoundError(f"no checkpoint at {file}")
    try:
        content: dict[str, Any] = torch.load(file, weights_only=True)  # type: ignore[arg-type]
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file} is no checkpoint of an agent: {reason}") from None
    return content
