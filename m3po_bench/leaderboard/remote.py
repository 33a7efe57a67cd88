"""Runs that another machine makes into a folder that it shares with this one."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod

from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.store import ERROR, Store
from m3po_bench.leaderboard.supervision import COMPLETE, Outcome

VISIBLE_SECONDS = 90.0
"""A file that another machine wrote is seen by then: network file systems remember for a minute
that it was not there."""


class RemoteRun(ABC):
    """A run that was handed to a cluster's engine."""

    def __init__(self, spec: RunSpec, store: Store) -> None:
        self.spec = spec
        self._store = store
        self._told: float | None = None

    @abstractmethod
    def outcome(self) -> Outcome | None:
        """What the engine says of it; None while it waits or runs."""

    @abstractmethod
    def stop(self) -> None:
        """See ``Handle.stop``."""

    def poll(self) -> Outcome | None:
        """See ``Handle.poll``; what is not in the results folder here is not complete."""
        found = self.outcome()
        if found == COMPLETE and not self._store.is_finished(self.spec):
            self._told = self._told or time.monotonic()
            if time.monotonic() < self._told + VISIBLE_SECONDS:
                return None
            root = self._store.root.resolve()
            found = Outcome(
                "failed", f"was completed, but not in {root}: do all machines share it?"
            )
        if found is not None and found.kind == "failed":
            self._keep(found.reason)
        return found

    def _keep(self, reason: str) -> None:
        """A machine that died could not write why."""
        path = self._store.folder(self.spec) / ERROR
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, f"{reason}\n")


def first_line(error: Exception) -> str:
    """An error of somebody else's engine in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
