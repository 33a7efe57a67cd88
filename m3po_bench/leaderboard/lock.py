"""Locks in a folder that several machines may share: who may work on a run.

A lock ``name`` is held in terms, each a file ``name.1``, ``name.2``, ... that is never removed. Who
creates a term's file holds the lock; hard links make that atomic on network file systems too. The
file says who its holder is, its time of change is the holder's heartbeat, and emptying it gives
the lock back. The next term begins where the last one was given back or its holder is dead, so
two that see the same dead holder race for one new file, and only one of them can make it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEARTBEAT = 10.0
"""Seconds between two signs of life of a holder."""

STALE = 60.0
"""A holder on another machine is dead after so many seconds without one."""


class LostLockError(RuntimeError):
    """Somebody else has taken the lock over, believing its holder dead."""


@dataclass
class Lock:
    """A lock that is, or was, held.

    Attributes:
        path: What the files of its terms are named after.
        term: Which time it is held.
    """

    path: Path
    term: int
    _last_beat: float = field(default_factory=time.monotonic)
    _held: str = field(init=False)

    def __post_init__(self) -> None:
        self._held = self._read()

    @classmethod
    def acquire(cls, path: Path) -> Lock | None:
        """Hold the lock from now on, or None where another does; never waits."""
        path.parent.mkdir(parents=True, exist_ok=True)
        last = _last_term(path)
        if last and _holder(_file(path, last)) is not None:
            return None
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            draft.write_text(json.dumps(_identity()), encoding="utf-8")
            os.link(draft, _file(path, last + 1))
        except FileExistsError:
            # NFS may carry a request out, lose the answer and send it again: then it is ours.
            if not draft.samefile(_file(path, last + 1)):
                return None
        finally:
            draft.unlink(missing_ok=True)
        return cls(path, last + 1)

    def beat(self) -> bool:
        """Give a sign of life where one is due; false if the lock is lost."""
        if self.is_lost():
            return False
        if time.monotonic() > self._last_beat + HEARTBEAT:
            self._last_beat = time.monotonic()
            with contextlib.suppress(OSError):  # one may be missed
                os.utime(_file(self.path, self.term))
        return True

    def is_lost(self) -> bool:
        """Whether somebody else has taken it over, or its folder is not the same any more."""
        try:
            return _file(self.path, self.term + 1).exists() or self._read() != self._held
        except OSError:  # a network file system may be away for a while
            return False

    def release(self) -> None:
        """Give it back; does nothing to whoever has taken it over."""
        if self.is_lost():
            return
        with contextlib.suppress(OSError):  # then it is free when this process ends
            os.truncate(_file(self.path, self.term), 0)

    def _read(self) -> str:
        """What its term's file says; nothing if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return _file(self.path, self.term).read_text(encoding="utf-8")
        return ""


def holder(path: Path) -> str | None:
    """Who holds the lock now, in words; None if it is free."""
    last = _last_term(path)
    return _holder(_file(path, last)) if last else None


def _file(path: Path, term: int) -> Path:
    return path.with_name(f"{path.name}.{term}")


def _last_term(path: Path) -> int:
    term = 0
    while _file(path, term + 1).exists():
        term += 1
    return term


def _holder(file: Path) -> str | None:
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text:
        return None
    owner = _parsed(text)
    if owner.get("machine") == _machine() is not None:
        alive = _birth(owner["pid"]) == owner["birth"]
    else:
        alive = file.stat().st_mtime > _now(file.parent) - STALE
    return f"process {owner.get('pid')} on {owner.get('host')}" if alive else None


def _parsed(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        owner = json.loads(text)
        if isinstance(owner, dict):
            return owner
    return {}


def _now(folder: Path) -> float:
    """The file system's time, which need not be this machine's."""
    clock = folder / ".clock"
    clock.touch()
    return clock.stat().st_mtime


def _identity() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(), "machine": _machine(), "pid": pid, "birth": _birth(pid),
    }  # fmt: skip


def _machine() -> str | None:
    """Where a process id means the same process; None where that cannot be told.

    Containers may share a name, a machine keeps its own over a restart: so the kernel's boot and
    the space of process ids count too.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _birth(pid: int) -> str | None:
    """When a living process began, which tells it from a later one of the same id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]
