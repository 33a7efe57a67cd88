"""Where runs are made: here, or on a cluster that somebody else's engine hands out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.ray_executor import RayExecutor
from m3po_bench.leaderboard.slurm_executor import SlurmExecutor
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.supervision import Outcome, SupervisedProcess
from m3po_bench.registry import unknown_name

EXECUTORS = ("local", "ray", "slurm")


class Handle(Protocol):
    """A run that was started."""

    spec: RunSpec

    def poll(self) -> Outcome | None:
        """None while it waits or runs, then what has become of it."""
        ...

    def stop(self) -> None:
        """End it, finished or not."""
        ...


class Executor(Protocol):
    """Starts runs.

    Attributes:
        slots: How many may be started and not ended at a time.
    """

    slots: int

    def start(self, specs: Sequence[RunSpec]) -> Sequence[Handle]:
        """Start runs; what goes wrong with one is told by its handle."""
        ...


class LocalExecutor:
    """One process of this machine for each run, with one thread for numerical libraries.

    Processes share nothing, so that one that is killed hurts nobody else.
    """

    def __init__(self, store: Store, workers: int, options: RunOptions) -> None:
        self.slots = workers or _processors()
        self._store = store
        self._options = options

    def start(self, specs: Sequence[RunSpec]) -> list[SupervisedProcess]:
        """See ``Executor.start``."""
        return [SupervisedProcess(spec, self._store, self._options) for spec in specs]


def _processors() -> int:
    """Those that this process may use, of a container or of a cluster's job, not the machine's."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_executor(
    name: str, store: Store, workers: int, options: RunOptions, gpus: float = 0.0
) -> Executor:
    """The executor of a name.

    Args:
        name: One of ``EXECUTORS``.
        store: Where results go.
        workers: How many runs at a time; 0 for as many as there is room for.
        options: What one run may take.
        gpus: GPUs for each run, where the executor hands them out.

    Raises:
        SuiteError: If a number is impossible, or the executor cannot be used here.
        UnknownNameError: If there is none of that name.
    """
    if workers < 0:
        raise SuiteError(f"--workers {workers}: expected 1 or more, or 0 for all cores")
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    if not 0 <= gpus < float("inf"):
        raise SuiteError(f"--gpus {gpus}: expected a positive number, or 0 for none")
    if name == "ray":
        return RayExecutor(store, workers, options, gpus)
    if name == "slurm":
        return SlurmExecutor(store, workers, options, gpus)
    if gpus:
        raise SuiteError(f"--gpus {gpus:g}: only --executor ray and slurm hand out GPUs")
    return LocalExecutor(store, workers, options)
