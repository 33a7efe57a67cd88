"""Metrics of leaderboard entries beside return and score; seeds first, then their mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import pandas as pd

from m3po_bench.leaderboard.aggregate import common_episodes, reference_key, score, seed_returns
from m3po_bench.leaderboard.metrics import (
    Recovery,
    area_under_curve,
    cvar,
    restricted_mean,
    steps_to,
    survival,
)
from m3po_bench.leaderboard.settings import ONLINE, OOD, TEST, UNSEEN

if TYPE_CHECKING:
    from m3po_bench.leaderboard.references import References

ENTRY = ["agent", "env", "schedule", "setting", "split"]
METRICS = (
    "curve_area", "steps_to_50", "steps_to_80", "cvar_10", "falls_per_1000",
    "changes", "drop", "regret", "recovery_time", "never_recovered", "savings",
    "ood_gap", "schedule_gap",
)  # fmt: skip
"""Columns of ``leaderboard.csv`` after those of return and score; results/README.md explains."""

RECOVERY_HORIZON = 60
"""Env steps after a change at which the restricted mean of recovery times is cut off."""


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
    first = common_episodes(rows)
    curves = _over_seeds(rows, lambda group: _curve(group, references, first))
    last = rows[rows["step"] == rows.groupby([*ENTRY, "seed"])["step"].transform("max")]
    finals = _over_seeds(last, _final)
    if len(changes):
        after = _over_seeds(changes.assign(setting="online", split="test"), _changes)
    else:
        after = pd.DataFrame(columns=ENTRY)
    table = curves.merge(finals, on=ENTRY, how="left").merge(after, on=ENTRY, how="left")
    table = table.merge(_gaps(rows, references), on=ENTRY, how="left")
    return table.reindex(columns=[*ENTRY, *METRICS]).replace(np.inf, np.nan)


def _over_seeds(
    rows: pd.DataFrame, measure: Callable[[pd.DataFrame], Mapping[str, float]]
) -> pd.DataFrame:
    found = [
        {**dict(zip([*ENTRY, "seed"], names, strict=True)), **measure(group)}
        for names, group in rows.groupby([*ENTRY, "seed"])
        if isinstance(names, tuple)
    ]
    return pd.DataFrame(found).drop(columns="seed").groupby(ENTRY, as_index=False).mean()


def _curve(
    rows: pd.DataFrame, references: References, first: Mapping[tuple[str, str], int]
) -> dict[str, float]:
    entry = rows.iloc[0]
    known_to_all = rows["episode"] < first[str(entry["env"]), str(entry["schedule"])]
    common = rows[known_to_all].groupby("step")["return"].mean()
    steps, returns = common.index.to_numpy(), common.to_numpy()
    found = {"curve_area": area_under_curve(steps, returns) if len(steps) > 1 else np.nan}
    known = references.get(reference_key(*(str(entry[name]) for name in ENTRY[1:])), {})
    if {"random", "oracle"} <= set(known):
        low, high = known["random"].mean, known["oracle"].mean
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


def _final(rows: pd.DataFrame) -> dict[str, float]:
    spec = gym.registry.get(str(rows["env"].iloc[0]))
    limit = spec.max_episode_steps if spec else None
    falls = float((rows["length"] < limit).sum()) if limit else np.nan
    return {
        "cvar_10": cvar(rows["return"]),
        "falls_per_1000": 1000.0 * falls / float(rows["length"].sum()),
    }


def _changes(rows: pd.DataFrame) -> dict[str, float]:
    found = {"changes": float(len(rows))}
    for name in ("drop", "regret", "savings"):
        found[name] = float(rows[name].mean())
    watched = rows.dropna(subset=["recovery"])
    if len(watched):
        times = [
            Recovery(int(time), bool(seen))
            for time, seen in zip(watched["recovery"], watched["recovered"], strict=True)
        ]
        found["recovery_time"] = restricted_mean(times, RECOVERY_HORIZON)
        found["never_recovered"] = float(survival(times, [RECOVERY_HORIZON])[0])
    return found
