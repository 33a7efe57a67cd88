"""The cards of all agents as one page.

``python -m m3po_bench.agent_cards docs`` writes ``docs/agents.md``. The text comes from the
registry and from the docstrings of the agents' modules and classes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from pathlib import Path

from m3po_bench.registry import PRESETS, AgentSpec, agent_names, agent_spec

PAGE = "agents.md"
_OWN = ("m3po_bench.", "m3po_baselines.")
_SECTIONS = ("Args:", "Raises:")
_RULE = re.compile(r"=+( +=+)+")

_HEAD = """\
# Agents

Made from the registry and the agents' docstrings by `python -m m3po_bench.agent_cards docs`. All
arguments and their defaults are in [arguments](arguments.md).

```python
from m3po_bench import make_agent

model = make_agent("PEARL", "M3PO/PointFwdBwd-v0", preset="quick", seed=0)
model.learn(3_000)
obs = model.env.reset()
action, state = model.predict(obs, episode_start=[True], deterministic=True)
```

Every agent has stable-baselines3's interface: `learn`, `predict`, `save`, `load`. Presets are
`default` (the paper's setting where it is known), `lite`, `quick` and, for tests, `tiny`, which is
not shown here; each lies over `default`. "Is told" is what an agent knows that others do not; the
leaderboard shows it too.
"""


def page() -> str:
    """The page, as Markdown."""
    groups: dict[str, list[AgentSpec]] = {}
    for name in agent_names():
        spec = agent_spec(name)
        groups.setdefault(spec.entry_point, []).append(spec)
    cards = [_card(specs) for specs in groups.values()]
    return "\n".join([_HEAD, _contents(groups), *cards])


def _contents(groups: dict[str, list[AgentSpec]]) -> str:
    lines = ["| agent | in one line | published | is told |", "|---|---|---|---|"]
    for specs in groups.values():
        for spec in specs:
            told = ", ".join(spec.privileges)
            link = f"[`{spec.name}`](#{_anchor(specs)})"
            lines.append(f"| {link} | {_summary(spec)} | {spec.paper} | {told} |")
    return "\n".join(lines) + "\n"


def _card(specs: list[AgentSpec]) -> str:
    first = specs[0]
    module, _, name = first.entry_point.partition(":")
    parts = [f"## {_title(specs)}", f"`{module}.{name}`"]
    if first.entry_point.startswith(_OWN):
        whole = inspect.getdoc(importlib.import_module(module)) or ""
        # A module of one agent says what the method is; one of several says it at each class.
        if len(_classes_of(module)) == 1:
            parts.append(markdown(whole))
        parts.append(markdown(inspect.getdoc(first.load_class()) or ""))
    else:
        parts.append(_foreign(first))
    return "\n\n".join([*parts, _presets(specs)]) + "\n"


def _classes_of(module: str) -> set[str]:
    points = (agent_spec(name).entry_point for name in agent_names())
    return {point for point in points if point.partition(":")[0] == module}


def _presets(specs: list[AgentSpec]) -> str:
    """Every preset's own arguments, as JSON."""
    blocks = []
    for spec in specs:
        for preset in PRESETS[:-1]:
            if kwargs := spec.presets.get(preset):
                shown = json.dumps(dict(kwargs), default=str)
                blocks.append(f"`{spec.name}`, `{preset}`: `{shown}`")
    return "\n\n".join(["**Presets**", *blocks]) if blocks else "**Presets**: none."


def _title(specs: list[AgentSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


def _anchor(specs: list[AgentSpec]) -> str:
    return re.sub(r"[^a-z0-9]+", "-", _title(specs).lower())


def _summary(spec: AgentSpec) -> str:
    """The first paragraph of the class, and how the agent differs from others of that class."""
    if not spec.entry_point.startswith(_OWN):
        return _foreign(spec)
    text = (inspect.getdoc(spec.load_class()) or "").partition("\n\n")[0]
    text = re.sub(r"; see .*", ".", " ".join(text.split())).replace("``", "`")
    own = dict(spec.presets.get("default", {})) if _is_shared(spec) else {}
    differs = ", ".join(f"`{key}={value!r}`" for key, value in own.items())
    return f"{text} With {differs}." if differs else text


def _foreign(spec: AgentSpec) -> str:
    module, _, name = spec.entry_point.partition(":")
    return f"`{name}` as it is in `{module.partition('.')[0]}`, whose documentation describes it."


def _is_shared(spec: AgentSpec) -> bool:
    return sum(agent_spec(name).entry_point == spec.entry_point for name in agent_names()) > 1


def markdown(docstring: str) -> str:
    """A Google docstring as Markdown: tables, sections of arguments, code."""
    text = docstring.replace("``", "`").replace("; see the module's docstring.", ".")
    lines = text.splitlines()
    found: list[str] = []
    while lines:
        if _RULE.fullmatch(lines[0]):
            end = next(i for i in range(2, len(lines)) if _RULE.fullmatch(lines[i]))
            end = next((i for i in range(end + 1, len(lines)) if _RULE.fullmatch(lines[i])), end)
            found += _table(lines[: end + 1])
            lines = lines[end + 1 :]
        elif lines[0] in _SECTIONS:
            end = next((i for i, line in enumerate(lines) if not line), len(lines))
            found += _entries(lines[:end])
            lines = lines[end:]
        else:
            found.append(lines.pop(0))
    return "\n".join(found)


def _table(lines: list[str]) -> list[str]:
    """A table between rules of equal signs; what is indented or has an empty cell goes on a row."""
    starts = [match.start() for match in re.finditer("=+", lines[0])]
    rows: list[list[str]] = []
    for line in lines[1:-1]:
        if _RULE.fullmatch(line):
            continue
        ends = [*starts[1:], len(line)]
        cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        if rows and (line.startswith(" ") or not all(cells)):
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [shown[0], "|" + "---|" * len(starts), *shown[1:]]


def _entries(lines: list[str]) -> list[str]:
    """``Args:`` and the like as a list."""
    title = {"Args:": "**Arguments**", "Raises:": "**Raises**"}[lines[0]]
    entries: list[str] = []
    for line in lines[1:]:
        text = line.strip()
        if line.startswith("     "):
            entries[-1] += f" {text}"
        else:
            name, _, rest = text.partition(": ")
            entries.append(f"- `{name}`: {rest}")
    return [title, "", *(entry for entry in entries if not entry.startswith("- `_"))]


def write(folder: Path) -> None:
    """Write the page into a folder of documentation."""
    (folder / PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m m3po_bench.agent_cards FOLDER")
    write(Path(sys.argv[1]))
