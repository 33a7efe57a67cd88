"""Where an interrupted run goes on from, if its agent can be resumed exactly.

The agent keeps its own state in one file (``exact_resume``, ``checkpoint_due`` and ``resume`` of
``common.meta_algorithm``). A note beside it says what it belongs to, and what had been spent at the
checkpoint's env step: it is written first, so it still knows the checkpoint before the one that is
due, which a kill in between leaves. Nothing is unpickled.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard import provenance
from m3po_bench.leaderboard.files import read_json, write_atomically
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.store import CHECKPOINT, CHECKPOINT_NOTE

CHECKPOINT_EVERY = 5_000
"""Env steps between two checkpoints. At each an agent takes a new seed (or else it could not be
resumed), so this number decides results and is not for the user to choose."""


class RunCheckpoint:
    """A run's last checkpoint.

    Args:
        folder: The run's.
        spec: What is run.
        every: Env steps between two.

    Attributes:
        made_by: Configuration, seed, commit and versions at the start, which may change meanwhile.
    """

    def __init__(self, folder: Path, spec: RunSpec, every: int = CHECKPOINT_EVERY) -> None:
        self._path, self._note = folder / CHECKPOINT, folder / CHECKPOINT_NOTE
        self._every, self._last = every, 0
        self._end = spec.budget.steps
        self._at: dict[str, dict[str, Any]] = {}
        self.made_by: dict[str, Any] = {
            "config_hash": spec.config_hash,
            "seed": spec.seed,
            "commit": provenance.commit(),
            "versions": provenance.versions(),
        }

    def take_over(self, make: Callable[[], Any]) -> tuple[Any, dict[str, Any] | None]:
        """An agent that goes on from here, or a new one where nothing can be gone on from.

        Args:
            make: Makes the run's agent anew.

        Returns:
            The agent, and what ``look`` was given for the note; None for a new one.
        """
        model, noted = make(), self._noted()
        if noted and _can_resume(model):
            try:
                model.resume(self._path)
                self._last = int(model.num_timesteps)
                note = noted[str(self._last)]
            except Exception as error:  # cut short or edited: whatever it raises
                reason = f"{type(error).__name__}: {error}"
                warnings.warn(f"{self._path} cannot be gone on from: {reason}", stacklevel=2)
                model, self._last = make(), 0  # half of the other may have been taken over
            else:
                self._at = {str(self._last): note}
                return model, note
        self.clear()
        return model, None

    def look(self, model: Any, dones: Any, note: Callable[[], dict[str, Any]]) -> None:
        """Ask the agent for a checkpoint where one is due; called after every env step.

        Args:
            model: The agent.
            dones: Whether the training envs' episodes have ended.
            note: Makes plain values to find again.
        """
        step = int(model.num_timesteps)
        due = step - self._last >= self._every and step < self._end
        if due and _can_resume(model) and all(dones):
            self._last = step
            self._at = dict([*self._at.items(), (str(step), note())][-2:])
            write_atomically(self._note, json.dumps({"made_by": self.made_by, "at": self._at}))
            model.checkpoint_due = self._path

    def clear(self) -> None:
        """Remove it."""
        for path in (self._note, self._path):
            path.unlink(missing_ok=True)

    def _noted(self) -> dict[str, Any]:
        """What ``look`` was given, by env step; nothing where it does not belong to this run."""
        try:
            note = read_json(self._note)
        except ValueError:
            return {}
        changed = str(self.made_by["commit"]).endswith("+")  # since when, nobody can tell
        if not isinstance(note, dict) or changed or not self._path.is_file():
            return {}
        noted = note.get("at") if note.get("made_by") == self.made_by else None
        return noted if isinstance(noted, dict) else {}


def _can_resume(model: Any) -> bool:
    return bool(getattr(model, "exact_resume", False))
