"""Where results live: one folder a run, complete exactly when its ``run.json`` is there.

A run's ``run.json`` holds checksums of its files; a run that does not fit them counts nowhere.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.checksums import KEY, damage, resealed, sealed
from m3po_bench.leaderboard.files import (
    compressed,
    read_json,
    replacing,
    write_atomically,
)
from m3po_bench.leaderboard.grid import RunSpec, Suite, SuiteError
from m3po_bench.leaderboard.lock import Lock, LostLockError, holder

RUN = "run.json"
ROWS = "evaluation.csv"
"""Rows of a run that is being made; finished, they are compressed."""
EVALUATION = "evaluation.csv.gz"
MODEL = "model.zip"
TRACE = "trace.parquet"
CHANGES, BY_AGE = "changes.csv.gz", "by_age.csv.gz"
ERROR = "error.txt"
LOG = "log.txt"
PROGRESS = "progress.txt"
CHECKPOINT, CHECKPOINT_NOTE = "checkpoint.pt", "checkpoint.json"
SUITE = "suite.json"
LOCKS = ".locks"
_NO_SUITE = "expected a suite's name and number of seeds; run the suite again, or remove the file"
_NOT_RESULTS = (RUN, ERROR, LOG, PROGRESS, CHECKPOINT, CHECKPOINT_NOTE, ROWS)
UNPUBLISHED = (MODEL, TRACE)
"""Large files, which a published folder is without."""

Finished = list[tuple[Path, dict[str, Any]]]
"""Folder and ``run.json`` of finished runs."""

COLUMNS = ("step", "setting", "split", "episode", "return", "length", "n_changes")
"""Columns of ``EVALUATION``: one row per test episode played. What its env reports follows."""
OF_RUN = ("agent", "env", "schedule", "seed")
"""Columns that say which run a row is of, where rows of several are together."""
_REPORTED = re.compile(r"[a-z][a-z_]{0,40}")


class Store:
    """A results folder.

    Attributes:
        root: The folder; made when something is first written.
        lock: Where given, rows and records are only written while it is held.
    """

    def __init__(self, root: Path, lock: Lock | None = None) -> None:
        self.root = root
        self.lock = lock

    def folder(self, spec: RunSpec) -> Path:
        """A run's folder."""
        return self.root / spec.run_id

    def is_finished(self, spec: RunSpec) -> bool:
        """Whether this run, with this configuration, is complete."""
        record, problem = _read_record(self.folder(spec))
        return record is not None and not problem and record["config_hash"] == spec.config_hash

    def set_aside_misfits(self, spec: RunSpec) -> list[tuple[Path, str, Path]]:
        """Rename finished runs of this agent and env that cannot count beside this one.

        These are the ones made with another configuration, and the damaged. All seeds are looked
        at, so that one row of the leaderboard never mixes configurations.

        Returns:
            Where each was, why it cannot count, and where it is now.
        """
        moved = []
        for folder in sorted(self.folder(spec).parent.glob("seed*")):
            if folder.suffix or not _misfit(folder, spec):
                continue
            lock = Lock.acquire(self._lock_path(folder))
            if lock is None:  # somebody is about to make it anew
                continue
            try:  # as before, now that nobody else moves it
                moved += _set_aside(folder, spec)
            finally:
                lock.release()
        return moved

    def adopt(self, spec: RunSpec, other: Store) -> bool:
        """Take over a run that is finished in another results folder, if none is here.

        Returns:
            Whether it was copied.
        """
        if (self.folder(spec) / RUN).exists() or not other.is_finished(spec):
            return False
        lock = self.acquire(spec)
        if lock is None:  # somebody makes it
            return False
        try:
            folder = self.folder(spec)
            if (folder / RUN).exists():  # whoever had the lock has made one
                return False
            _sweep(folder)
            fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.copytree(other.folder(spec), fresh, ignore=shutil.ignore_patterns(".*"))
            shutil.rmtree(folder, ignore_errors=True)  # what was not finished
            fresh.rename(folder)
        finally:
            lock.release()
        return True

    def begin(self, spec: RunSpec, step: int = 0, reported: Sequence[str] = ()) -> Path:
        """Make the run's folder, without what an unfinished run has left there or beside it.

        A finished run that cannot count, which somebody may have made a moment ago, is set aside.
        The caller has the run's lock.

        Args:
            spec: Which run.
            step: Rows up to this env step are kept.
            reported: Names of further columns of its rows.

        Raises:
            ValueError: If such a name is taken, or no name.
        """
        header = (*COLUMNS, *reported)
        if not is_header(header):
            raise ValueError(
                f"{spec.env} reports {reported}: expected names of lower-case letters, each once, "
                f"none of {', '.join((*COLUMNS, *OF_RUN))}"
            )
        folder = self.make_room(spec)
        (folder / RUN).unlink(missing_ok=True)
        _sweep(folder)
        for name in (EVALUATION, TRACE, CHANGES, BY_AGE):
            (folder / name).unlink(missing_ok=True)
        kept = _rows_until(folder / ROWS, step) if step else []
        write_atomically(folder / ROWS, "\n".join([",".join(header), *kept]) + "\n")
        return folder

    def make_room(self, spec: RunSpec) -> Path:
        """The run's folder, which is made; a finished run in it that cannot count is set aside."""
        folder = self.folder(spec)
        _set_aside(folder, spec)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def add_rows(self, spec: RunSpec, rows: Iterable[tuple[Any, ...]]) -> None:
        """Append rows of ``COLUMNS``, and what its env reports, to those of a run being made.

        Raises:
            LostLockError: If somebody else makes this run by now.
        """
        self._check_lock()
        with (self.folder(spec) / ROWS).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def keep_model(self, spec: RunSpec, save: Callable[[Path], object]) -> None:
        """Let ``save`` write the trained model into the run's folder."""
        path = self.folder(spec) / MODEL
        # SB3 adds .zip where it is not.
        with replacing(path, path.with_name(f".{os.getpid()}.{MODEL}")) as temporary:
            save(temporary)

    def finish(self, spec: RunSpec, record: Mapping[str, Any]) -> None:
        """Compress the rows and write ``run.json`` with checksums of what is there.

        From now on the run is complete.

        Raises:
            LostLockError: If somebody else makes this run by now.
        """
        folder = self.folder(spec)
        write_atomically(folder / EVALUATION, compressed((folder / ROWS).read_bytes()))
        names = [
            path.name
            for path in folder.iterdir()
            if path.is_file() and path.name not in _NOT_RESULTS and not path.name.startswith(".")
        ]
        full = sealed({**identity(spec), **record}, folder, RUN, names)
        self._check_lock()
        write_atomically(folder / RUN, json.dumps(full, indent=2) + "\n")
        (folder / ROWS).unlink()

    def replace_tables(
        self, folder: Path, tables: Mapping[str, bytes], noted: Mapping[str, str] | None = None
    ) -> None:
        """Write what follows from a finished run's files, under its checksums if it has any.

        Nothing is done where somebody makes that run anew.

        Args:
            folder: The run's.
            tables: Contents by file name.
            noted: What its record says of them from now on.
        """
        lock = Lock.acquire(self._lock_path(folder))
        if lock is None:
            return
        try:
            record, problem = _read_record(folder)
            if record is None or problem:
                return
            # First without: a kill in between must not leave a table that misses its checksum.
            _reseal(folder, record, dict.fromkeys(tables))
            for name, content in tables.items():
                write_atomically(folder / name, content)
            _reseal(folder, {**record, **(noted or {})}, tables)
        finally:
            lock.release()

    def write_suite(self, suite: Suite) -> None:
        """Remember which suite this folder belongs to, and how many seeds it asks for."""
        record = {
            "name": suite.name,
            "seeds": suite.seeds,
        }
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / SUITE, json.dumps(record, indent=2) + "\n")

    def read_suite(self) -> dict[str, Any] | None:
        """What ``write_suite`` wrote, or None where no suite was run.

        Raises:
            SuiteError: If something else is there.
        """
        path = self.root / SUITE
        try:
            found = read_json(path)
        except (ValueError, RecursionError):
            raise SuiteError(f"{path}: not JSON; {_NO_SUITE}") from None
        if found is None:
            return None
        if not isinstance(found, dict):
            raise SuiteError(f"{path}: not an object; {_NO_SUITE}")
        for key, kind in (("name", str), ("seeds", int)):
            if type(found.get(key)) is not kind:
                raise SuiteError(f"{path}: {key} = {str(found.get(key))[:40]!r}; {_NO_SUITE}")
        return found

    def finished(self) -> Finished:
        """Folder and ``run.json`` of every finished run that was not set aside, sorted.

        Damaged ones are left out.
        """
        return [
            (folder, record)
            for folder, record, problem in self._records()
            if record is not None and not problem
        ]

    def damaged(self) -> list[tuple[Path, str]]:
        """Folder of every finished run that is left out as damaged, and what is wrong with it."""
        return [(folder, problem) for folder, _, problem in self._records() if problem]

    def acquire(self, spec: RunSpec) -> Lock | None:
        """The right to work on this run, or None where somebody else has it."""
        return Lock.acquire(self._lock_path(self.folder(spec)))

    def maker(self, spec: RunSpec) -> str | None:
        """Who works on this run now, in words; None if nobody does."""
        return holder(self._lock_path(self.folder(spec)))

    def _lock_path(self, folder: Path) -> Path:
        """Beside the runs: a lock must stay where it is when a run is set aside."""
        return self.root / LOCKS / folder.relative_to(self.root)

    def _check_lock(self) -> None:
        if self.lock is not None and self.lock.is_lost():
            raise LostLockError(
                f"{self.lock.path}: another process has taken this run over, or deleted its folder"
            )

    def _records(self) -> Iterator[tuple[Path, dict[str, Any] | None, str]]:
        for path in sorted(self.root.glob(f"*/*/seed*/{RUN}")):
            if path.parent.suffix == "":
                yield (path.parent, *_read_record(path.parent))


def is_header(names: Sequence[str]) -> bool:
    """Whether these are ``COLUMNS`` and, after them, names that an env may report."""
    fits = tuple(names[: len(COLUMNS)]) == COLUMNS and len(set(names)) == len(names)
    reported = names[len(COLUMNS) :]
    return fits and all(_REPORTED.fullmatch(n) and n not in OF_RUN for n in reported)


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


def _sweep(folder: Path) -> None:
    """Remove what a kill has left half written of a run: its names begin with a dot.

    Nobody but the holder of the run's lock writes there, so nobody else's are among them.
    """
    for path in (*folder.glob(".*"), *folder.parent.glob(f".{folder.name}.*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # a network file system keeps what is open so
                path.unlink()


def _read_record(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The ``run.json`` of a folder, None if there is none, and what is wrong with the run."""
    try:
        record = read_json(folder / RUN)
        if record is None:
            return None, ""
        if not isinstance(record, dict) or "config_hash" not in record:
            return None, f"{RUN} is not a run's record"
        return record, damage(record, folder, RUN, optional=UNPUBLISHED)
    except ValueError:  # of JSON or of UTF-8
        return None, f"{RUN} is not JSON"
    except RecursionError:
        return None, f"{RUN} is nested too deeply"


def _reseal(folder: Path, record: Mapping[str, Any], contents: Mapping[str, bytes | None]) -> None:
    if KEY in record:
        full = resealed(record, RUN, contents)
        write_atomically(folder / RUN, json.dumps(full, indent=2) + "\n")


def _rows_until(path: Path, step: int) -> list[str]:
    """Lines of an unfinished run's rows up to an env step."""
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]  # a kill cuts the last one short
    return [line for line in lines if int(line.partition(",")[0]) <= step]


def _misfit(folder: Path, spec: RunSpec) -> tuple[str, str] | None:
    """A label and a reason for setting a finished run aside; None where there is neither."""
    record, problem = _read_record(folder)
    if problem:
        return "damaged", problem
    if record is not None and record["config_hash"] != spec.config_hash:
        return record["config_hash"], "made with another configuration"
    return None


def _set_aside(folder: Path, spec: RunSpec) -> list[tuple[Path, str, Path]]:
    """Rename a finished run that is in this one's way, if there is one; its lock is held."""
    misfit = _misfit(folder, spec)
    if misfit is None:
        return []
    label, reason = misfit
    target = _free_name(folder, label)
    folder.rename(target)
    return [(folder, reason, target)]


def _free_name(folder: Path, label: str) -> Path:
    candidate, n = folder.with_name(f"{folder.name}.{label}"), 1
    while candidate.exists():
        n += 1
        candidate = folder.with_name(f"{folder.name}.{label}-{n}")
    return candidate
