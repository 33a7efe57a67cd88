"""Agents by name: string entry points, presets, plugins."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import gymnasium

PRESETS = ("default", "lite", "quick", "tiny")
PLUGIN_GROUP = "m3po_bench.plugins"


class UnknownNameError(ValueError):
    """A name that is not registered; the message gives the nearest ones that are."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that does not exist, with the nearest known names."""
    options = sorted(known)
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.4)
    hint = "nearest: " if near else "known: "
    shown = [by_lower[match] for match in near] or options or ["none"]
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}{', '.join(shown)}")


HISTORY_WRAPPER = "m3po_bench.wrappers:PreviousActionReward"
"""Entry point of the wrapper that the id of a meta-environment is registered with."""


def short_name(env_id: str) -> str:
    """What an env is called where there is little room: ``PointFwdBwd``, its id's middle."""
    return re.sub(r"-v\d+$", "", env_id.rpartition("/")[2])


def env_ids() -> list[str]:
    """Ids of every registered meta-environment: with ``PreviousActionReward`` around it."""
    return [
        name
        for name, spec in gymnasium.registry.items()
        if any(around.entry_point == HISTORY_WRAPPER for around in spec.additional_wrappers)
    ]


def env_id(name: str) -> str:
    """The registered id that a short name or an id stands for.

    Raises:
        UnknownNameError: If there is none.
    """
    if name in gymnasium.registry:
        return name
    by_short_name = {short_name(known): known for known in env_ids()}
    if name not in by_short_name:
        raise unknown_name("env", name, by_short_name)
    return by_short_name[name]


@dataclass(frozen=True)
class AgentSpec:
    """How an agent is found and made.

    Attributes:
        name: What users type.
        entry_point: ``module:Class``; the class has SB3's ``BaseAlgorithm`` face.
        presets: Keyword arguments for each preset; ``default`` is the paper's setting.
        env_kwargs: Arguments its env must be made with, such as ``{"visibility": "oracle"}``.
        privileges: What it is told that others are not; shown as a column of the leaderboard.
        paper: Where the method was published.
        learning_only: How the names of policy weights begin that ``predict`` never reads, such as
            ``critic``; the zoo leaves them out (``m3po_bench.zoo``).
        revisions: How often each preset has become another agent without a word in ``presets``,
            because its class's own defaults changed: results of another revision are of another
            configuration. Presets that never did are left out.
    """

    name: str
    entry_point: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    privileges: tuple[str, ...] = ()
    paper: str = ""
    learning_only: tuple[str, ...] = ()
    revisions: Mapping[str, int] = field(default_factory=dict)

    def load_class(self) -> type[Any]:
        """Import the agent's class."""
        module, _, attribute = self.entry_point.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(module), attribute)
        return loaded

    def check_arguments(self, given: Iterable[str]) -> None:
        """Refuse arguments that the class, or what it passes them on to, does not have.

        Raises:
            UnknownNameError: If there is one; it names the nearest.
        """
        known = self.parameters()
        for name in given:
            if name not in known:
                raise unknown_name(f"argument of {self.name}", name, known)

    def parameters(self) -> dict[str, inspect.Parameter]:
        """What the class takes by name, or what it passes that on to does."""
        found: dict[str, inspect.Parameter] = {}
        for cls in self.load_class().__mro__:
            if not {"__init__", "__new__"} & vars(cls).keys():
                continue  # what it inherits need not be the next constructor that is called
            parameters = inspect.signature(cls).parameters.values()
            named = {p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD}
            found = {**named, **found}
            if len(named) == len(parameters):
                break
        return found

    def kwargs(self, preset: str) -> dict[str, Any]:
        """Keyword arguments of a preset, laid over ``default``.

        Raises:
            UnknownNameError: If there is no such preset.
        """
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        # A deep copy: SB3 writes into the policy_kwargs that it is given.
        return deepcopy({**self.presets.get("default", {}), **self.presets.get(preset, {})})


_AGENTS: dict[str, AgentSpec] = {}


def register_agent(spec: AgentSpec) -> None:
    """Make an agent known by its name.

    Raises:
        ValueError: If the name is taken by another spec, or a preset is not one of ``PRESETS``.
    """
    if _AGENTS.get(spec.name, spec) != spec:
        raise ValueError(f"an agent named {spec.name!r} is registered already")
    for preset in spec.presets:
        if preset not in PRESETS:
            raise unknown_name(f"preset of agent {spec.name!r}", preset, PRESETS)
    _AGENTS[spec.name] = spec


def agent_names() -> list[str]:
    """Names of all registered agents, in order of registration."""
    return list(_AGENTS)


def agent_spec(name: str) -> AgentSpec:
    """The spec of a registered agent.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in _AGENTS:
        raise unknown_name("agent", name, _AGENTS)
    return _AGENTS[name]


def make_agent(
    name: str, env: Any, preset: str = "default", seed: int | None = None, **overrides: Any
) -> Any:
    """Make a registered agent for an env.

    Args:
        name: A name of ``agent_names()``.
        env: A Gymnasium env, an SB3 VecEnv, or a registered id or its short name, which is made
            with the arguments that the agent asks for (``AgentSpec.env_kwargs``).
        preset: ``default``, ``lite``, ``quick`` or ``tiny``.
        seed: Seeds env, networks and sampling.
        **overrides: Keyword arguments that replace the preset's.

    Returns:
        A ``stable_baselines3.common.base_class.BaseAlgorithm``.

    Raises:
        UnknownNameError: If agent, preset or env is not known.
    """
    spec = agent_spec(name)
    kwargs = {"policy": "MlpPolicy", **spec.kwargs(preset), **overrides}
    if isinstance(env, str):
        # Gymnasium imports the module of a ``module:id``, which may register it.
        env = gymnasium.make(env if ":" in env else env_id(env), **spec.env_kwargs)
    return spec.load_class()(env=env, seed=seed, **kwargs)


def load_plugins() -> None:
    """Call every installed plugin of the group ``m3po_bench.plugins``.

    A plugin is an entry point to a function without arguments that registers envs and agents.
    One that fails is reported as a warning that names it, and hurts nobody else.
    """
    for plugin in entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()()
        except Exception as error:
            warnings.warn(
                f"m3po_bench plugin {plugin.name!r} ({plugin.value}) failed: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
