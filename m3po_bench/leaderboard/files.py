"""Files that are whole or not there, and what is read back from them."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3po_bench.leaderboard.grid import SuiteError


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
    with replacing(path, path.with_name(f".{path.name}.{os.getpid()}")) as temporary:
        temporary.write_bytes(data)


def compressed(data: bytes) -> bytes:
    """The data in gzip's format; equal data give equal bytes."""
    return gzip.compress(data, mtime=0)


def decompressed(path: Path) -> str:
    """The text of a file that ``compressed`` made.

    Raises:
        SuiteError: If it holds something else.
    """
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise SuiteError(f"{path}: {error}; run the suite again, or remove the file") from None


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[Path]:
    """``temporary`` is written inside and then becomes ``path``; nothing of it stays otherwise."""
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
