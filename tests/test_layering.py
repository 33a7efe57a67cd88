"""Who may import whom, how heavy an import may be, how long a file and a function may get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import m3po_baselines
import m3po_bench
import m3po_envs

ROOTS = {package.__name__: Path(package.__path__[0]) for package in
         (m3po_bench, m3po_envs, m3po_baselines)}  # fmt: skip
FILES = {
    ".".join((name, *path.relative_to(root).with_suffix("").parts)): path
    for name, root in ROOTS.items()
    for path in sorted(root.rglob("*.py"))
}
CONTRACTS = ("m3po_bench.tasks", "m3po_bench.wrappers", "m3po_bench.registry")
# Room: what it may import of this distribution beside itself and the contracts. Longest first.
ROOMS = {
    "m3po_bench.leaderboard": ("m3po_bench", "m3po_bench.images"),
    "m3po_bench.common": (),
    "m3po_bench.m3po": ("m3po_bench.common",),
    "m3po_bench.theory": ("m3po_bench.images",),
    "m3po_bench.cli": (
        "m3po_bench.run_command",
        "m3po_bench.commands",
        "m3po_bench.model_commands",
        "m3po_bench.leaderboard",
        "m3po_bench.film",
        "m3po_bench.zoo",
    ),
    "m3po_bench.model_commands": (
        "m3po_bench.leaderboard",
        "m3po_bench.film",
        "m3po_bench.zoo",
    ),
    "m3po_bench.run_command": ("m3po_bench.commands", "m3po_bench.leaderboard"),
    "m3po_bench.commands": ("m3po_bench.leaderboard", "m3po_bench.theory"),
    "m3po_bench.__init__": (
        "m3po_envs",
        "m3po_baselines",
        "m3po_bench.m3po",
        "m3po_bench.zoo",
    ),
    "m3po_baselines": ("m3po_bench.common",),
    "m3po_envs": (),
    "m3po_bench": (),
}
OURS = tuple(ROOTS)
HEAVY = ("torch", "stable_baselines3", "sb3_contrib", "mujoco")
LIGHT_ROOMS = (
    "m3po_bench.leaderboard", "m3po_bench.cli", "m3po_bench.commands",
    "m3po_bench.run_command", "m3po_bench.model_commands", "m3po_bench.__init__",
    "m3po_bench.film", "m3po_bench.zoo",
    *CONTRACTS,
)  # fmt: skip
MAX_FILE, MAX_FUNCTION = 400, 60
FORBIDDEN_NAMES = {"utils", "helpers", "type_aliases", "misc", "common_utils"}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        # `from package import module` may name a module of a room that is closed.
        submodules = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in _MODULES else base for name in submodules]
    return []


_MODULES = {name.removesuffix(".__init__") for name in FILES}


def _all_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        yield from _names(node)


def _imports_at_load(body: list[ast.stmt]) -> Iterator[str]:
    """Imports that run when the module is imported: not in functions, not for type checkers."""
    for node in body:
        yield from _names(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports_at_load(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in ("body", "orelse", "finalbody"):
                yield from _imports_at_load(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _imports_at_load(handler.body)


def _inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def _room(module: str) -> str:
    return next(room for room in ROOMS if _inside(module, room))


@pytest.mark.parametrize("module", FILES)
def test_rooms_import_only_what_they_may(module: str) -> None:
    room = _room(module)
    for name in _all_imports(_tree(module)):
        if not any(_inside(name, package) for package in OURS):
            continue
        allowed = (
            # Files at the top of m3po_bench, the contracts, are a room without inner rooms.
            (_inside(name, room) and room != "m3po_bench")
            or name in CONTRACTS
            # The bare package is its version and its registrations, not its rooms.
            or any(name == a if a == "m3po_bench" else _inside(name, a) for a in ROOMS[room])
        )
        assert allowed, f"{module} may not import {name}"


@pytest.mark.parametrize("module", FILES)
def test_light_rooms_load_nothing_heavy(module: str) -> None:
    tree = _tree(module)
    if any(_inside(module, room) for room in LIGHT_ROOMS):
        heavy = [n for n in _imports_at_load(tree.body) if n.split(".")[0] in HEAVY]
        assert not heavy, f"{module} imports {heavy} when it is loaded"
    if _inside(module, "m3po_envs"):
        learning = [n for n in _all_imports(tree) if n.split(".")[0] in HEAVY[:3]]
        assert not learning, f"{module} imports {learning}: envs know nothing of learning"


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_are_short(module: str) -> None:
    assert FILES[module].stem not in FORBIDDEN_NAMES
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MAX_FILE
    for node in ast.walk(_tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{module}.{node.name} has {length} lines"


def test_rules_are_not_vacuous() -> None:
    rooms = {_room(module) for module in FILES}
    assert {"m3po_bench.leaderboard", "m3po_bench.common", "m3po_envs", "m3po_baselines"} <= rooms
    at_load = list(
        _imports_at_load(ast.parse("try:\n import torch\nexcept E:\n import numpy").body)
    )
    assert at_load == ["torch", "numpy"]
    hidden = "if TYPE_CHECKING:\n import torch\ndef f():\n import torch\n"
    assert not list(_imports_at_load(ast.parse(hidden).body))


@pytest.mark.parametrize(
    "module",
    [
        "m3po_bench", "m3po_bench.cli", "m3po_bench.commands", "m3po_bench.model_commands",
        *(m for m in FILES if "leaderboard" in m and not m.endswith("__init__")),
    ],
)  # fmt: skip
def test_import_is_light(module: str) -> None:
    code = (
        f"import sys, time, {module}\n"
        "print([m for m in ('torch', 'mujoco') if m in sys.modules], time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.rsplit(maxsplit=1)
    assert loaded == "[]"
    if module == "m3po_bench":
        # Processor time, so that a busy machine does not fail the test; about 0.3 s.
        assert float(seconds) < 1.0
