"""Where runs are made: here, one spawned process each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.store import ERROR, LOG, PROGRESS, Store
from m3po_bench.registry import unknown_name

EXECUTORS = ("local",)
PLANNED = ("ray", "slurm")
_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
_PATIENCE = 3.0


class Handle(Protocol):
    """A run that was started."""

    spec: RunSpec

    def poll(self) -> bool | None:
        """None while it runs, then whether it is complete."""
        ...

    def stop(self) -> None:
        """End it, finished or not."""
        ...


class Executor(Protocol):
    """Starts runs."""

    def start(self, spec: RunSpec) -> Handle:
        """Start a run."""
        ...


class LocalExecutor:
    """One process of this machine for each run, with one thread for numerical libraries.

    Processes share nothing, so that one that is killed hurts nobody else.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def start(self, spec: RunSpec) -> LocalProcess:
        """Spawn the run's process."""
        return LocalProcess(spec, self.store)


class LocalProcess:
    """A run's process."""

    def __init__(self, spec: RunSpec, store: Store) -> None:
        self.spec = spec
        self._store = store
        self._folder = store.folder(spec)
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in (ERROR, PROGRESS):
            (self._folder / stale).unlink(missing_ok=True)
        one_thread = {f"{library}_NUM_THREADS": "1" for library in _THREADS}
        with (self._folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "m3po_bench.leaderboard.runner"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **one_thread, "MPLBACKEND": "agg"},
            )
        # The pipe stays open: the child ends when it is closed, which a killed parent does too.
        self._send({"spec": spec.to_dict(), "root": str(store.root)})

    def _send(self, order: dict[str, object]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return  # it died at once; poll() says so

    def poll(self) -> bool | None:
        """See ``Handle.poll``; a process that died without a word gets an ``error.txt``."""
        status = self._process.poll()
        if status is None:
            return None
        self._close()
        if self._store.is_finished(self.spec):
            return True
        error = self._folder / ERROR
        if not error.exists():
            error.write_text(f"{_how_it_ended(status)}\n{_tail(self._folder / LOG)}")
        return False

    def stop(self) -> None:
        """See ``Handle.stop``."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def make_executor(name: str, store: Store) -> Executor:
    """The executor of a name.

    Raises:
        SuiteError: If it is not there yet.
        UnknownNameError: If there is none of that name.
    """
    if name in PLANNED:
        raise SuiteError(f"executor {name!r} is not available; available: {', '.join(EXECUTORS)}")
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    return LocalExecutor(store)


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}, without a result"


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
