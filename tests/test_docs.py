"""The documentation says what the code does: generated pages, commands, links, the tutorial.

``python tests/test_docs.py`` writes the generated blocks into the pages again.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from m3po_bench import agent_cards, agent_names
from m3po_bench.cli import _parse
from m3po_bench.common.meta_algorithm import MetaAlgorithm
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.registry import agent_spec, short_name

DOCS = Path(__file__).parents[1] / "docs"
AGENTS = agent_names()  # when collected: the harness's tests register toys of theirs
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


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
    command = next(c for c in commands(DOCS / "theory.md") if c.startswith("theory --eps-m"))
    done = subprocess.run(
        [sys.executable, "-c", "from m3po_bench.cli import main; main()", *shlex.split(command)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("|"))


GENERATED = {
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


def write_blocks() -> None:
    for (page, name), make in GENERATED.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        (DOCS / page).write_text(with_block(text, name, make()), encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [code for kind, code in found if kind == language]


def commands(page: Path) -> list[str]:
    """Everything after ``m3po-bench`` in a page's shell blocks."""
    lines = "\n".join(blocks(page, "bash")).splitlines()
    return [part.split("&&")[0] for line in lines for part in line.split("m3po-bench ")[1:]]


def anchors(page: Path) -> set[str]:
    """As Python-Markdown makes them of headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    kept = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in kept}


def test_the_agents_page_is_what_the_docstrings_say(tmp_path: Path) -> None:
    # In a process of its own, which does not know those toys.
    subprocess.run([sys.executable, "-m", "m3po_bench.agent_cards", str(tmp_path)], check=True)
    made, written = (
        (folder / agent_cards.PAGE).read_text(encoding="utf-8") for folder in (tmp_path, DOCS)
    )
    assert written == made, "run: python -m m3po_bench.agent_cards docs"
    for name in AGENTS:
        assert f"[`{name}`](#" in written
    assert "====" not in written
    assert "``" not in written.replace("```", "")


@pytest.mark.parametrize(("page", "name"), GENERATED)
def test_generated_blocks_are_up_to_date(page: str, name: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == with_block(text, name, GENERATED[page, name]()), "run: python tests/test_docs.py"


# The others copy their env many times.
@pytest.mark.parametrize("name", ["M3PO", "PEARL", "GrBAL", "ReBAL", "GHP-MDP"])
def test_defaults_in_the_page_are_those_that_agents_get(name: str) -> None:
    agent = agent_spec(name).load_class()("MlpPolicy", "M3PO/PointFwdBwd-v0")
    plain = {
        argument: value
        for argument, value in arguments_of(name).items()
        if isinstance(value, int | float | str) and hasattr(agent, argument)
    }
    plain.pop("gradient_steps", None)
    assert len(plain) > 8
    assert {argument: getattr(agent, argument) for argument in plain} == plain


def test_docstrings_become_markdown() -> None:
    given = (
        "Top.\n\n=====  =====\nthe a  here\n=====  =====\nx | y  ``f``\n  and  more\n"
        "z      one\nw\n=====  =====\n\nArgs:\n    a: First,\n        and on.\n    _b: Hidden.\n"
    )
    assert agent_cards.markdown(given).rstrip("\n") == (
        "Top.\n\n| the a | here |\n|---|---|\n| x \\| y and | `f` more |\n| z w | one |\n\n"
        "**Arguments**\n\n- `a`: First, and on."
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = DOCS / name if name else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^  - .*: (\S+\.md)$", navigation, re.MULTILINE)) == [
        page.name for page in PAGES
    ]


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES for command in commands(page)})
)
def test_commands_are_known(command: str) -> None:
    arguments = shlex.split(command, comments=True)
    if arguments[0] != "COMMAND":
        _parse(arguments)


def test_suites_in_pages_are_valid() -> None:
    suites = [code for page in PAGES for code in blocks(page, "toml") if "seeds" in code]
    assert suites
    for code in suites:
        assert parse_suite(tomllib.loads(code)).runs()


@pytest.mark.parametrize("page", ["index", "changes", "arguments"])
def test_its_python_runs(page: str) -> None:
    code = "\n".join(blocks(DOCS / f"{page}.md", "python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def notebook_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_script() -> None:
    script = (DOCS / "tutorial.py").read_text(encoding="utf-8")
    written = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert written == notebook_maker().notebook(script), "run: python docs/notebook.py"
    cells = json.loads(written)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = [line for line in "\n".join(code).splitlines() if line.strip()]
    lines = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
    assert shown == lines
    assert len(lines) < 60


def test_the_tutorial_ranks_its_agent_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(DOCS / "tutorial.py")],
        cwd=tmp_path, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *table, seconds = done.stdout.splitlines()
    means = {
        agent: float(mean)
        for _, agent, setting, _, mean in map(str.split, table[1:])
        if setting == "online"
    }
    assert set(means) == {"WindReader", "SAC", "Random"}
    assert means["WindReader"] > 0.3 * max(means["SAC"], means["Random"])  # all are below zero
    assert (tmp_path / "wind" / "leaderboard.md").is_file()
    assert float(seconds) < 30.0


# Processor time, so that a busy machine does not fail the test.
RUN = """\
import runpy, sys, time
runpy.run_path(sys.argv[1], run_name="__main__")
print(time.process_time())
"""

if __name__ == "__main__":
    write_blocks()
