"""Writes the blocks of pages that are made from code and results: ``python docs/blocks.py``.

They are the agents' arguments, the published runs, a table that a command of the theory page
prints, and the README's tables.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

from m3po_bench import agent_names
from m3po_bench.common.meta_algorithm import MetaAlgorithm
from m3po_bench.registry import agent_spec, short_name

DOCS = Path(__file__).parent
AGENTS = agent_names()

# Arguments of MetaAlgorithm that every agent built on it takes; it sets the others itself.
COMMON = ("stats_window_size", "tensorboard_log", "verbose", "seed", "device")
# What reads ``policy_kwargs``.
NETWORKS = {
    "M3PO": ("m3po_bench.m3po.policies:MetaPolicy", "m3po_bench.m3po.meta_model:MetaModel"),
    "PEARL": ("m3po_baselines.pearl.policies:BeliefPolicy",),
    "MAML": ("m3po_baselines.maml.policy:AdaptivePolicy",),
    "GrBAL": ("m3po_baselines.learning_to_adapt.grbal:GradientModel",),
    "ReBAL": ("m3po_baselines.learning_to_adapt.rebal:RecurrentModel",),
    "GHP-MDP": ("m3po_baselines.ghp_mdp.ghp_mdp:LatentModel",),
}
# Not for ``policy_kwargs``: the agent passes these on from arguments of its own.
PASSED_ON = (
    "encoder", "history", "learn_termination", "obs_columns", "forgetting", "belief_update",
    "noise_seed",
)  # fmt: skip
# What a class passes on under a default of its own.
INSTEAD = {"GHP-MDP": {"planner": "cem"}}


def defaults(described: type[Any], end: type[Any] = object) -> dict[str, Any]:
    """Constructor arguments with a default, also those that pass through to classes before end."""
    found: dict[str, Any] = {}
    for owner in described.__mro__[: described.__mro__.index(end)]:
        if "__init__" not in vars(owner):
            continue
        constructor = vars(owner)["__init__"]
        parameters = inspect.signature(constructor).parameters.values()
        for p in parameters:
            if p.default is not p.empty and not p.name.startswith("_"):
                found.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def listed(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in values.items())


def arguments_of(name: str) -> dict[str, Any]:
    """An agent's own arguments with their defaults."""
    agent = agent_spec(name).load_class()
    end = MetaAlgorithm if issubclass(agent, MetaAlgorithm) else agent.__mro__[1]
    values = {**defaults(agent, end), **INSTEAD.get(name, {})}
    return {argument: value for argument, value in values.items() if argument not in COMMON}


def agents_with_arguments() -> list[str]:
    classes = {name: agent_spec(name).load_class() for name in AGENTS}
    return [
        name
        for name, agent in classes.items()
        if agent.__module__.startswith("m3po_")
        and (issubclass(agent, MetaAlgorithm) or "__init__" in vars(agent))
    ]


def arguments_block() -> str:
    """Each agent's arguments with their defaults, by the classes' signatures."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in agents_with_arguments():
        groups[listed(arguments_of(name))].append(name)
    lines = ["| agent | arguments and defaults |", "|---|---|"]
    for values, names in groups.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {values or 'none'} |")
    common = {name: value for name, value in defaults(MetaAlgorithm).items() if name in COMMON}
    lines += [f"| all of these but `RL2` | {listed(common)} |", ""]
    lines += ["| `policy_kwargs` of | read by | arguments and defaults |", "|---|---|---|"]
    for name, places in NETWORKS.items():
        for place in places:
            module, _, kind = place.partition(":")
            found = defaults(getattr(importlib.import_module(module), kind))
            kept = {key: value for key, value in found.items() if key not in PASSED_ON}
            lines.append(f"| `{name}` | `{kind}` | {listed(kept)} |")
    return "\n".join(lines)


def published_block() -> str:
    """What is published under results/, by env: agents, seeds, env steps, preset."""
    results = DOCS.parent / "results"
    rows: dict[tuple[str, str, str, str, int], dict[str, int]] = defaultdict(dict)
    for path in results.glob("*/*/*/seed*/run.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        suite, preset = path.relative_to(results).parts[0], run["config"]["preset"]
        agents = rows[short_name(run["env"]), suite, run["schedule"], preset, run["env_steps"]]
        agents[run["agent"]] = agents.get(run["agent"], 0) + 1
    head = ["env", "suite", "schedule", "preset", "env steps", "agents (seeds)"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (env, suite, schedule, preset, steps), agents in sorted(rows.items()):
        shown = ", ".join(f"{name} ({n})" for name, n in sorted(agents.items()))
        lines.append(f"| {env} | `{suite}` | {schedule} | `{preset}` | {steps:,} | {shown} |")
    return "\n".join(lines)


def bounds_block() -> str:
    """The table that a command of the theory page prints."""
    page = (DOCS / "theory.md").read_text(encoding="utf-8")
    command = re.search(r"^m3po-bench (theory --eps-m.*)", page, re.MULTILINE)
    assert command is not None
    arguments = shlex.split(command.group(1), comments=True)
    done = subprocess.run(
        [sys.executable, "-c", "from m3po_bench.cli import main; main()", *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("|"))


def leaderboard_block(suite: str, headings: str) -> str:
    """Of a published suite's page: how to read it, and the first table of online test episodes.

    Of the sections whose heading has an env that ``headings``, a regular expression, matches.
    """
    page = (DOCS.parent / "results" / suite / "leaderboard.md").read_text(encoding="utf-8")
    _, intro, *sections = re.split(r"^##? .*\n", page, flags=re.MULTILINE)
    blocks = [intro.strip()]
    for heading, section in zip(re.findall(r"^## (.*)", page, re.MULTILINE), sections, strict=True):
        if re.fullmatch(rf"({headings}), \w+, online, test", heading):
            text, table = section.strip().split("\n\n")[:2]
            blocks += [f"### {heading}", text, table]
    wrapped = (textwrap.fill(b, 118) if b[0] not in "#|" else b for b in blocks)
    return "\n\n".join(wrapped)


def quick_block() -> str:
    """Every env's returns in ``quick``, and all envs' scores."""
    return leaderboard_block("quick", ".*")


def quick_all_block() -> str:
    """All envs' scores in ``quick-all``."""
    return leaderboard_block("quick-all", "All envs")


GENERATED = {
    ("../README.md", "quick"): quick_block,
    ("../README.md", "quick-all"): quick_all_block,
    ("theory.md", "bounds"): bounds_block,
    ("arguments.md", "arguments"): arguments_block,
    ("leaderboard.md", "published"): published_block,
}


def with_block(text: str, name: str, made: str) -> str:
    """A page's text with the block between its markers replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"no markers of {name}"
    return f"{before}{begin}\n{made}\n{end}{after}"


def write() -> None:
    """Write all blocks into their pages again."""
    for (page, name), make in GENERATED.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        (DOCS / page).write_text(with_block(text, name, make()), encoding="utf-8")


if __name__ == "__main__":
    write()
