"""Suite files: TOML becomes the list of runs to make, or one line that says what is wrong."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.grid import ALL, Budget, Suite, SuiteError, Variant
from m3po_bench.registry import agent_names, agent_spec, env_id, unknown_name

MAX_BYTES = 1_000_000
"""Of a suite's file."""

_OF_THE_RUN = ("env", "seed", "policy")
"""Arguments of every agent that are not for a variant to give: each run has its own."""


def suite_names() -> list[str]:
    """Names of the suites in the package, shortest budget first."""
    known = ["smoke", "quick", "quick-all", "cheetah", "lite", "ablation", "nonstationary", "paper"]
    found = [path.name[:-5] for path in _packaged().iterdir() if path.name.endswith(".toml")]
    return sorted(found, key=lambda name: (known.index(name) if name in known else 99, name))


def load_suite(name: str) -> Suite:
    """Read a suite.

    Args:
        name: One of ``suite_names()``, or the path of a file that ends in ``.toml``.

    Raises:
        UnknownNameError: If suite, env, agent, preset or key is unknown.
        SuiteError: If the file cannot be read or a value is impossible.
    """
    if name.endswith(".toml"):
        try:
            text = _read(Path(name))
        except (OSError, ValueError) as error:
            reason = str(error) if isinstance(error, SuiteError) else "not a text file"
            reason = error.strerror or reason if isinstance(error, OSError) else reason
            raise SuiteError(f"suite {name}: {reason}; expected a TOML file") from None
    else:
        text = _packaged_text(name)
    try:
        return parse_suite(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"suite {name}: not valid TOML: {_one_line(error)}") from None
    except RecursionError:
        raise SuiteError(f"suite {name}: nested too deeply") from None
    except ValueError as error:
        raise SuiteError(f"suite {name}: {_one_line(error)}") from None


def _read(path: Path) -> str:
    if path.exists() and not path.is_file():  # a folder, or what never ends
        raise SuiteError("not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SuiteError(f"more than {MAX_BYTES:,} bytes")
    return data.decode("utf-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def parse_suite(table: Mapping[str, Any]) -> Suite:
    """Check the contents of a suite file; raises as ``load_suite``."""
    table = _completed(table)
    budget_keys = [f.name for f in fields(Budget)]
    required = ("name", "envs", "schedule", "agents", "seeds", "steps")
    keys = dict.fromkeys([*required, *budget_keys, "budgets", "variants", "description"])
    _check_keys("key", table, list(keys))
    missing = [key for key in required if key not in table]
    if missing:
        raise SuiteError(f"{missing[0]} is missing; a suite needs {', '.join(required)}")
    common = {key: table[key] for key in budget_keys if key in table}
    variants = {name: _variant(name, value) for name, value in _table(table, "variants").items()}
    known = [*agent_names(), *variants]
    budgets = {}
    for name, values in _table(table, "budgets").items():
        if name not in known:
            raise unknown_name("agent in [budgets]", name, known)
        _check_keys(f"key in [budgets.{name}]", _table(table["budgets"], name), budget_keys)
        budgets[name] = Budget(**{**common, **values})
    suite = Suite(
        name=table["name"],
        envs=_names(table, "envs", env_id),
        schedules=_names(table, "schedule"),
        agents=_names(table, "agents"),
        seeds=table["seeds"],
        budget=Budget(**common),
        budgets=budgets,
        variants=variants,
        description=str(table.get("description", "")),
    )
    return suite.select(agents=suite.agents)


def _completed(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table with what it leaves to the suite that it is ``like``.

    Budgets and variants are taken over one by one, name and description never.
    """
    if "like" not in table:
        return table
    base = _completed(tomllib.loads(_packaged_text(table["like"])))
    own = {key: value for key, value in table.items() if key != "like"}
    taken = {key: value for key, value in base.items() if key not in ("name", "description")}
    both = ("budgets", "variants")
    return {**taken, **own, **{key: {**_table(base, key), **_table(own, key)} for key in both}}


def _packaged() -> Any:
    return files("m3po_bench").joinpath("suites")


def _packaged_text(name: object) -> str:
    if name not in suite_names():
        raise unknown_name("suite", name, suite_names())
    text: str = _packaged().joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return text


def _variant(name: str, values: Any) -> Variant:
    if not isinstance(values, dict) or "agent" not in values:
        raise SuiteError(f"[variants.{name}]: expected a table with the key agent")
    if name in (ALL, *agent_names()):
        meaning = "every agent" if name == ALL else "a registered agent"
        raise SuiteError(
            f"[variants.{name}]: {name} means {meaning}; expected a name of its own, "
            f"such as {name}-2"
        )
    _check_keys(f"key in [variants.{name}]", values, [f.name for f in fields(Variant)])
    if not isinstance(values["agent"], str):
        raise SuiteError(f"[variants.{name}]: agent = {values['agent']!r}: expected a name")
    agent_spec(values["agent"])
    kwargs = _table(values, "kwargs")
    for key in _OF_THE_RUN:
        if key in kwargs:
            raise SuiteError(
                f"[variants.{name}]: kwargs has {key}; expected arguments other than "
                f"{', '.join(_OF_THE_RUN)}, which the run gives"
            )
    try:
        json.dumps(kwargs, allow_nan=False)
    except (TypeError, ValueError):
        raise SuiteError(
            f"[variants.{name}]: kwargs = {kwargs!r}: expected numbers, texts, lists and tables"
        ) from None
    return Variant(values["agent"], kwargs)


def _names(
    table: Mapping[str, Any], key: str, meant: Callable[[str], str] = str
) -> tuple[str, ...]:
    """What a list of names, or a single one, means; each thing once."""
    value = table[key]
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise SuiteError(f"{key} = {value!r}: expected a name or a list of names")
    found = tuple(meant(name) for name in names)
    for name in found:
        if found.count(name) > 1:
            raise SuiteError(f"{key} = {value!r}: {name} is there twice; expected each once")
    return found


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise SuiteError(f"{key} = {value!r}: expected a table")
    return value


def _check_keys(kind: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise unknown_name(kind, key, known)
