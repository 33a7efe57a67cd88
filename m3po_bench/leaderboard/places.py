"""Where output is to go: what is in its way is said before any work is spent on it."""

from __future__ import annotations

from pathlib import Path

from m3po_bench.leaderboard.grid import SuiteError


def check_folder(path: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be made.

    Args:
        path: The folder; need not exist.
        option: What it was given by.

    Raises:
        SuiteError: If it, or a folder that it would be in, is a file.
    """
    _check(path, f"{option} {path}")


def check_file(path: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be made.

    Args:
        path: The file; need not exist.
        option: What it was given by.

    Raises:
        SuiteError: If it is a folder, or a folder that it would be in is a file.
    """
    if path.is_dir():
        raise SuiteError(f"{option} {path}: is a folder; expected a file")
    _check(path.parent, f"{option} {path}")


def _check(folder: Path, given: str) -> None:
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists() or place.is_symlink():  # a link to nowhere is in the way too
            raise SuiteError(f"{given}: {place} is a file; expected a folder")
