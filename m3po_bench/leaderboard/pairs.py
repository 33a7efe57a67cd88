"""Agents two by two: what one earns more than the other in the same envs, seed by seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from m3po_bench.leaderboard.aggregate import INTERVAL_SEEDS, interval, seed_returns
from m3po_bench.leaderboard.settings import ONLINE, TEST
from m3po_bench.leaderboard.statistics import (
    Array,
    paired_differences,
    probability_of_improvement,
    stratified_interval,
)

PAIR_COLUMNS = (
    "env", "schedule", "agent", "against", "n_seeds", "difference", "difference_low",
    "difference_high", "p_improvement", "p_low", "p_high",
)  # fmt: skip
EVERY_ENV = "all"
"""Stands for the envs that two agents have in common, where these are two or more."""

Returns = Mapping[int, float]


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of ``pairs.csv``: of each two agents, the one with the higher mean comes first.

    Args:
        rows: From ``aggregate.load_rows``; compared in the online test episodes.

    Returns:
        ``PAIR_COLUMNS``. Differences are of returns, over the seeds that both have; as elsewhere
        low and high are the extreme seeds where there are few. ``p_improvement`` is the probability
        that a run of ``agent`` earns more than one of ``against``, over all seeds; at 1 every seed
        is above every seed. Over envs it is their mean, and returns are not compared.
    """
    found: dict[tuple[str, str], dict[str, Returns]] = {}
    for key, by_seed in seed_returns(rows).items():
        if (key.setting, key.split) == (ONLINE, TEST):
            found.setdefault((key.schedule, key.env), {})[key.agent] = by_seed
    entries = []
    for schedule in sorted({schedule for schedule, _ in found}):
        by_env = {env: agents for (of, env), agents in sorted(found.items()) if of == schedule}
        for env, agents in by_env.items():
            for pair in itertools.combinations(sorted(agents), 2):
                entries.append((env, schedule, *_in_one_env(*pair, agents)))
        agents_met = sorted({agent for agents in by_env.values() for agent in agents})
        for ours, theirs in itertools.combinations(agents_met, 2):
            common = [of for of in by_env.values() if ours in of and theirs in of]
            if len(common) > 1:
                entries.append((EVERY_ENV, schedule, *_over_envs(ours, theirs, common)))
    return pd.DataFrame(entries, columns=list(PAIR_COLUMNS))


def _in_one_env(one: str, other: str, agents: Mapping[str, Returns]) -> tuple[object, ...]:
    mean = {name: np.mean(list(agents[name].values())) for name in (one, other)}
    ours, theirs = (one, other) if mean[one] >= mean[other] else (other, one)
    differences = paired_differences(dict(agents[ours]), dict(agents[theirs]))
    centre = low = high = np.nan
    if len(differences):
        centre, (low, high) = float(differences.mean()), interval(differences.tolist())
    improvement = _improvement(_strata([agents[ours]]), _strata([agents[theirs]]))
    return (ours, theirs, len(differences), centre, low, high, *improvement)


def _over_envs(one: str, other: str, envs: list[dict[str, Returns]]) -> tuple[object, ...]:
    strata = {name: _strata([of[name] for of in envs]) for name in (one, other)}
    ahead = probability_of_improvement(strata[one], strata[other]) >= 0.5
    ours, theirs = (one, other) if ahead else (other, one)
    n_seeds = min(len(of[one].keys() & of[other].keys()) for of in envs)
    found = _improvement(strata[ours], strata[theirs])
    return (ours, theirs, n_seeds, np.nan, np.nan, np.nan, *found)


def _strata(returns: list[Returns]) -> list[Array]:
    return [np.array(list(of.values())) for of in returns]


def _improvement(ours: list[Array], theirs: list[Array]) -> tuple[float, float, float]:
    """P(improvement) with its interval; none where an env has few seeds, or all are apart.

    Where every seed is above every seed a bootstrap has nothing to redraw, and would say [1, 1].
    """
    centre, low, high = float(probability_of_improvement(ours, theirs)), np.nan, np.nan
    enough = min(len(scores) for scores in (*ours, *theirs)) >= INTERVAL_SEEDS
    if enough and 0.0 < centre < 1.0:
        low, high = stratified_interval(probability_of_improvement, ours, theirs)
    return centre, low, high
