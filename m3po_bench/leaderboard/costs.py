"""What finished runs have cost, and what further ones are likely to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.store import Finished, Store

RUNS_COLUMNS = (
    "env", "schedule", "agent", "seed", "env_steps",
    "training_core_minutes", "training_wall_minutes", "evaluation_core_minutes",
    "peak_memory_mb", "threads", "cpu", "commit", "config_hash",
)  # fmt: skip
"""Columns of ``runs.csv``; results/README.md explains."""


def run_costs(finished: Finished) -> pd.DataFrame:
    """What each run took and where it was made: the table of ``runs.csv``.

    Args:
        finished: From ``Store.finished``.

    Returns:
        ``RUNS_COLUMNS``, sorted by the first four; NaN where a record does not tell.
    """
    runs = [
        {
            **record,
            "training_core_minutes": _minutes(record, "training_seconds", "cpu"),
            "training_wall_minutes": _minutes(record, "training_seconds", "wall"),
            "evaluation_core_minutes": _minutes(record, "evaluation_seconds", "cpu"),
        }
        for _, record in finished
    ]
    table = pd.DataFrame(runs).reindex(columns=list(RUNS_COLUMNS))
    return table.sort_values(list(RUNS_COLUMNS[:4]), ignore_index=True)


def _minutes(record: Mapping[str, Any], phase: str, clock: str) -> float:
    return float(record.get(phase, {}).get(clock, float("nan"))) / 60.0


class Costs:
    """Core-seconds of training an env step and of evaluating a run, by agent, preset and env.

    Args:
        stores: Where finished runs are looked for. Machines differ, and so will the estimate.
    """

    def __init__(self, stores: Iterable[Store]) -> None:
        by_kind: defaultdict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
        for store in stores:
            for _, record in store.finished():
                try:
                    spent = _core_seconds(record)
                    kind = (record["registered_as"], record["config"]["preset"])
                except (KeyError, TypeError, ZeroDivisionError):  # of an earlier version
                    continue
                by_kind[kind].append(spent)
                by_kind[*kind, record["env"]].append(spent)
        self._known = {kind: np.median(of, axis=0) for kind, of in by_kind.items()}

    def core_seconds(self, spec: RunSpec) -> float | None:
        """Estimate for one run; None where no run of its agent and preset is known.

        Args:
            spec: The run; runs of the same env are preferred.
        """
        kind = (spec.variant.agent, spec.budget.preset)
        known = self._known.get((*kind, spec.env), self._known.get(kind))
        if known is None:
            return None
        step, evaluation = known
        return float(step * spec.budget.steps + evaluation)


def _core_seconds(record: Mapping[str, Any]) -> tuple[float, float]:
    """Of an env step in training, and of the run's evaluation: most of it follows training."""
    spent = (record[f"{phase}_seconds"]["cpu"] for phase in ("training", "evaluation"))
    training, evaluation = map(float, spent)
    return training / record["env_steps"], evaluation
