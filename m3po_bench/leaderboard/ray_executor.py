"""Runs as tasks of a Ray cluster.

Ray decides where each is made, from the processors, GPUs and memory that it asks for; there it is
supervised like a run of this machine. A task whose worker or node dies is made again elsewhere, by
Ray; its lock, then a dead holder's, is taken over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.options import RunOptions, need
from m3po_bench.leaderboard.remote import RemoteRun, first_line
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.supervision import Outcome, make_run

_LOSSES = 3
"""How many workers or nodes may die under one run before it has failed."""


class RayExecutor:
    """One Ray task for each run.

    The cluster is the one that ``RAY_ADDRESS`` names, else one that runs on this machine, else one
    that is started here.
    """

    def __init__(self, store: Store, workers: int, options: RunOptions, gpus: float) -> None:
        need("--executor ray", "ray", extra="ray")
        self.slots = workers or sys.maxsize
        self._store = Store(store.root.resolve())  # workers have folders of their own
        self._options = options
        self._resources: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus}
        if options.memory_gb:
            self._resources["memory"] = int(options.memory_gb * 2**30)

    def start(self, specs: Sequence[RunSpec]) -> list[RayRun]:
        """See ``Executor.start``.

        Raises:
            SuiteError: If there is no cluster at ``RAY_ADDRESS``.
        """
        import ray

        if not ray.is_initialized():
            # Else Ray looks a quarter of an hour for a cluster that is not there.
            os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                raise SuiteError(f"--executor ray: {first_line(error)}") from None
        task = ray.remote(max_retries=_LOSSES, **self._resources)(make_run)
        return [
            RayRun(spec, self._store, task.remote(spec, self._store.root, self._options))
            for spec in specs
        ]


class RayRun(RemoteRun):
    """A run's Ray task."""

    def __init__(self, spec: RunSpec, store: Store, reference: Any) -> None:
        super().__init__(spec, store)
        self._reference = reference

    def outcome(self) -> Outcome | None:
        """See ``RemoteRun.outcome``."""
        import ray

        if not ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            outcome: Outcome = ray.get(self._reference)
        except ray.exceptions.RayError as error:
            return Outcome("failed", first_line(error))
        return outcome

    def stop(self) -> None:
        """See ``Handle.stop``; the task's own clean-up ends the run's process."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(self._reference)
