"""The documentation says what the code does: generated pages, commands, links, the tutorial."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from m3po_bench import agent_cards
from m3po_bench.cli import _parse
from m3po_bench.leaderboard.suite_files import parse_suite
from m3po_bench.registry import agent_spec

DOCS = Path(__file__).parents[1] / "docs"


def script(name: str) -> ModuleType:
    """A script of the documentation as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BLOCKS = script("blocks")  # when collected: the harness's tests register toys of theirs
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


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
    for name in BLOCKS.AGENTS:
        assert f"[`{name}`](#" in written
    assert "====" not in written
    assert "``" not in written.replace("```", "")


@pytest.mark.parametrize(("page", "name"), BLOCKS.GENERATED)
def test_generated_blocks_are_up_to_date(page: str, name: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    made = BLOCKS.with_block(text, name, BLOCKS.GENERATED[page, name]())
    assert text == made, "run: python docs/blocks.py"


# The others copy their env many times.
@pytest.mark.parametrize("name", ["M3PO", "PEARL", "GrBAL", "ReBAL", "GHP-MDP"])
def test_defaults_in_the_page_are_those_that_agents_get(name: str) -> None:
    agent = agent_spec(name).load_class()("MlpPolicy", "M3PO/PointFwdBwd-v0")
    plain = {
        argument: value
        for argument, value in BLOCKS.arguments_of(name).items()
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


def test_its_non_stationary_env_is_registered() -> None:
    (code,) = (code for code in blocks(DOCS / "your_own.md", "python") if "def hopper" in code)
    code += "env.reset(options={'episode': 3})\nassert len(env.get_wrapper_attr('episodes')) == 40"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_notebook_is_the_script() -> None:
    source = (DOCS / "tutorial.py").read_text(encoding="utf-8")
    written = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert written == script("notebook").notebook(source), "run: python docs/notebook.py"
    cells = json.loads(written)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = [line for line in "\n".join(code).splitlines() if line.strip()]
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
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
