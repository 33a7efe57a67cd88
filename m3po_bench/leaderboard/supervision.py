"""A run's process and who looks after it: the lock, the options, and what becomes of it.

Every executor makes runs this way; they differ in the machine where it happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.lock import HEARTBEAT, STALE, Lock
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.store import ERROR, LOG, PROGRESS, Store

DISK_FULL = os.EX_IOERR
"""Exit status of a run's process that could not write."""

POLL_SECONDS = 0.02
_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
_PATIENCE = 3.0


@dataclass(frozen=True)
class Outcome:
    """What has become of a run.

    Attributes:
        kind: ``busy`` where somebody else makes it.
        reason: Why it failed, in one line.
    """

    kind: Literal["complete", "failed", "busy"]
    reason: str = ""


COMPLETE, BUSY = Outcome("complete"), Outcome("busy")


class SupervisedProcess:
    """A run's process, from the lock that it needs to the error that it may leave.

    Starting never raises for what the run or the disk does: ``poll`` tells. ``poll`` must be
    called several times a minute, since it also gives the lock's signs of life.
    """

    def __init__(self, spec: RunSpec, store: Store, options: RunOptions) -> None:
        self.spec = spec
        self._store = store
        self._options = options
        self._folder = store.folder(spec)
        self._outcome: Outcome | None = None
        self._lock: Lock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        try:
            self._lock = store.acquire(spec)
            if self._lock is None:
                self._outcome = BUSY
            elif store.is_finished(spec):  # by whoever had the lock before
                self._end(COMPLETE)
            else:
                self._process = self._spawn(self._lock)
        except OSError as error:
            self._end(Outcome("failed", f"could not be started: {error}"))

    def poll(self) -> Outcome | None:
        """None while it runs, then what has become of it."""
        if self._outcome is not None or self._process is None or self._lock is None:
            return self._outcome
        status = self._process.poll()
        if not self._lock.beat():
            self._kill()
            self._end(BUSY)
        elif status is not None:
            self._end(self._judged(_how_it_ended(status)))
        elif excess := self._excess(self._process.pid):
            self._kill()
            self._end(self._judged(excess))
        return self._outcome

    def stop(self) -> None:
        """End it, finished or not."""
        self._kill()
        if self._outcome is None:
            self._end(Outcome("failed", "it was stopped"), tell=False)

    def _spawn(self, lock: Lock) -> subprocess.Popen[bytes]:
        self._store.make_room(self.spec)  # before its log is opened there
        for stale in (ERROR, PROGRESS):
            (self._folder / stale).unlink(missing_ok=True)
        one_thread = {f"{library}_NUM_THREADS": "1" for library in _THREADS}
        with (self._folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "m3po_bench.leaderboard.runner"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **one_thread, "MPLBACKEND": "agg"},
            )
        order = {
            "spec": self.spec.to_dict(),
            "root": str(self._store.root),
            "lock": {"path": str(lock.path), "term": lock.term},
            "options": asdict(self._options),
        }
        assert process.stdin is not None
        # The pipe stays open: the child ends when it is closed, which a killed parent does too.
        with contextlib.suppress(BrokenPipeError):  # it died at once; poll() says so
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        return process

    def _excess(self, pid: int) -> str:
        """Which limit the process has exceeded, in words; empty if none."""
        minutes, memory_gb = self._options.minutes, self._options.memory_gb
        if minutes and time.monotonic() > self._began + 60 * minutes:
            return f"ended after {minutes:g} minutes, the limit of --time-limit-min"
        if memory_gb and (peak := _peak_memory_gb(pid)) > memory_gb:
            return f"ended at {peak:.2f} GB, over --memory-limit-gb {memory_gb:g}"
        return ""

    def _kill(self) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _judged(self, how_it_ended: str) -> Outcome:
        if self._store.is_finished(self.spec):
            return COMPLETE
        try:
            error = (self._folder / ERROR).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            error = ""
        # A traceback says in its last line what was wrong.
        return Outcome("failed", error.splitlines()[-1] if error else how_it_ended)

    def _end(self, outcome: Outcome, tell: bool = True) -> None:
        """The process, if there was one, has ended: leave the run to others."""
        self._outcome = outcome
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(OSError):  # a full disk must not stop the other runs
            if tell and outcome.kind == "failed" and not (self._folder / ERROR).exists():
                text = f"{outcome.reason}\n{_tail(self._folder / LOG)}"
                write_atomically(self._folder / ERROR, text)
        if self._lock is not None:
            self._lock.release()


def make_run(spec: RunSpec, root: Path, options: RunOptions) -> Outcome:
    """Make a run from beginning to end, on whatever machine this is called.

    Where the lock of a machine that has died is in the way, this waits until it counts as dead.
    """
    end = time.monotonic() + STALE + 2 * HEARTBEAT
    while True:
        process = SupervisedProcess(spec, Store(root), options)
        try:
            while (outcome := process.poll()) is None:
                time.sleep(POLL_SECONDS)
        finally:
            process.stop()
        if outcome != BUSY or time.monotonic() > end:
            return outcome
        time.sleep(1.0)


def _how_it_ended(status: int) -> str:
    if status < 0:
        named = {each.value: each.name for each in signal.Signals}  # but for most real-time ones
        return f"its process was ended by {named.get(-status, f'signal {-status}')}"
    if status == DISK_FULL:
        return "the disk is full: neither its results nor its error could be written"
    return f"its process ended with status {status}, without a result"


def _tail(log: Path, lines: int = 20) -> str:
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _peak_memory_gb(pid: int) -> float:
    """Largest resident size so far, in GiB; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0
