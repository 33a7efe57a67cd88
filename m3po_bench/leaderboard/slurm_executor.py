"""Runs as jobs of a Slurm cluster, by submitit.

Runs that start together are one job array. A job that is preempted or whose node fails is queued
again and makes its run again; partition, account and the like come from sbatch's own
variables, as ``SBATCH_PARTITION``.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.options import RunOptions, need
from m3po_bench.leaderboard.remote import RemoteRun, first_line
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.supervision import Outcome, make_run

JOBS = ".slurm"
"""Where jobs' orders and output are, in the results folder."""

_ARRAY = 1000
"""Most jobs at a time unless told otherwise: Slurm's own default for an array's size."""

_MARGIN_MINUTES = 10
"""A job may take longer than its run, so that it is the run that meets its limit first."""

_MARGIN_GB = 0.5


class SlurmExecutor:
    """One job of an array for each run.

    Args:
        store: Where results go; all nodes must see the folder.
        workers: Most jobs at a time; 0 for 1000.
        options: A time limit is needed: Slurm plans with it.
        gpus: For each run, a whole number.
        cluster: ``local`` makes the jobs on this machine, for tests.
    """

    def __init__(
        self, store: Store, workers: int, options: RunOptions, gpus: float, cluster: str = "slurm"
    ) -> None:
        need("--executor slurm", "submitit", extra="slurm")
        if gpus != int(gpus):
            raise SuiteError(f"--gpus {gpus:g}: Slurm hands out whole GPUs only")
        if not options.minutes:
            raise SuiteError("--executor slurm needs --time-limit-min, which Slurm plans with")
        if cluster == "slurm" and shutil.which("srun") is None:
            raise SuiteError("--executor slurm: no srun here; expected a login node of a cluster")
        self.slots = workers or _ARRAY
        self._store = Store(store.root.resolve())
        self._options = options
        self._cluster = cluster
        self._parameters: dict[str, Any] = {
            "name": "m3po-bench",
            "timeout_min": math.ceil(options.minutes) + _MARGIN_MINUTES,
            "cpus_per_task": 1,
            "gpus_per_node": int(gpus) or None,
            "mem_gb": options.memory_gb + _MARGIN_GB if options.memory_gb else None,
            "slurm_array_parallelism": self.slots,
            "slurm_additional_parameters": {"requeue": True},
        }

    def start(self, specs: Sequence[RunSpec]) -> list[SlurmRun]:
        """See ``Executor.start``."""
        import submitit

        try:
            executor = submitit.AutoExecutor(self._store.root / JOBS, cluster=self._cluster)
            executor.update_parameters(**self._parameters)
            jobs = executor.map_array(Job(self._store.root, self._options), list(specs))
        except (
            OSError,
            RuntimeError,
        ) as error:  # a full queue or disk, a partition of no such name
            return [SlurmRun(spec, self._store, first_line(error)) for spec in specs]
        return [SlurmRun(spec, self._store, job) for spec, job in zip(specs, jobs, strict=True)]


@dataclass(frozen=True)
class Job:
    """What a job does.

    Attributes:
        root: Where results go.
        options: What the run may take.
    """

    root: Path
    options: RunOptions

    def __call__(self, spec: RunSpec) -> Outcome:
        """Make a run."""
        return make_run(spec, self.root, self.options)

    def checkpoint(self, spec: RunSpec) -> Any:
        """What submitit queues again before the job is taken off its node: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, spec)


class SlurmRun(RemoteRun):
    """A run's job, or why it could not be submitted."""

    def __init__(self, spec: RunSpec, store: Store, job: Any) -> None:
        super().__init__(spec, store)
        self._job = job

    def outcome(self) -> Outcome | None:
        """See ``RemoteRun.outcome``."""
        import submitit

        if isinstance(self._job, str):
            return Outcome("failed", self._job)
        if not self._job.done():
            return None
        try:
            outcome: Outcome = self._job.result()
        except (
            submitit.core.utils.UncompletedJobError,
            submitit.core.utils.FailedJobError,
        ) as error:
            return Outcome("failed", first_line(error))
        return outcome

    def stop(self) -> None:
        """See ``Handle.stop``."""
        if not isinstance(self._job, str):
            self._job.cancel(check=False)
