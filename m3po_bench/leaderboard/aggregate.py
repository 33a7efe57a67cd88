"""From evaluation rows to numbers: one long table of episodes, one row per leaderboard entry."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3po_bench.leaderboard.files import decompressed
from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.leaderboard.settings import (
    ONLINE,
    TEST,
    TRIAL_SCHEDULE,
    UNSEEN,
    unseen_schedule,
)
from m3po_bench.leaderboard.statistics import (
    iqm,
    mean,
    optimality_gap,
    stratified_interval,
    student_interval,
)
from m3po_bench.leaderboard.store import COLUMNS, EVALUATION, OF_RUN, Finished, is_header

LEADERBOARD_COLUMNS = (
    "agent", "env", "schedule", "setting", "split", "n_seeds", "complete",
    "return_mean", "return_low", "return_high", "score", "score_low", "score_high",
)  # fmt: skip
OVER_ENVS_COLUMNS = (
    "agent", "schedule", "setting", "split", "n_envs", "n_seeds",
    "iqm", "iqm_low", "iqm_high", "score_mean", "optimality_gap",
)  # fmt: skip
INTERVAL_SEEDS = 5
"""From this many seeds on, low and high are a 95% interval; below, the extreme seeds."""


class Key(NamedTuple):
    """What a row of the leaderboard is about."""

    agent: str
    env: str
    schedule: str
    setting: str
    split: str


class HasMean(Protocol):
    """A reference score."""

    @property
    def mean(self) -> float:
        """Mean test return."""
        ...


def load_rows(finished: Finished) -> pd.DataFrame:
    """Every evaluation row of every finished run.

    Args:
        finished: From ``Store.finished``.

    Returns:
        A long table: agent, env, schedule, seed, then the columns of ``store.COLUMNS``, then those
        of what the envs report, NaN for other envs.

    Raises:
        SuiteError: If runs of one entry were configured differently, or rows are missing,
            damaged or have other columns.
    """
    texts: list[tuple[str, str]] = []
    runs: list[tuple[Any, ...]] = []
    hashes: dict[tuple[str, str, str], str] = {}
    for folder, record in finished:
        entry = (record["agent"], record["env"], record["schedule"])
        if hashes.setdefault(entry, record["config_hash"]) != record["config_hash"]:
            raise SuiteError(
                f"{folder}: configured unlike other seeds of {' '.join(entry)}; "
                "run the suite again, or move the folder away"
            )
        if not (folder / EVALUATION).is_file():
            raise SuiteError(f"{folder}: finished, but without {EVALUATION}; run the suite again")
        content = decompressed(folder / EVALUATION)
        header, _, text = content.partition("\n")
        if not is_header(header.split(",")) or not text.endswith("\n") or "\n\n" in text:
            raise SuiteError(f"{folder / EVALUATION}: expected rows of {','.join(COLUMNS)}")
        texts.append((header, text))
        runs += [(*entry, record["seed"])] * text.count("\n")
    # As few as can be: to read a thousand small tables takes longer than all the rest of a report.
    tables = [
        pd.read_csv(io.StringIO("".join([header, "\n", *(text for _, text in alike)])))
        for header, alike in itertools.groupby(texts, key=lambda found: found[0])
    ]
    table = pd.concat(tables, ignore_index=True)
    of_run = pd.DataFrame(runs, columns=list(OF_RUN))
    return pd.concat([of_run, table], axis=1)


def measures_of(finished: Finished, rows: pd.DataFrame) -> pd.DataFrame:
    """What agents have measured about themselves, one row for each finished run.

    Args:
        finished: From ``Store.finished``.
        rows: From ``load_rows``.

    Returns:
        env, schedule, agent, seed, ``return`` (mean of the last checkpoint's test episodes), then
        a column for each of the runs' diagnostics, NaN where a run has it not.
    """
    names = ["env", "schedule", "agent", "seed"]
    returns = {
        (key.env, key.schedule, key.agent, seed): value
        for key, by_seed in seed_returns(rows).items()
        if (key.setting, key.split) == (ONLINE, TEST)
        for seed, value in by_seed.items()
    }
    found = []
    for _, record in finished:
        run = {name: record[name] for name in names}
        played = {"return": returns.get(tuple(run.values()), float("nan"))}
        found.append({**run, **played, **record.get("diagnostics", {})})
    return pd.DataFrame(found)


def seed_returns(rows: pd.DataFrame) -> dict[Key, dict[int, float]]:
    """Mean return of each seed over the episodes of its last checkpoint.

    The seed is the unit of replication: episodes are averaged first.
    """
    found: dict[Key, dict[int, float]] = {}
    by = [*Key._fields, "seed"]
    last = rows[rows["step"] == rows.groupby(by)["step"].transform("max")]
    for names, average in last.groupby(by)["return"].mean().items():
        *key, seed = names if isinstance(names, tuple) else (names,)
        found.setdefault(Key(*map(str, key)), {})[int(str(seed))] = float(average)
    return found


def reference_key(env: str, schedule: str, setting: str, split: str) -> tuple[str, str]:
    """Env and schedule of the references that an entry is measured against.

    A trial keeps its task, whatever the schedule in training. References are those of the test
    split: there are none for ood tasks, which no schedule's name stands for.
    """
    if split != TEST:
        return env, ""
    played = {ONLINE: schedule, UNSEEN: unseen_schedule(schedule)}
    return env, played.get(setting, TRIAL_SCHEDULE)


def of_common_episodes(
    rows: pd.DataFrame, among: Sequence[str] = ("env", "schedule")
) -> pd.DataFrame:
    """The rows of the first episodes, as many as every agent has played at every checkpoint.

    Only they may be compared along curves: episodes differ in how hard they are. How many there are
    follows from the online test episodes of each env and schedule.

    Args:
        rows: From ``load_rows``.
        among: Columns that name what is compared; of one agent's seeds only, with ``"agent"``.
    """
    played = rows[(rows["setting"] == ONLINE) & (rows["split"] == TEST)]
    by = ["env", "schedule", "agent", "seed", "step"]
    fewest = played.groupby(by)["episode"].nunique().groupby(list(among)).min()
    common = rows[list(among)].join(fewest.rename("common"), on=list(among))
    return rows[rows["episode"] < common["common"]]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95% interval of the mean over seeds; under five, the extreme seeds.

    Args:
        values: One number per seed.
    """
    if len(values) < INTERVAL_SEEDS:
        return min(values), max(values)
    low, high = student_interval(np.asarray(values, dtype=np.float64))
    return float(low), float(high)


def score(value: float, references: Mapping[str, HasMean]) -> float:
    """(value - random) / (oracle - random); NaN where references are missing or not ordered."""
    if "random" not in references or "oracle" not in references:
        return float("nan")
    low, high = references["random"].mean, references["oracle"].mean
    return (value - low) / (high - low) if high > low else float("nan")


def leaderboard(
    rows: pd.DataFrame,
    references: Mapping[tuple[str, str], Mapping[str, HasMean]],
    seeds_asked: int,
) -> pd.DataFrame:
    """The table of ``leaderboard.csv``.

    Args:
        rows: From ``load_rows``.
        references: References by role, for each env and schedule.
        seeds_asked: Seeds that make an entry complete.

    Returns:
        ``LEADERBOARD_COLUMNS``; sorted by env and schedule, best return first.
    """
    entries = []
    for key, by_seed in seed_returns(rows).items():
        returns = list(by_seed.values())
        centre, (low, high) = float(np.mean(returns)), interval(returns)
        known = references.get(reference_key(*key[1:]), {})
        entries.append(
            (*key, len(returns), len(returns) >= seeds_asked, centre, low, high)
            + tuple(score(value, known) for value in (centre, low, high))
        )
    table = pd.DataFrame(entries, columns=list(LEADERBOARD_COLUMNS))
    order = ["env", "schedule", "setting", "split", "return_mean", "agent"]
    ascending = [name != "return_mean" for name in order]
    return table.sort_values(order, ascending=ascending, ignore_index=True)


def scores_by_group(
    rows: pd.DataFrame, references: Mapping[tuple[str, str], Mapping[str, HasMean]]
) -> dict[tuple[str, ...], list[NDArray[np.float64]]]:
    """Scores over seeds, an array for each env that has references.

    Returns:
        By agent, schedule, setting and split.
    """
    strata: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
    for key, by_seed in seed_returns(rows).items():
        known = references.get(reference_key(*key[1:]), {})
        scores = np.array([score(value, known) for value in by_seed.values()])
        if not np.isnan(scores).any():
            strata.setdefault((key.agent, key.schedule, key.setting, key.split), []).append(scores)
    return strata


def over_envs(
    rows: pd.DataFrame, references: Mapping[tuple[str, str], Mapping[str, HasMean]]
) -> pd.DataFrame:
    """Scores taken together over envs, for agents that have at least two with references.

    Args:
        rows: From ``load_rows``.
        references: References by role, for each env and schedule.

    Returns:
        ``OVER_ENVS_COLUMNS``, ``n_seeds`` being the smallest of an env; sorted by schedule, best
        interquartile mean first. No interval where an env has under five seeds.
    """
    strata = scores_by_group(rows, references)
    entries = []
    for group, scores_of in strata.items():
        if len(scores_of) < 2:
            continue
        n_seeds = min(len(scores) for scores in scores_of)
        low = high = float("nan")
        if n_seeds >= INTERVAL_SEEDS:
            low, high = stratified_interval(iqm, scores_of)
        entries.append(
            (*group, len(scores_of), n_seeds, float(iqm(scores_of)), low, high,
             float(mean(scores_of)), float(optimality_gap(scores_of)))
        )  # fmt: skip
    table = pd.DataFrame(entries, columns=list(OVER_ENVS_COLUMNS))
    order = ["schedule", "setting", "split", "iqm", "agent"]
    return table.sort_values(order, ascending=[name != "iqm" for name in order], ignore_index=True)
