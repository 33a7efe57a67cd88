"""Frozen scores that returns are measured against: random, oracle and the robust floor.

The package ships ``references.json``; ``m3po-bench references`` computes it from ordinary runs, so
that no number in it was typed. Where an env knows its optimum in closed form (a method
``optimal_action()``), that is played instead of the learnt oracle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from typing import Any

import gymnasium as gym

from m3po_bench.leaderboard.aggregate import load_rows, seed_returns
from m3po_bench.leaderboard.evaluation import evaluate
from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.leaderboard.store import Store

ROLES = {"random": "Random", "oracle": "Oracle", "robust": "SAC"}
"""Which agent's runs give each reference; ``robust`` is SAC without memory."""

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
    """References from the finished runs of ``ROLES``' agents in a results folder.

    Raises:
        SuiteError: If there are none.
    """
    records = {
        (record["agent"], record["env"], record["schedule"]): record
        for _, record in store.finished()
    }
    suite = store.read_suite() or {}
    command = f"m3po-bench run {suite.get('name', '')}".strip()
    roles = {agent: role for role, agent in ROLES.items()}
    found: References = {}
    for key, returns in seed_returns(load_rows(store)).items():
        if key.agent not in roles:
            continue
        record = records[key.agent, key.env, key.schedule]
        found.setdefault((key.env, key.schedule), {})[roles[key.agent]] = Reference(
            mean=round(sum(returns.values()) / len(returns), 4),
            n_seeds=len(returns),
            steps=record["config"]["steps"],
            command=command,
            versions=record["versions"],
        )
    for (env_id, schedule), known in found.items():
        optimal = _optimal_returns(env_id, schedule) if "oracle" in known else []
        if optimal:
            mean = round(sum(optimal) / len(optimal), 4)
            known["oracle"] = replace(known["oracle"], mean=mean, n_seeds=1, steps=0)
    if not found:
        raise SuiteError(
            f"no finished runs of {', '.join(ROLES.values())} in {store.root}; "
            "make them with: m3po-bench run references"
        )
    return found


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
