"""What a run's final checkpoint earned step by step, and what is kept of it after each change.

The runner writes ``trace.parquet`` (``trace_file``); it is large, and not published. What follows
from it is kept beside it in two small tables, ``CHANGES`` and ``BY_AGE``, which are.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3po_bench.leaderboard.evaluation import Episode
from m3po_bench.leaderboard.files import compressed, decompressed, write_atomically
from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.leaderboard.metrics import (
    WINDOW,
    adaptation_regret,
    drop_depth,
    recovery,
    savings,
    segments,
)
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, OF_RUN, TRACE, Finished, Store
from m3po_bench.leaderboard.trace_file import trace_columns

if TYPE_CHECKING:
    from m3po_bench.leaderboard.references import Reference, References

CHANGE_COLUMNS = (
    "episode", "step", "length", "drop", "regret", "recovery", "recovered", "savings",
)  # fmt: skip
"""One row a change of the task within an episode; times in env steps.

``length``: until the next change or the end. ``drop``: of the reward, see ``metrics.drop_depth``.
``regret``, ``recovery``, ``recovered`` and ``savings`` (where a task that a change, not the reset,
had brought is back for the first time, after one other): see ``metrics``; empty where the package
ships no references.
"""

AGE_COLUMNS = ("age", "changes", "reward")
"""One row a number of steps since a change: how many changes lived to see it, mean reward."""

_COLUMNS = {CHANGES: CHANGE_COLUMNS, BY_AGE: AGE_COLUMNS}
MEASURED_AGAINST = "measured_against"
"""Key of ``run.json``: the fingerprint of the references that ``CHANGES`` was measured against."""
_MAY_BE_EMPTY = ("regret", "recovery", "recovered", "savings")

MAX_AGE = 60
"""Steps since a change up to which mean rewards are kept."""

FEW_CHANGES = 5
"""Ages that fewer changes have lived to see are left out of ``by_age``."""

Array = NDArray[np.float64]


def trace_of(episodes: Sequence[Episode]) -> pd.DataFrame:
    """One row a step, with ``trace_columns``."""
    return pd.DataFrame(trace_columns(episodes))


def by_age(trace: pd.DataFrame) -> pd.DataFrame:
    """Mean reward by the time since a change, over all changes of a trace.

    Returns:
        ``AGE_COLUMNS``; no rows where nothing changes.
    """
    after = _after_changes(trace)
    ages = after[after["steps_since_change"] < MAX_AGE].groupby("steps_since_change")["reward"]
    table = pd.DataFrame({"changes": ages.size(), "reward": ages.mean()}).rename_axis("age")
    return table[table["changes"] >= FEW_CHANGES].reset_index()


def _after_changes(trace: pd.DataFrame) -> pd.DataFrame:
    """Steps of segments that a change has begun, not the reset."""
    began = trace["step"] - trace["steps_since_change"]
    return trace[began > 0]


def time_limit(env: str) -> float:
    """Steps after which an env's episodes are cut off; infinite without a limit."""
    spec = gym.registry.get(env)
    return float(spec.max_episode_steps) if spec and spec.max_episode_steps else np.inf


def changes_of(
    trace: pd.DataFrame, references: Mapping[str, Reference], limit: float = np.inf
) -> pd.DataFrame:
    """A row of ``CHANGE_COLUMNS`` for each change of a trace.

    Args:
        trace: From ``trace_of``.
        references: By role, of the trace's env and schedule.
        limit: Of its env, see ``time_limit``. A fall takes away the steps until then.
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
        # Traces of before there was the column are of envs that no agent falls in.
        ended = "terminated" in episode and bool(episode["terminated"].iloc[-1])
        start = len(parts[0])
        for i in range(1, len(parts)):
            fell = ended and i == len(parts) - 1
            found: list[object] = [index, start, len(parts[i]), drop_depth(parts[i - 1], parts[i])]
            lost = int(min(max(0.0, limit - len(episode)), MAX_AGE)) if fell else 0
            found.append(adaptation_regret(parts[i], oracle, lost) if len(oracle) else None)
            if settled > baseline:
                recovered = recovery(parts[i], baseline, settled, fell)
                found += [recovered.time, int(recovered.observed)]
            else:
                found += [None, None]
            # A task that is back for the first time. What began with the reset does not count: a
            # start from rest costs reward that no change does.
            known = 0 < tasks.index(tasks[i]) == i - 2 and len(oracle) > 0
            found.append(savings(parts[i - 2], parts[i], oracle) if known else None)
            rows.append(tuple(found))
            start += len(parts[i])
    return pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))


def fingerprint(references: Mapping[str, Reference]) -> str:
    """Twelve letters that stand for what is measured against after a change of the task.

    Args:
        references: By role, of one env and schedule.
    """
    ages = {r: references[r].by_age for r in ("oracle", "random") if r in references}
    return hashlib.sha256(json.dumps(ages, sort_keys=True).encode()).hexdigest()[:12]


def digest(trace: pd.DataFrame, env: str, references: Mapping[str, Reference]) -> dict[str, bytes]:
    """``CHANGES`` and ``BY_AGE`` of a trace, as their files hold them; none without rows.

    Args:
        trace: From ``trace_of``.
        env: Id of its env.
        references: By role, of that and the trace's schedule.
    """
    tables = {CHANGES: changes_of(trace, references, time_limit(env)), BY_AGE: by_age(trace)}
    return {
        name: compressed(
            table.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()
        )
        for name, table in tables.items()
        if len(table)
    }


def write_digest(
    folder: Path, env: str, episodes: Sequence[Episode], references: Mapping[str, Reference]
) -> dict[str, str]:
    """Write ``CHANGES`` and ``BY_AGE`` into the folder of a run that is being made.

    Args:
        folder: The run's.
        env: Id of its env.
        episodes: Of its final checkpoint.
        references: By role, of its env and schedule.

    Returns:
        What the run's record is to say of them.
    """
    for name, content in digest(trace_of(episodes), env, references).items():
        write_atomically(folder / name, content)
    return {MEASURED_AGAINST: fingerprint(references)}


def digest_traces(store: Store, finished: Finished, references: References) -> None:
    """Write ``CHANGES`` and ``BY_AGE`` anew beside traces that they do not follow from.

    That is where references have changed since, or an earlier version made the run.

    Args:
        store: The results folder.
        finished: From ``store.finished``.
        references: By env and schedule.
    """
    for folder, record in finished:
        if not (folder / TRACE).is_file():
            continue
        known = references.get((record["env"], record["schedule"]), {})
        tables = digest(pd.read_parquet(folder / TRACE), record["env"], known)
        kept = {name: path.read_bytes() for name in tables if (path := folder / name).is_file()}
        measured = {MEASURED_AGAINST: fingerprint(known)}
        if tables and (kept, {**record, **measured}) != (tables, record):
            store.replace_tables(folder, tables, measured)
            record.update(measured)


def is_outdated(record: Mapping[str, Any], references: References) -> bool:
    """Whether a run's ``CHANGES`` were measured against other references than these.

    Records of before it was noted are taken to be of these.
    """
    known = references.get((record["env"], record["schedule"]), {})
    return record.get(MEASURED_AGAINST) not in (None, fingerprint(known))


def parse_table(name: str, text: str) -> pd.DataFrame:
    """What a file of ``digest`` holds.

    Args:
        name: ``CHANGES`` or ``BY_AGE``.
        text: Uncompressed.

    Raises:
        ValueError: If it has other columns, or something else than finite numbers where they must
            be; the message is one line.
    """
    columns, fits = _COLUMNS[name], False
    with contextlib.suppress(ValueError, OverflowError):
        table = pd.read_csv(io.StringIO(text))
        numbers = table.astype(float)
        needed = numbers.drop(columns=list(_MAY_BE_EMPTY), errors="ignore")
        # Where a row has more cells than there are columns, pandas makes an index of the first.
        fits = tuple(table.columns) == columns and isinstance(table.index, pd.RangeIndex)
        fits = fits and bool(np.isfinite(needed).all(axis=None))
        fits = fits and not np.isinf(numbers).any(axis=None)
    if not fits:
        raise ValueError(f"expected the columns {','.join(columns)}, of finite numbers")
    return table


def load_table(finished: Finished, name: str, references: References | None = None) -> pd.DataFrame:
    """``CHANGES`` or ``BY_AGE`` of all finished runs that have it.

    Args:
        finished: From ``Store.finished``.
        name: Of the file.
        references: What of ``CHANGES`` was measured against others is left empty.

    Returns:
        A long table: agent, env, schedule, seed, then the file's columns; empty without any.

    Raises:
        SuiteError: If a file is not what ``digest`` writes.
    """
    tables = []
    for folder, record in finished:
        path = folder / name
        if path.is_file():
            text = decompressed(path)
            try:
                table = parse_table(name, text)
            except ValueError as error:
                reason = f"{path}: {error}; run the suite again, or remove the file"
                raise SuiteError(reason) from None
            if references is not None and is_outdated(record, references):
                table[list(_MAY_BE_EMPTY)] = np.nan
            for position, column in enumerate(OF_RUN):
                table.insert(position, column, record[column])
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
