"""Frozen scores that returns are measured against: random, oracle and the robust floor.

The package ships ``references.json``; ``m3po-bench references`` computes it from ordinary runs, so
that no number in it was typed. Where an env knows its optimum in closed form (a method
``optimal_action()``), that is played instead of the learnt oracle.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import gymnasium as gym

from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.leaderboard.grid import SuiteError, check_envs
from m3po_bench.leaderboard.model_files import evaluate_model, saved_spec
from m3po_bench.leaderboard.store import MODEL, Store

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
    """

    mean: float
    n_seeds: int
    steps: int
    command: str
    versions: Mapping[str, str]


References = dict[tuple[str, str], dict[str, Reference]]
"""References by role, for each env id and schedule."""


def load_references() -> References:
    """The references that the package ships."""
    path = files("m3po_bench.leaderboard").joinpath(FILE)
    return parse_references(path.read_text(encoding="utf-8"))


def parse_references(text: str) -> References:
    """The inverse of ``dump_references``."""
    return {
        (env, schedule): {role: Reference(**values) for role, values in roles.items()}
        for env, schedules in json.loads(text).items()
        for schedule, roles in schedules.items()
    }


def dump_references(references: References) -> str:
    """References as JSON: env id, then schedule, then role."""
    nested: dict[str, dict[str, dict[str, Any]]] = {}
    for (env, schedule), roles in sorted(references.items()):
        shown = {role: asdict(roles[role]) for role in ROLES if role in roles}
        nested.setdefault(env, {})[schedule] = shown
    return json.dumps(nested, indent=2) + "\n"


def compute_references(store: Store) -> References:
    """References from the models of a results folder, played under every schedule.

    Models trained under ``TRAINED_UNDER`` stand for all schedules: what a task asks for does not
    depend on when it comes.

    Raises:
        SuiteError: If there are none, or a run's model is missing.
    """
    roles = {agent: role for role, agent in ROLES.items()}
    runs: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
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
    for (env, role), group in runs.items():
        for schedule in _schedules(env):
            means = [_mean_return(folder, schedule) for folder, _ in group]
            known = Reference(
                mean=_mean(means),
                n_seeds=len(means),
                steps=group[0][1]["config"]["steps"],
                command=command,
                versions=group[0][1]["versions"],
            )
            optimal = _optimal_returns(env, schedule) if role == "oracle" else []
            if optimal:
                known = replace(known, mean=_mean(optimal), n_seeds=1, steps=0)
            found.setdefault((env, schedule), {})[role] = known
    return found


def _schedules(env: str) -> list[str]:
    """Those of ``SCHEDULES`` that an env has."""
    accepted = []
    for schedule in SCHEDULES:
        with contextlib.suppress(SuiteError):
            check_envs([env], [schedule])
            accepted.append(schedule)
    return accepted


def _mean_return(folder: Path, schedule: str) -> float:
    path = folder / MODEL
    spec = saved_spec(path, {"schedule": schedule})
    return _mean(list(evaluate_model(path, spec).values()))


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


class _Optimum:
    """Plays what an env itself knows to be best."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._act = env.get_wrapper_attr("optimal_action")

    def predict(self, observation: Any, **_: Any) -> tuple[Any, None]:
        return self._act()[None], None


def _optimal_returns(env_id: str, schedule: str) -> list[float]:
    """Returns on the frozen test episodes; none where the env does not know its optimum."""
    env = gym.make(env_id, schedule=schedule, split="test")
    if not env.has_wrapper_attr("optimal_action"):
        return []
    episodes = range(len(env.get_wrapper_attr("episodes")))
    return [episode.total for episode in evaluate(_Optimum(env), [env], episodes)]


def merged(base: References, update: References) -> References:
    """``base`` with the roles of ``update`` replaced or added."""
    keys = {**base, **update}
    return {key: {**base.get(key, {}), **update.get(key, {})} for key in keys}
