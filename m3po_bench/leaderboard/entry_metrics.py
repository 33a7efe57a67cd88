"""Metrics of leaderboard entries beside return and score; seeds first, then their mean."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from m3po_bench.leaderboard.aggregate import of_common_episodes, reference_key, score, seed_returns
from m3po_bench.leaderboard.metrics import (
    area_under_curve,
    cvar,
    median_time,
    recovery_times,
    restricted_mean,
    steps_to,
    survival,
)
from m3po_bench.leaderboard.settings import ONLINE, OOD, TEST, UNSEEN
from m3po_bench.leaderboard.traces import time_limit

if TYPE_CHECKING:
    from m3po_bench.leaderboard.references import References

ENTRY = ["agent", "env", "schedule", "setting", "split"]
_RUN = [*ENTRY, "seed"]
METRICS = (
    "curve_area", "steps_to_50", "steps_to_80", "cvar_10", "falls_per_1000",
    "changes", "drop", "regret", "recovery_time", "recovery_median", "never_recovered",
    "savings", "ood_gap", "schedule_gap",
)  # fmt: skip
"""Columns of ``leaderboard.csv`` after those of return and score; results/README.md explains."""

RECOVERY_HORIZON = 60
"""Env steps after a change up to which recovery is looked for."""


def entry_metrics(
    rows: pd.DataFrame, changes: pd.DataFrame, references: References
) -> pd.DataFrame:
    """``ENTRY`` and ``METRICS`` for each entry; NaN where there is nothing to measure.

    Args:
        rows: From ``aggregate.load_rows``.
        changes: ``CHANGES`` of all runs, from ``traces.load_table``; of the final checkpoint's
            online test episodes.
        references: By env and schedule.
    """
    after = changes.assign(setting=ONLINE, split=TEST) if len(changes) else rows[:0]
    table = _over_seeds(_finals(rows))
    for found in (_curves(rows, references), _of_groups(after.groupby(_RUN), _changes)):
        table = table.merge(_over_seeds(found), on=ENTRY, how="left")
    table = table.merge(_gaps(rows, references), on=ENTRY, how="left")
    return table.reindex(columns=[*ENTRY, *METRICS]).replace(np.inf, np.nan)


def _over_seeds(found: pd.DataFrame) -> pd.DataFrame:
    return found.drop(columns="seed").groupby(ENTRY, as_index=False).mean()


def _of_groups(
    groups: Iterable[tuple[Hashable, Any]], measure: Callable[..., Mapping[str, float]]
) -> pd.DataFrame:
    found = [
        {**dict(zip(_RUN, run, strict=True)), **measure(group)}
        for run, group in groups
        if isinstance(run, tuple)
    ]
    return pd.DataFrame(found, columns=None if found else _RUN)


def _curves(rows: pd.DataFrame, references: References) -> pd.DataFrame:
    # An agent's own: what is said of it must not depend on which others are beside it.
    common = of_common_episodes(rows, among=["env", "schedule", "agent"])
    # All else is played at the last checkpoint only, and has no curve.
    common = common[(common["setting"] == ONLINE) & (common["split"] == TEST)]
    # One mean over all runs: one for each of a thousand runs takes as long as all the figures.
    curves = common.groupby([*_RUN, "step"])["return"].agg(["mean", "size"])
    return _of_groups(curves.groupby(level=_RUN), lambda curve: _curve(curve, references))


def _curve(curve: pd.DataFrame, references: References) -> dict[str, float]:
    names, episodes = curve.index[0], int(curve["size"].iloc[0])
    steps, returns = curve.index.get_level_values("step").to_numpy(), curve["mean"].to_numpy()
    found = {"curve_area": area_under_curve(steps, returns) if len(steps) > 1 else np.nan}
    known = references.get(reference_key(*names[1 : len(ENTRY)]), {})
    if {"random", "oracle"} <= set(known):
        low, high = (known[role].in_first(episodes) for role in ("random", "oracle"))
        for percent in (50, 80):
            reached = steps_to(steps, returns, low + percent / 100.0 * (high - low))
            # A seed that never gets there makes the entry's mean unknown, not smaller.
            found[f"steps_to_{percent}"] = np.inf if reached is None else float(reached)
    return found


def _gaps(rows: pd.DataFrame, references: References) -> pd.DataFrame:
    """What is lost off the training distribution, for online test entries that were tried there.

    On ood tasks as a difference of returns, because they have no references; under another schedule
    of scores, because schedules differ in what can be earned at all.
    """
    returns = seed_returns(rows)
    found = []
    for key, by_seed in returns.items():
        if (key.setting, key.split) != (ONLINE, TEST):
            continue
        mean = float(np.mean(list(by_seed.values())))
        ood, unseen = (
            float(np.mean(list(returns[other].values()))) if other in returns else np.nan
            for other in (key._replace(split=OOD), key._replace(setting=UNSEEN))
        )
        scores = [
            score(value, references.get(reference_key(key.env, key.schedule, setting, TEST), {}))
            for value, setting in ((mean, ONLINE), (unseen, UNSEEN))
        ]
        found.append((*key, mean - ood, scores[0] - scores[1]))
    return pd.DataFrame(found, columns=[*ENTRY, "ood_gap", "schedule_gap"])


def _finals(rows: pd.DataFrame) -> pd.DataFrame:
    last = rows[rows["step"] == rows.groupby(_RUN)["step"].transform("max")]
    limits = {env: time_limit(env) for env in last["env"].unique()}
    limit = last["env"].map(limits)
    fell = (last["length"] < limit).astype(float).where(limit < np.inf)
    by_run = last.assign(fell=fell).groupby(_RUN)
    totals = by_run[["fell", "length"]].sum(min_count=1)
    found = {
        "cvar_10": by_run["return"].agg(cvar),
        "falls_per_1000": 1000.0 * totals["fell"] / totals["length"],
    }
    return pd.DataFrame(found).reset_index()


def _changes(rows: pd.DataFrame) -> dict[str, float]:
    found = {"changes": float(len(rows))}
    for name in ("drop", "regret", "savings"):
        found[name] = float(rows[name].mean())
    watched = rows.dropna(subset=["recovery"])
    if len(watched):
        times = recovery_times(watched["recovery"], watched["recovered"])
        found["recovery_time"] = restricted_mean(times, RECOVERY_HORIZON)
        found["recovery_median"] = median_time(times, RECOVERY_HORIZON)
        found["never_recovered"] = float(survival(times, [RECOVERY_HORIZON])[0])
    return found
