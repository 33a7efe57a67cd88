"""Frozen scores that returns are measured against: random, oracle and the robust floor.

The package ships ``references.json``; ``m3po-bench references`` computes it from ordinary runs, so
that no number in it was typed. Where an env knows its optimum in closed form (a method
``optimal_action()``), that is played instead of the learnt oracle.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from m3po_bench.leaderboard.evaluation import Episode, evaluate
from m3po_bench.leaderboard.grid import SuiteError, check_envs
from m3po_bench.leaderboard.model_files import play_model, saved_spec
from m3po_bench.leaderboard.store import MODEL, Store
from m3po_bench.leaderboard.traces import by_age, trace_of
from m3po_bench.registry import env_id, short_name

ROLES = {"random": "Random", "oracle": "Oracle", "robust": "SAC"}
"""Which agent's runs give each reference; ``robust`` is SAC without memory."""

TRAINED_UNDER = "hazard"
"""The schedule that reference agents are trained under."""

SCHEDULES = ("static", "episodic", "single", "periodic", "hazard", "recurrent")
"""The schedules that they are played under."""

FILE = "references.json"


@dataclass(frozen=True)
class Reference:
    """One reference score of an env under a schedule.

    Attributes:
        mean: Mean test return over seeds.
        n_seeds: Seeds it is the mean of.
        steps: Env steps each seed was trained for; 0 where nothing was learnt.
        command: What was run.
        versions: Package versions it was run with.
        by_age: Mean reward at each number of env steps since a change of the task, from 0 on;
            empty where nothing changes within episodes.
        returns: Mean return over seeds in each of the test episodes, in their order; empty where
            that is not known.
    """

    mean: float
    n_seeds: int
    steps: int
    command: str
    versions: Mapping[str, str]
    by_age: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()

    def in_first(self, episodes: int) -> float:
        """Mean return in the first test episodes, which curves are of; in all if not known."""
        known = 0 < episodes <= len(self.returns)
        return sum(self.returns[:episodes]) / episodes if known else self.mean


_Runs = dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]]

References = dict[tuple[str, str], dict[str, Reference]]
"""References by role, for each env id and schedule."""


def load_references() -> References:
    """The references that the package ships."""
    path = files("m3po_bench.leaderboard").joinpath(FILE)
    return parse_references(path.read_text(encoding="utf-8"))


def parse_references(text: str) -> References:
    """The inverse of ``dump_references``."""
    return {
        (env, schedule): {
            role: Reference(
                **{
                    **values,
                    **{name: tuple(values.get(name, ())) for name in ("by_age", "returns")},
                }
            )
            for role, values in roles.items()
        }
        for env, schedules in json.loads(text).items()
        for schedule, roles in schedules.items()
    }


def read_references(path: Path) -> References:
    """The references of a file; none where there is no file.

    Raises:
        SuiteError: If it holds something else.
    """
    if not path.exists():
        return {}
    try:
        return parse_references(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise SuiteError(f"{path}: no references; expected JSON as of {FILE}") from None


def dump_references(references: References) -> str:
    """References as JSON: env id, then schedule, then role."""
    nested: dict[str, dict[str, dict[str, Any]]] = {}
    for (env, schedule), roles in sorted(references.items()):
        shown = {role: asdict(roles[role]) for role in ROLES if role in roles}
        nested.setdefault(env, {})[schedule] = shown
    return json.dumps(nested, indent=2) + "\n"


def compute_references(store: Store, envs: Sequence[str] = ()) -> References:
    """References from the models of a results folder, played under every schedule.

    Models trained under ``TRAINED_UNDER`` stand for all schedules: what a task asks for does not
    depend on when it comes.

    Args:
        store: The results folder.
        envs: Ids or short names of the envs wanted; all by default. An oracle that has not learnt
            what its env asks for gives no scale: who sees that leaves its env out.

    Raises:
        SuiteError: If there are none, none of a wanted env, or a run's model is missing.
    """
    roles = {agent: role for role, agent in ROLES.items()}
    runs: _Runs = {}
    for folder, record in store.finished():
        if record["agent"] in roles and record["schedule"] == TRAINED_UNDER:
            runs.setdefault((record["env"], roles[record["agent"]]), []).append((folder, record))
    if not runs:
        raise SuiteError(
            f"no finished runs of {', '.join(ROLES.values())} under {TRAINED_UNDER!r} in "
            f"{store.root}; make them with: m3po-bench run references"
        )
    command = f"m3po-bench run {(store.read_suite() or {}).get('name', '')}".strip()
    found: References = {}
    for (env, role), group in _of_envs(runs, envs).items():
        for schedule in _schedules(env):
            played = [_play(folder, schedule) for folder, _ in group]
            known = Reference(
                mean=_mean([_mean([e.total for e in episodes]) for episodes in played]),
                returns=_by_episode(played),
                n_seeds=len(played),
                steps=group[0][1]["config"]["steps"],
                command=command,
                versions=group[0][1]["versions"],
                by_age=_rewards_by_age(list(chain(*played))),
            )
            optimal = _optimal_episodes(env, schedule) if role == "oracle" else []
            if optimal:
                known = replace(
                    known, mean=_mean([episode.total for episode in optimal]), n_seeds=1, steps=0,
                    by_age=_rewards_by_age(optimal), returns=_by_episode([optimal]),
                )  # fmt: skip
            found.setdefault((env, schedule), {})[role] = known
    return found


def _of_envs(runs: _Runs, envs: Sequence[str]) -> _Runs:
    known = {env for env, _ in runs}
    wanted = {env_id(env) for env in envs} or known
    for env in sorted(wanted - known):
        there = ", ".join(sorted(map(short_name, known)))
        raise SuiteError(f"no runs of {short_name(env)}; there are some of: {there}")
    return {key: group for key, group in runs.items() if key[0] in wanted}


def _schedules(env: str) -> list[str]:
    """Those of ``SCHEDULES`` that an env has."""
    accepted = []
    for schedule in SCHEDULES:
        with contextlib.suppress(SuiteError):
            check_envs([env], [schedule])
            accepted.append(schedule)
    return accepted


def _play(folder: Path, schedule: str) -> list[Episode]:
    path = folder / MODEL
    return play_model(path, saved_spec(path, {"schedule": schedule}))


def _rewards_by_age(episodes: Sequence[Episode]) -> tuple[float, ...]:
    """Mean reward by steps since a change, as long as no age is missing."""
    # Each seed plays the same episodes: they are told apart, lest their steps be joined.
    renumbered = [replace(episode, index=i) for i, episode in enumerate(episodes)]
    ages = by_age(trace_of(renumbered))
    known = int((ages["age"].to_numpy() == np.arange(len(ages))).sum())
    return tuple(round(float(reward), 4) for reward in ages["reward"].head(known))


def _by_episode(played: Sequence[Sequence[Episode]]) -> tuple[float, ...]:
    """Mean return over seeds in each test episode, of which every seed has played all."""
    return tuple(_mean([each.total for each in same]) for same in zip(*played, strict=True))


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


class _Optimum:
    """Plays what an env itself knows to be best."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._act = env.get_wrapper_attr("optimal_action")

    def predict(self, observation: Any, **_: Any) -> tuple[Any, None]:
        return self._act()[None], None


def _optimal_episodes(env_id: str, schedule: str) -> list[Episode]:
    """The frozen test episodes; none where the env does not know its optimum."""
    env = gym.make(env_id, schedule=schedule, split="test")
    if not env.has_wrapper_attr("optimal_action"):
        return []
    episodes = range(len(env.get_wrapper_attr("episodes")))
    return evaluate(_Optimum(env), [env], episodes)


def merged(base: References, update: References) -> References:
    """``base`` with the roles of ``update`` replaced or added."""
    keys = {**base, **update}
    return {key: {**base.get(key, {}), **update.get(key, {})} for key in keys}
