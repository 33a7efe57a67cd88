"""Checks of a results folder that somebody else may have made.

Only JSON, CSV and the report's tables are read, up to a size; links are refused, models and
everything else are never opened. Runs that ``runs.csv`` lists must be there, and tables be what the
runs give. What is found is told, one line for each problem; nothing in a folder makes this raise.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gymnasium as gym

from m3po_bench.leaderboard.checksums import damage
from m3po_bench.leaderboard.grid import PROTOCOL, SuiteError, config_hash
from m3po_bench.leaderboard.pages import to_html, without_figures
from m3po_bench.leaderboard.references import load_references
from m3po_bench.leaderboard.report_tables import PAGE, RUNS, make_tables
from m3po_bench.leaderboard.settings import ONLINE, PLAYED, SHOTS, TEST
from m3po_bench.leaderboard.store import (
    BY_AGE,
    CHANGES,
    COLUMNS,
    EVALUATION,
    MODEL,
    OF_RUN,
    RUN,
    SUITE,
    UNPUBLISHED,
    Store,
    is_header,
)
from m3po_bench.leaderboard.traces import parse_table
from m3po_bench.registry import short_name

MAX_BYTES = 50_000_000
"""Of a file that is read."""

BEST_SCORE = 10.0
"""Scores above are not believed. An oracle is SAC at a budget: M3PO has come to three times it."""

_RECORD: dict[str, type] = {
    "agent": str, "env": str, "schedule": str, "seed": int, "config_hash": str, "config": dict,
    "protocol": str, "env_steps": int, "training_seconds": dict, "versions": dict,
}  # fmt: skip
_KINDS: dict[type, str] = {str: "text", int: "a whole number", dict: "an object"}
_BUDGET = ("steps", "checkpoints", "eval_episodes", "final_episodes")


_REPORT_AGAIN = "make it anew with: m3po-bench report"


class RefusedError(Exception):
    """A file that cannot be believed; the message says why."""


def verify(root: Path) -> tuple[int, list[str]]:
    """How many runs a results folder holds, and what is wrong with it.

    Args:
        root: A results folder, as ``m3po-bench run`` writes it.

    Returns:
        Number of finished runs, and one line for each problem; none if all is well.
    """
    links = {path for path in root.rglob("*") if path.is_symlink()}
    problems = [f"{path}: a link; links are not followed" for path in sorted(links)]
    found: set[str] = set()
    hashes: dict[str, str] = {}
    for path in sorted(root.glob(f"*/*/*/{RUN}")):
        if links & {path, *path.parents} or path.parent.suffix:  # the latter was set aside
            continue
        name = path.parent.relative_to(root).as_posix()
        found.add(name)
        try:
            record = _read_record(path)
            problems += [f"{name}: {text}" for text in _record_problems(record, name)]
            if changed := damage(record, path.parent, RUN, UNPUBLISHED, unread=(MODEL,)):
                problems.append(f"{name}: {changed}")
            rows = _read_rows(path.with_name(EVALUATION))
            problems += [f"{name}: {text}" for text in _row_problems(record, rows)]
            _check_tables(path.parent)
            entry = name.rpartition("/")[0]
            if hashes.setdefault(entry, record["config_hash"]) != record["config_hash"]:
                problems.append(f"{name}: configured unlike other seeds of {entry}")
        except RefusedError as error:
            problems.append(f"{name}: {error}")
        except RecursionError:
            problems.append(f"{name}: {RUN}: nested too deeply")
    if not found:
        problems.append(f"{root}: no finished run (AGENT folders with seedN/{RUN})")
    problems += _missing_runs(root, found)
    if not problems:  # else the tables, which are made from what is wrong, tell nothing
        problems += _table_problems(root)
    return len(found), problems


def _read(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise RefusedError(f"{path.name}: missing")
    # Read no further: a small compressed file can be an enormous text.
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError(f"{path.name}: not a text file") from None
    except (OSError, EOFError, zlib.error):
        raise RefusedError(f"{path.name}: cannot be read") from None
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{path.name}: more than {MAX_BYTES:,} bytes")
    return text


def _read_record(path: Path) -> dict[str, Any]:
    def not_a_number(text: str) -> float:
        raise ValueError(f"{text} is not JSON")

    try:
        record = json.loads(_read(path), parse_constant=not_a_number)
    except ValueError as error:
        raise RefusedError(f"{RUN}: {str(error)[:100]}") from None
    if not isinstance(record, dict):
        raise RefusedError(f"{RUN}: expected an object")
    for key, kind in _RECORD.items():
        value = record.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RefusedError(f"{RUN}: {key} = {_shown(value)}, expected {_KINDS[kind]}")
    config = record["config"]
    for key in _BUDGET:
        if not isinstance(config.get(key), int) or not 0 <= config[key] <= 10**12:
            raise RefusedError(f"{RUN}: config.{key} = {_shown(config.get(key))}, expected a count")
    if config["checkpoints"] < 1 or config["checkpoints"] > max(1, config["steps"]):
        raise RefusedError(f"{RUN}: config.checkpoints = {config['checkpoints']}: impossible")
    return record


def _record_problems(record: Mapping[str, Any], name: str) -> Iterator[str]:
    config = record["config"]
    expected = (
        f"{short_name(record['env'])}-{record['schedule']}/{record['agent']}/seed{record['seed']}"
    )
    if name != expected:
        yield f"its {RUN} is that of {_shown(expected)}"
    for where, protocol in (("protocol", record["protocol"]), ("config", config.get("protocol"))):
        if protocol != PROTOCOL:
            yield f"{where} says protocol {_shown(protocol)}, expected {PROTOCOL}"
    if record["config_hash"] != config_hash(config):
        yield f"config_hash {_shown(record['config_hash'])} is not its config's"
    for key in ("agent", "env"):
        if config.get(key) != record[key]:
            yield f"config is for {key} {_shown(config.get(key))}"
    env_kwargs = config.get("env_kwargs")
    schedule = env_kwargs.get("schedule") if isinstance(env_kwargs, dict) else None
    if schedule != record["schedule"]:
        yield f"config is for schedule {_shown(schedule)}"
    if record["env_steps"] < config["steps"]:
        yield f"{record['env_steps']:,} env steps of {config['steps']:,}"
    seconds = record["training_seconds"].get("cpu")
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        yield f"training_seconds.cpu = {_shown(seconds)}, expected seconds"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    kinds = {"step": int, "episode": int, "return": float, "length": int, "n_changes": int}
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(_read(path)), strict=True)
        names = tuple(reader.fieldnames or ())
        if not is_header(names):
            raise RefusedError(f"{EVALUATION}: expected the columns {','.join(COLUMNS)}")
        kinds |= dict.fromkeys(names[len(COLUMNS) :], float)
        for row in reader:
            if None in row or None in row.values():
                raise RefusedError(
                    f"{EVALUATION}: line {reader.line_num} has not {len(names)} cells"
                )
            rows.append({key: kinds.get(key, str)(value) for key, value in row.items()})
    except (ValueError, csv.Error) as error:
        raise RefusedError(f"{EVALUATION}: {str(error)[:100]}") from None
    if not rows:
        raise RefusedError(f"{EVALUATION}: no rows")
    return rows


def _check_tables(run: Path) -> None:
    """Refuse tables beside the rows that are not what they should be: not all are sealed."""
    for name in (CHANGES, BY_AGE):
        if (run / name).exists():
            try:
                parse_table(name, _read(run / name))
            except ValueError as error:
                raise RefusedError(f"{name}: {error}") from None


def _missing_runs(root: Path, found: set[str]) -> Iterator[str]:
    """What the list of runs names, where there is one, and the folder has not."""
    if not (root / RUNS).exists():
        return
    try:
        reader = csv.DictReader(io.StringIO(_read(root / RUNS)), strict=True)
        if not {*OF_RUN} <= {*(reader.fieldnames or ())}:
            raise RefusedError(f"{RUNS}: expected the columns {', '.join(OF_RUN)}")
        cells = [[row[name] or "" for name in OF_RUN] for row in reader]
    except RefusedError as error:
        yield str(error)
    except csv.Error as error:
        yield f"{RUNS}: {str(error)[:100]}"
    else:
        for agent, env, schedule, seed in cells:
            name = f"{short_name(env)}-{schedule}/{agent}/seed{seed}"
            if name not in found:
                yield f"{_shown(name)}: no finished run, but {RUNS} lists it"


def _table_problems(root: Path) -> Iterator[str]:
    """Where the tables, if there are any, are not what the runs give."""
    store = Store(root)
    try:
        if (root / SUITE).exists():
            _read(root / SUITE)  # not too large
        tables = make_tables(store, store.finished(), load_references())
        given = {**tables.contents, PAGE: to_html(tables.page, {})}
        if not any((root / name).exists() for name in given):
            return  # no report was made
        for name, content in given.items():
            if content is None:
                if (root / name).exists():
                    yield f"{name}: the runs give no such table; {_REPORT_AGAIN}"
            elif line := _first_difference(without_figures(_read(root / name)), content):
                yield f"{name}: line {line} is not what the runs give; {_REPORT_AGAIN}"
    except (RefusedError, SuiteError) as error:
        yield str(error)
    except Exception as error:  # whatever comes of strange values
        yield f"no tables can be made of its runs: {type(error).__name__}: {_shown(str(error))}"


def _first_difference(text: str, given: str) -> int:
    """The first line, from 1 on, that is another one; 0 if there is none."""
    pairs = zip_longest(text.split("\n"), given.split("\n"))
    return next((i for i, (found, line) in enumerate(pairs, 1) if found != line), 0)


def _row_problems(record: Mapping[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    config = record["config"]
    test = _test_split(record["env"])
    if test is None:
        yield f"env {_shown(record['env'])} is no meta-env known here: its rows are not checked"
        return
    n_episodes, horizon = test
    steps, n = config["steps"], config["checkpoints"]
    due = [steps * i // n for i in range(1, min(n, len(rows) + 1) + 1)]
    by_step: dict[int, list[int]] = {}
    further: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if (row["setting"], row["split"]) not in PLAYED:
            yield f"setting {_shown(row['setting'])}, split {_shown(row['split'])}: not known"
            return
        if not all(math.isfinite(row[name]) for name in row if name not in COLUMNS):
            yield f"step {row['step']}: a number that is not finite"
            return
        if not math.isfinite(row["return"]) or not 1 <= row["length"] <= horizon:
            yield f"step {row['step']}: return {row['return']}, length {row['length']}: impossible"
            return
        if (row["setting"], row["split"]) == (ONLINE, TEST):
            by_step.setdefault(row["step"], []).append(row["episode"])
        elif row["step"] == steps:
            further.setdefault((row["setting"], row["split"]), []).append(row["episode"])
        else:
            yield f"step {row['step']}: {row['setting']}, {row['split']}: only at the last step"
            return
    if sorted(by_step) != due:
        yield f"checkpoints at {_shown(sorted(by_step))}, expected {_shown(due)}"
        return
    for step, episodes in by_step.items():
        wanted = config["eval_episodes"]
        if step == steps:
            wanted = config["final_episodes"] or n_episodes
        if sorted(episodes) != list(range(min(wanted, n_episodes))):
            yield f"step {step}: episodes {_shown(sorted(episodes))}, expected {wanted} from 0 on"
    for (setting, split), episodes in further.items():
        if sorted(episodes) != list(range(len(episodes))):
            found = _shown(sorted(episodes))
            yield f"{setting}, {split}: episodes {found}, expected each once, from 0 on"
    shots = [setting for setting in SHOTS if (setting, TEST) in further]
    if shots and shots != list(SHOTS):
        yield f"trials with {', '.join(shots)} alone, expected {', '.join(SHOTS)}"
    last = [row for row in rows if row["step"] == steps and row["split"] == TEST]
    yield from _plausibility(record, [row["return"] for row in last if row["setting"] == ONLINE])


def _plausibility(record: Mapping[str, Any], returns: list[float]) -> Iterator[str]:
    known = load_references().get((record["env"], record["schedule"]), {})
    if not returns or not {"random", "oracle"} <= set(known):
        return
    low, high = known["random"].mean, known["oracle"].mean
    score = (sum(returns) / len(returns) - low) / (high - low)
    if score > BEST_SCORE:
        yield f"a score of {score:.1f} (0 is random, 1 the oracle) is not believed"


def _test_split(env_id: str) -> tuple[int, int] | None:
    """Number of test episodes and the time limit; None if there is no such meta-env."""
    if env_id not in gym.registry:  # gym.make would import a module named in an id
        return None
    try:
        env = gym.make(env_id, split="test", disable_env_checker=True)
        found = len(env.get_wrapper_attr("episodes")), int(env.get_wrapper_attr("horizon"))
        env.close()
    except Exception:  # whatever an env without splits, or one that is not installed, raises
        return None
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
