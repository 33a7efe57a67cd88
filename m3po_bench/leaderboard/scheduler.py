"""Which run starts when: longest first, a fixed number at a time, each on its own."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from m3po_bench.leaderboard.executors import Executor, Handle
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.store import ERROR, PROGRESS, Store

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result.

    Attributes:
        spec: Which run.
        reason: The last line of its error.
        path: The file with all of it.
    """

    spec: RunSpec
    reason: str
    path: Path


@dataclass
class State:
    """How far a batch of runs is.

    Attributes:
        waiting: Runs not started, the next one first.
        running: Runs in progress and the step each has reached.
        finished: Runs that completed now.
        failures: Runs that failed now.
        skipped: Number of runs that were complete before.
    """

    waiting: list[RunSpec]
    running: dict[str, int] = field(default_factory=dict)
    finished: list[RunSpec] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    _specs: dict[str, RunSpec] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _steps: Counter[str] = field(default_factory=Counter)

    def began(self, spec: RunSpec) -> None:
        """A run was started."""
        self._specs[spec.run_id] = spec
        self._began[spec.run_id] = time.monotonic()
        self.running[spec.run_id] = 0

    def ended(self, spec: RunSpec) -> None:
        """A run ended; its pace counts for the estimate."""
        self._seconds[spec.agent] += time.monotonic() - self._began[spec.run_id]
        self._steps[spec.agent] += spec.budget.steps
        del self.running[spec.run_id]

    def seconds_left(self, workers: int) -> float | None:
        """Estimated seconds to the end, from each agent's pace so far; None at the start."""
        seconds, steps = self._seconds.copy(), self._steps.copy()
        left: Counter[str] = Counter()
        for run_id, step in self.running.items():
            spec = self._specs[run_id]
            seconds[spec.agent] += time.monotonic() - self._began[run_id]
            steps[spec.agent] += step
            left[spec.agent] += spec.budget.steps - step
        for spec in self.waiting:
            left[spec.agent] += spec.budget.steps
        if not sum(steps.values()):
            return None
        common = sum(seconds.values()) / sum(steps.values())
        pace = {a: seconds[a] / steps[a] if steps[a] else common for a in left}
        busy = max(1, min(workers, len(self.running) + len(self.waiting)))
        return sum(left[agent] * pace[agent] for agent in left) / busy


class Display(Protocol):
    """Shows a batch while it is made."""

    def update(self, state: State) -> None:
        """The state may have changed; called several times a second."""
        ...

    def message(self, text: str) -> None:
        """Something happened that is worth a line."""
        ...


def longest_first(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Runs by decreasing steps; among equals in the suite's order of agents (slow ones first)."""
    order = {agent: i for i, agent in enumerate(dict.fromkeys(run.agent for run in runs))}
    return sorted(runs, key=lambda run: (-run.budget.steps, order[run.agent], run.seed))


def run_all(
    runs: Sequence[RunSpec], store: Store, executor: Executor, workers: int, display: Display
) -> State:
    """Make every run that is not complete yet, at most ``workers`` at a time.

    A failed run stops no other. When this process is interrupted or terminated, running runs
    are ended and ``KeyboardInterrupt`` is raised; completed ones stay.

    Returns:
        The final state.
    """
    for run in runs:
        for moved in store.set_aside_others(run):
            display.message(f"{run.run_id}: made with another configuration; now in {moved}")
    todo = [run for run in runs if not store.is_finished(run)]
    state = State(longest_first(todo), skipped=len(runs) - len(todo))
    handles: list[Handle] = []
    with _termination_interrupts():
        try:
            while state.waiting or handles:
                while state.waiting and len(handles) < workers:
                    spec = state.waiting.pop(0)
                    handles.append(executor.start(spec))
                    state.began(spec)
                handles = [
                    handle for handle in handles if not _ended(handle, store, state, display)
                ]
                display.update(state)
                time.sleep(_POLL_SECONDS)
        finally:
            for handle in handles:
                handle.stop()
    return state


def _ended(handle: Handle, store: Store, state: State, display: Display) -> bool:
    """Look after one run: true if it has ended, which is then in the state."""
    spec, complete = handle.spec, handle.poll()
    if complete is None:
        state.running[spec.run_id] = _progress(store.folder(spec) / PROGRESS)
        return False
    state.ended(spec)
    if complete:
        state.finished.append(spec)
        return True
    path = store.folder(spec) / ERROR
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["?"]
    # A traceback says it in its last line, the account of a killed process in its first.
    reason = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    state.failures.append(Failure(spec, reason, path))
    display.message(f"{spec.run_id} failed: {reason} ({path})")
    return True


def _progress(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or just being written
        return 0


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside, so that one path ends the children."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals cannot be handled here
        return
    before: Any = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
