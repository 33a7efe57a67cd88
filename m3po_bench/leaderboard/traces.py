"""What a run's final checkpoint earned step by step, and what is kept of it after each change.

The runner writes ``trace.parquet`` (``trace_file``); it is large, and not published. A report turns
it into two small tables beside it, ``CHANGES`` and ``BY_AGE``, which are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3po_bench.leaderboard.evaluation import Episode
from m3po_bench.leaderboard.metrics import (
    WINDOW,
    adaptation_regret,
    drop_depth,
    recovery,
    savings,
    segments,
)
from m3po_bench.leaderboard.store import (
    BY_AGE,
    CHANGES,
    TRACE,
    Finished,
    compressed,
    write_atomically,
)
from m3po_bench.leaderboard.trace_file import trace_columns

if TYPE_CHECKING:
    from m3po_bench.leaderboard.references import Reference, References

CHANGE_COLUMNS = (
    "episode", "step", "length", "drop", "regret", "recovery", "recovered", "savings",
)  # fmt: skip
"""One row a change of the task within an episode; times in env steps.

``length``: until the next change or the end. ``drop``: of the reward, see ``metrics.drop_depth``.
``regret``, ``recovery``, ``recovered`` and ``savings`` (where the task had been there before the
last change): see ``metrics``; empty where the package ships no references.
"""

MAX_AGE = 60
"""Steps since a change up to which mean rewards are kept."""

FEW_CHANGES = 5
"""Ages that fewer changes have lived to see are left out of ``by_age``."""

Array = NDArray[np.float64]


def trace_of(episodes: Sequence[Episode]) -> pd.DataFrame:
    """One row a step: episode, step, reward, task_id, steps_since_change."""
    return pd.DataFrame(trace_columns(episodes))


def by_age(trace: pd.DataFrame) -> pd.DataFrame:
    """Mean reward by the time since a change, over all changes of a trace.

    Returns:
        age, changes (that lived to see it), reward; no rows where nothing changes.
    """
    after = _after_changes(trace)
    ages = after[after["steps_since_change"] < MAX_AGE].groupby("steps_since_change")["reward"]
    table = pd.DataFrame({"changes": ages.size(), "reward": ages.mean()}).rename_axis("age")
    return table[table["changes"] >= FEW_CHANGES].reset_index()


def _after_changes(trace: pd.DataFrame) -> pd.DataFrame:
    """Steps of segments that a change has begun, not the reset."""
    began = trace["step"] - trace["steps_since_change"]
    return trace[began > 0]


def changes_of(trace: pd.DataFrame, references: Mapping[str, Reference]) -> pd.DataFrame:
    """A row of ``CHANGE_COLUMNS`` for each change of a trace.

    Args:
        trace: From ``trace_of``.
        references: By role, of the trace's env and schedule.
    """
    oracle = np.asarray(references["oracle"].by_age if "oracle" in references else ())
    random = np.asarray(references["random"].by_age if "random" in references else ())
    # Once it has adapted: over the second half of the ages that are known.
    settled = float(oracle[len(oracle) // 2 :].mean()) if len(oracle) else float("nan")
    baseline = float(random.mean()) if len(random) else float("nan")
    rows: list[tuple[object, ...]] = []
    if len(trace) < WINDOW * (trace["steps_since_change"] == 0).sum():
        return pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))  # a drift: no time to adapt
    for index, episode in trace.groupby("episode"):
        parts = segments(episode["reward"], episode["steps_since_change"])
        ages = segments(episode["task_id"], episode["steps_since_change"])
        tasks = [int(part[0]) for part in ages]
        start = len(parts[0])
        for i in range(1, len(parts)):
            found: list[object] = [index, start, len(parts[i]), drop_depth(parts[i - 1], parts[i])]
            found.append(adaptation_regret(parts[i], oracle) if len(oracle) else None)
            if settled > baseline:
                recovered = recovery(parts[i], baseline, settled)
                found += [recovered.time, int(recovered.observed)]
            else:
                found += [None, None]
            known = i >= 2 and tasks[i - 2] == tasks[i] and len(oracle) > 0
            found.append(savings(parts[i - 2], parts[i], oracle) if known else None)
            rows.append(tuple(found))
            start += len(parts[i])
    return pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))


def digest_traces(finished: Finished, references: References) -> None:
    """Write ``CHANGES`` and ``BY_AGE`` beside every trace of finished runs.

    Args:
        finished: From ``Store.finished``.
        references: By env and schedule.
    """
    for folder, record in finished:
        if not (folder / TRACE).is_file():
            continue
        trace = pd.read_parquet(folder / TRACE)
        known = references.get((record["env"], record["schedule"]), {})
        for name, table in ((CHANGES, changes_of(trace, known)), (BY_AGE, by_age(trace))):
            text = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
            write_atomically(folder / name, compressed(text.encode()))


def load_table(finished: Finished, name: str) -> pd.DataFrame:
    """``CHANGES`` or ``BY_AGE`` of all finished runs that have it.

    Args:
        finished: From ``Store.finished``.
        name: Of the file.

    Returns:
        A long table: agent, env, schedule, seed, then the file's columns; empty without any.
    """
    tables = []
    for folder, record in finished:
        if (folder / name).is_file():
            table = pd.read_csv(folder / name)
            for position, column in enumerate(("agent", "env", "schedule", "seed")):
                table.insert(position, column, record[column])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
