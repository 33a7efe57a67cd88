"""Suites: grids of envs, schedules, agents and seeds, and what one run of them is."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gymnasium as gym

from m3po_bench.registry import PRESETS, agent_names, agent_spec, env_id, short_name, unknown_name

PROTOCOL = "P1"
"""Version of the evaluation protocol; part of every run's hash."""

ALL = "all"
"""Stands for every registered agent where agents are chosen."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_MOST = {"steps": 10**12, "checkpoints": 10**5, "seeds": 10**5}
"""Larger counts are no plans; a grid of them would not fit into memory."""


class SuiteError(ValueError):
    """A suite that cannot be run; the message is one line that says why."""


@dataclass(frozen=True)
class Budget:
    """How long an agent learns and how it is evaluated.

    Attributes:
        steps: Environment steps of training.
        preset: The agent's preset.
        checkpoints: Evaluations, equally spaced; the last one comes after the last step.
        eval_episodes: Test episodes played at every checkpoint but the last.
        final_episodes: Test episodes played at the last one; 0 means all there are. Of a split
            that has fewer, as ``ood`` may, all are played, here and at the other checkpoints.
    """

    steps: int
    preset: str = "default"
    checkpoints: int = 20
    eval_episodes: int = 10
    final_episodes: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoints", "eval_episodes"):
            _check_count(name, getattr(self, name), at_least=1)
        _check_count("final_episodes", self.final_episodes, at_least=0)
        if self.checkpoints > self.steps:
            raise SuiteError(
                f"checkpoints = {self.checkpoints}: expected at most one per step ({self.steps})"
            )
        if 0 < self.final_episodes < self.eval_episodes:
            raise SuiteError(
                f"final_episodes = {self.final_episodes}: expected 0 (all) or at least "
                f"eval_episodes ({self.eval_episodes})"
            )
        if not isinstance(self.preset, str) or self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)


@dataclass(frozen=True)
class Variant:
    """A row of the leaderboard that is a registered agent with other arguments.

    Attributes:
        agent: Name of the registered agent.
        kwargs: Arguments that replace its preset's.
    """

    agent: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSpec:
    """One run: one agent learns one env under one schedule from one seed.

    Attributes:
        env: Registered id.
        schedule: When tasks change, in training and in evaluation.
        agent: Its name on the leaderboard.
        variant: The registered agent behind that name, and its arguments.
        budget: How long it learns and how it is evaluated.
        seed: Seeds networks, env and sampling.
    """

    env: str
    schedule: str
    agent: str
    variant: Variant
    budget: Budget
    seed: int

    @property
    def run_id(self) -> str:
        """Stable, readable name, and the run's folder inside the results folder."""
        return f"{short_name(self.env)}-{self.schedule}/{self.agent}/seed{self.seed}"

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments that this run's envs are made with, besides the split."""
        return {**agent_spec(self.variant.agent).env_kwargs, "schedule": self.schedule}

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the seed that decides the run's result, as plain JSON values."""
        spec = agent_spec(self.variant.agent)
        config = {
            "protocol": PROTOCOL,
            "env": self.env,
            "env_kwargs": self.env_kwargs,
            "agent": self.agent,
            "entry_point": spec.entry_point,
            "kwargs": {**spec.kwargs(self.budget.preset), **self.variant.kwargs},
            **asdict(self.budget),
        }
        if revision := spec.revisions.get(self.budget.preset, 0):
            config["revision"] = revision
        plain: dict[str, Any] = json.loads(json.dumps(config, default=_qualified_name))
        return plain

    @property
    def config_hash(self) -> str:
        """See ``config_hash``."""
        return config_hash(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which ``from_dict`` makes an equal run."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """The inverse of ``to_dict``."""
        parts = {"variant": Variant(**values["variant"]), "budget": Budget(**values["budget"])}
        return cls(**{**values, **parts})


@dataclass(frozen=True)
class Suite:
    """A grid of envs, schedules, agents and seeds.

    Attributes:
        name: Names the default results folder.
        envs: Registered ids.
        schedules: Names of schedules.
        agents: Names of registered agents or of ``variants``; slow ones first, so that the
            last run to start is a short one.
        seeds: Number of seeds; they are 0, 1, ...
        budget: The budget of every agent without one of its own.
        budgets: Budgets by agent.
        variants: Rows that are a registered agent with other arguments.
        description: What the suite is for, one line.
    """

    name: str
    envs: tuple[str, ...]
    schedules: tuple[str, ...]
    agents: tuple[str, ...]
    seeds: int
    budget: Budget
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        for name in (self.name, *self.schedules, *self.agents):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise SuiteError(f"name {name!r}: expected letters, digits and ._+- only")
        _check_count("seeds", self.seeds, at_least=1)
        called: dict[str, str] = {}
        for env in dict.fromkeys(self.envs):
            if (other := called.setdefault(short_name(env), env)) != env:
                raise SuiteError(f"{other} and {env} share a folder's name: two suites, please")

    def runs(self) -> tuple[RunSpec, ...]:
        """All runs of the grid."""
        return tuple(
            RunSpec(
                env=env,
                schedule=schedule,
                agent=agent,
                variant=self.variants.get(agent, Variant(agent)),
                budget=self.budgets.get(agent, self.budget),
                seed=seed,
            )
            for env in self.envs
            for schedule in self.schedules
            for agent in self.agents
            for seed in range(self.seeds)
        )

    def select(
        self, agents: Sequence[str] = (), envs: Sequence[str] = (), seeds: int | None = None
    ) -> Suite:
        """This suite with other agents, envs or number of seeds; ``["all"]`` is every agent.

        Raises:
            UnknownNameError: If an agent or env does not exist.
            SuiteError: If ``seeds`` is below 1.
        """
        rows = agent_names() if list(agents) == [ALL] else list(agents)
        known = [*agent_names(), *self.variants]
        for agent in rows:
            if agent not in known:
                raise unknown_name("agent", agent, known)
        return replace(
            self,
            agents=tuple(dict.fromkeys(rows)) or self.agents,
            envs=tuple(dict.fromkeys(env_id(env) for env in envs)) or self.envs,
            seeds=self.seeds if seeds is None else seeds,
        )


def config_hash(config: Mapping[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a run's configuration."""
    canonical = json.dumps(config, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def check_variants(suite: Suite) -> None:
    """Refuse arguments of agents that do not exist, so that nothing starts in vain.

    Raises:
        UnknownNameError: If there is one.
    """
    for name in suite.agents:
        variant = suite.variants.get(name)
        if variant is not None and variant.kwargs:  # agents are loaded where they must be only
            agent_spec(variant.agent).check_arguments(variant.kwargs)


def check_envs(envs: Iterable[str], schedules: Iterable[str]) -> None:
    """Make every env once under each schedule, so that nothing starts in vain.

    Raises:
        SuiteError: If one cannot be made; the message is the env's own, on one line.
    """
    for env, schedule in itertools.product(envs, schedules):
        try:
            gym.make(env, split="test", schedule=schedule).close()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if "unexpected keyword argument" in reason:
                reason = (
                    "it takes no split and no schedule, so it has no tasks to choose; expected one "
                    "of `m3po-bench list`, or an env of your own as docs/your_own.md makes them"
                )
            raise SuiteError(f"{env} with schedule {schedule!r}: {reason}") from error


def _check_count(name: str, value: Any, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise SuiteError(f"{name} = {value!r}: expected a whole number of at least {at_least}")
    if value > (most := _MOST.get(name, 10**6)):
        raise SuiteError(f"{name} = {str(value)[:20]}: expected at most {most:,}")


def _qualified_name(value: Any) -> Any:
    """A stable stand-in, in hashes and records, for classes and functions among arguments."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    raise TypeError(f"argument {value!r} of an agent: expected JSON values, classes or functions")
