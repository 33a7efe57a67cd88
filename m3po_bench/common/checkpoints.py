"""Training that can be interrupted: what is resumed equals what went on, bit for bit.

A checkpoint is taken at an end of an episode. There the training begins anew, in the run that goes
on as in the one that is resumed: random generators and env get a fresh seed, memories start empty.
So no generator's and no simulator's state needs to be kept, and any env will do.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

MODEL, STATE = "model.zip", "state.pt"


class ExactCheckpoint(BaseCallback):
    """Keeps the latest checkpoint in a folder, for ``MetaAlgorithm.resume``.

    Args:
        folder: Where to; replaced as a whole by each checkpoint.
        every: Env steps between two checkpoints, at least; each waits for the next step at which
            the episodes of all envs end.
        verbose: As in SB3's callbacks.

    Raises:
        ValueError: If ``every`` is below 1, or the agent does not declare ``exact_resume``.
    """

    def __init__(self, folder: str | Path, every: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every={every}: expected at least 1 env step")
        self.folder, self.every = Path(folder), every
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
            self.model.checkpoint_due = self.folder  # type: ignore[attr-defined]
        return True


def write_checkpoint(folder: Path, model: Any, state: dict[str, Any]) -> None:
    """Replace the checkpoint in ``folder``; a kill leaves the old one or the new one.

    Args:
        folder: Where to.
        model: Whose SB3 archive to write.
        state: Tensors and plain values that the archive does not hold.
    """
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save(fresh / MODEL)
    torch.save(state, fresh / STATE)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path:
    """The checkpoint's folder, or that of the last one if a kill fell between two renamings.

    Raises:
        FileNotFoundError: If there is none.
    """
    for candidate in (folder, folder.with_name(f".{folder.name}.old")):
        if (candidate / STATE).is_file():
            return candidate
    raise FileNotFoundError(f"no checkpoint in {folder}: expected {MODEL} and {STATE}")
