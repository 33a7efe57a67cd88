"""Checksums of a run's files, kept in its ``run.json``: what was cut short or edited is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "sha256"
"""Of ``run.json``: checksums by file name; its own is over all its other keys."""


def sealed(record: Mapping[str, Any], folder: Path, name: str, files: list[str]) -> dict[str, Any]:
    """A run's record with the checksums of its files.

    Args:
        record: What is to be written.
        folder: The run's folder.
        name: Under which name the record will be written there.
        files: Names of the run's other files.
    """
    sums = {file: _of_file(folder / file) for file in sorted(files)}
    return {**record, KEY: {name: _of_record(record), **sums}}


def resealed(
    record: Mapping[str, Any], name: str, contents: Mapping[str, bytes | None]
) -> dict[str, Any]:
    """A sealed record, of which more may have changed, with other checksums for some files.

    Args:
        record: As ``sealed`` has made it, or with other values since.
        name: Under which name it will be written.
        contents: By file name what it holds from now on; None for one that is to have no checksum.
    """
    kept = {file: sum_ for file, sum_ in record[KEY].items() if file not in contents}
    new = {file: _of_bytes(data) for file, data in contents.items() if data is not None}
    own = {name: _of_record(_without_sums(record))}
    return {**record, KEY: {**kept, **new, **own}}


def damage(
    record: Mapping[str, Any],
    folder: Path,
    name: str,
    optional: tuple[str, ...] = (),
    unread: tuple[str, ...] = (),
) -> str:
    """What does not fit a record's checksums, in words; empty if all does.

    Records of before there were checksums fit.

    Args:
        record: As read.
        folder: The run's folder.
        name: The record's name there.
        optional: Files that may be missing.
        unread: Files that are not to be opened.
    """
    if KEY not in record:
        return ""
    sums = record[KEY]
    if not isinstance(sums, dict) or any(Path(str(file)).name != file for file in sums):
        return f"{name}: {KEY} is no table of checksums by file name"
    if sums.get(name) != _of_record(_without_sums(record)):
        return f"{name} is not as it was written"
    for file, expected in sums.items():
        path = folder / file
        if file == name or file in unread or (file in optional and not path.exists()):
            continue
        if path.is_symlink() or not path.is_file():
            return f"{file} is missing"
        if _of_file(path) != expected:
            return f"{file} is not as it was written"
    return ""


def _without_sums(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != KEY}


def _of_record(record: Mapping[str, Any]) -> str:
    return _of_bytes(json.dumps(record, sort_keys=True).encode())


def _of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
