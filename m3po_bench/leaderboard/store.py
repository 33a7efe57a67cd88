"""Where results live: one folder a run, complete exactly when its ``run.json`` is there."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.grid import RunSpec, Suite

RUN = "run.json"
EVALUATION = "evaluation.csv"
MODEL = "model.zip"
ERROR = "error.txt"
LOG = "log.txt"
PROGRESS = "progress.txt"
SUITE = "suite.json"
_LOCK = ".lock"
COLUMNS = ("step", "setting", "split", "episode", "return", "length", "n_changes")
"""Columns of ``evaluation.csv``: one row per test episode played."""


class Store:
    """A results folder.

    Attributes:
        root: The folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, spec: RunSpec) -> Path:
        """A run's folder."""
        return self.root / spec.run_id

    def is_finished(self, spec: RunSpec) -> bool:
        """Whether this run, with this configuration, is complete."""
        record = read_json(self.folder(spec) / RUN)
        return record is not None and record["config_hash"] == spec.config_hash

    def set_aside_others(self, spec: RunSpec) -> list[Path]:
        """Rename finished runs of this agent and env that were made with another configuration.

        All seeds are looked at, so that one row of the leaderboard never mixes configurations.

        Returns:
            Where the runs are now.
        """
        moved = []
        for folder in sorted(self.folder(spec).parent.glob("seed*")):
            record = read_json(folder / RUN) if folder.suffix == "" else None
            if record is not None and record["config_hash"] != spec.config_hash:
                moved.append(_free_name(folder, record["config_hash"]))
                folder.rename(moved[-1])
        return moved

    def begin(self, spec: RunSpec) -> Path:
        """Make the run's folder, without what an unfinished run has left there."""
        folder = self.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)
        for half_written in folder.glob(f".*.{MODEL}"):
            half_written.unlink()
        write_atomically(folder / EVALUATION, ",".join(COLUMNS) + "\n")
        return folder

    def add_rows(self, spec: RunSpec, rows: Iterable[tuple[Any, ...]]) -> None:
        """Append rows of ``COLUMNS`` to the run's ``evaluation.csv``."""
        with (self.folder(spec) / EVALUATION).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def keep_model(self, spec: RunSpec, save: Callable[[Path], object]) -> None:
        """Let ``save`` write the trained model into the run's folder."""
        path = self.folder(spec) / MODEL
        temporary = path.with_name(f".{os.getpid()}.{MODEL}")  # SB3 adds .zip where it is not
        save(temporary)
        temporary.replace(path)

    def finish(self, spec: RunSpec, record: Mapping[str, Any]) -> None:
        """Write ``run.json``: from now on the run is complete."""
        full = {**identity(spec), **record}
        write_atomically(self.folder(spec) / RUN, json.dumps(full, indent=2) + "\n")

    def write_suite(self, suite: Suite) -> None:
        """Remember which suite this folder belongs to, and how many seeds it asks for."""
        record = {
            "name": suite.name,
            "seeds": suite.seeds,
            "eval_episodes": suite.budget.eval_episodes,
        }
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / SUITE, json.dumps(record, indent=2) + "\n")

    def read_suite(self) -> dict[str, Any] | None:
        """What ``write_suite`` wrote, or None where no suite was run."""
        return read_json(self.root / SUITE)

    def finished(self) -> list[tuple[Path, dict[str, Any]]]:
        """Folder and ``run.json`` of every finished run that was not set aside, sorted."""
        found = []
        for path in sorted(self.root.glob(f"*/*/seed*/{RUN}")):
            record = read_json(path) if path.parent.suffix == "" else None
            if record is not None:
                found.append((path.parent, record))
        return found

    @contextmanager
    def locked(self, spec: RunSpec) -> Iterator[None]:
        """Be the only process that works on this run; waits for another one to end.

        The lock is the operating system's, so one that was held by a killed process is free.
        """
        import fcntl

        folder = self.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def identity(spec: RunSpec) -> dict[str, Any]:
    """What names a run in its ``run.json``."""
    return {
        "agent": spec.agent,
        "registered_as": spec.variant.agent,
        "env": spec.env,
        "schedule": spec.schedule,
        "seed": spec.seed,
        "config_hash": spec.config_hash,
        "config": spec.config,
    }


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's object, or None if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    content: dict[str, Any] = json.loads(text)
    return content


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name and rename, so that no reader ever sees half a file."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _free_name(folder: Path, label: str) -> Path:
    candidate, n = folder.with_name(f"{folder.name}.{label}"), 1
    while candidate.exists():
        n += 1
        candidate = folder.with_name(f"{folder.name}.{label}-{n}")
    return candidate
