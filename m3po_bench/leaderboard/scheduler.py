"""Which run starts when: longest first, a fixed number at a time, each on its own."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from m3po_bench.leaderboard.executors import Executor, Handle
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.store import ERROR, PROGRESS, Store
from m3po_bench.leaderboard.supervision import POLL_SECONDS

_NEWS_SECONDS = 0.2
"""How often runs are asked how far they are: more seldom than whether they have ended."""

_LOOK_SECONDS = 1.0
"""How often it is looked whether runs that others make have ended."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result.

    Attributes:
        spec: Which run.
        reason: What was wrong, in one line.
        path: The file with all of it, unless the disk was full.
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
        returns: Their mean test returns at the last checkpoint, where there was one.
        finished: Runs that completed now.
        failures: Runs that failed now.
        skipped: Number of runs that were complete before, or that somebody else completed.
        expected: Estimates the core-seconds of a run of an agent that none has been made of yet;
            None where it cannot.
    """

    waiting: list[RunSpec]
    running: dict[str, int] = field(default_factory=dict)
    returns: dict[str, float] = field(default_factory=dict)
    finished: list[RunSpec] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    expected: Callable[[RunSpec], float | None] = lambda spec: None
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
        self.returns.pop(spec.run_id, None)  # it may be tried again

    def seconds_left(self, workers: int) -> float | None:
        """Estimated seconds to the end; None at the start.

        From each agent's pace so far; of an agent without one, from what is expected of its runs
        or, where that is not known, from the pace of all.
        """
        seconds, steps = self._seconds.copy(), self._steps.copy()
        left = [(spec, spec.budget.steps) for spec in self.waiting]
        for run_id, step in self.running.items():
            spec = self._specs[run_id]
            seconds[spec.agent] += time.monotonic() - self._began[run_id]
            steps[spec.agent] += step
            left.append((spec, spec.budget.steps - step))
        if not sum(steps.values()):
            return None
        common = sum(seconds.values()) / sum(steps.values())

        def pace(spec: RunSpec) -> float:
            if steps[spec.agent]:
                return seconds[spec.agent] / steps[spec.agent]
            whole = self.expected(spec)
            return common if whole is None else whole / spec.budget.steps

        return sum(rest * pace(spec) for spec, rest in left) / max(1, min(workers, len(left)))


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
    runs: Sequence[RunSpec],
    store: Store,
    executor: Executor,
    display: Display,
    retries: int = 0,
    published: Store | None = None,
    expected: Callable[[RunSpec], float | None] = lambda spec: None,
) -> State:
    """Make every run that is not complete yet.

    A failed run stops no other. Runs that another process makes are waited for, not made twice.
    When this process is interrupted or terminated, running runs are ended and
    ``KeyboardInterrupt`` is raised; completed ones stay.

    Args:
        runs: What to make.
        store: Where results go.
        executor: Who makes them.
        display: Who is told.
        retries: How often a run that failed is tried again, from its start.
        published: Runs that are finished there, as they are wanted, are taken over.
        expected: See ``State``; ``Costs.core_seconds``.

    Returns:
        The final state.
    """
    for entry in {store.folder(run).parent: run for run in runs}.values():  # one of all its seeds
        for folder, reason, moved in store.set_aside_misfits(entry):
            display.message(f"{folder}: {reason}; now in {moved}")
    for run in runs:  # misfits are out of their way by now
        if published is not None and store.adopt(run, published):
            display.message(f"{run.run_id}: finished in {published.root}")
    todo = [run for run in runs if not store.is_finished(run)]
    state = State(longest_first(todo), skipped=len(runs) - len(todo), expected=expected)
    batch = _Batch(state, store, executor, display, {run.run_id: retries for run in todo})
    with _termination_interrupts():
        try:
            while state.waiting or batch.handles:
                batch.start()
                running = len(batch.handles)
                batch.look_after()
                if len(batch.handles) < running:
                    continue  # a slot is free at once
                if batch.hear_news():
                    display.update(state)
                time.sleep(POLL_SECONDS)
            display.update(state)
        finally:
            for handle in batch.handles:
                handle.stop()
    return state


@dataclass
class _Batch:
    """Runs being made."""

    state: State
    store: Store
    executor: Executor
    display: Display
    retries: dict[str, int]
    handles: list[Handle] = field(default_factory=list)
    _seen_elsewhere: set[str] = field(default_factory=set)
    _next_look: float = 0.0
    _next_news: float = 0.0

    def start(self) -> None:
        """Fill free slots with waiting runs that nobody else makes."""
        free = self.executor.slots - len(self.handles)
        if free <= 0 or not self.state.waiting or time.monotonic() < self._next_look:
            return
        chosen: list[RunSpec] = []
        elsewhere: list[RunSpec] = []
        while self.state.waiting and len(chosen) < free:
            spec = self.state.waiting.pop(0)
            if self.store.is_finished(spec):
                self.state.skipped += 1
            elif maker := self.store.maker(spec):
                self._tell_elsewhere(spec, maker)
                elsewhere.append(spec)
            else:
                chosen.append(spec)
        self.state.waiting = elsewhere + self.state.waiting
        if len(chosen) < free:
            self._next_look = time.monotonic() + _LOOK_SECONDS
        for spec in chosen:
            self.state.began(spec)
        self.handles += self.executor.start(chosen) if chosen else []

    def look_after(self) -> None:
        """Take note of what has ended."""
        going = []
        for handle in self.handles:
            spec, outcome = handle.spec, handle.poll()
            if outcome is None:
                going.append(handle)
            elif outcome.kind == "busy":
                del self.state.running[spec.run_id]
                self.state.waiting.append(spec)
            else:
                self.state.ended(spec)
                if outcome.kind == "complete":
                    self.state.finished.append(spec)
                else:
                    self._failed(spec, outcome.reason)
        self.handles = going

    def hear_news(self) -> bool:
        """Note how far runs are, if it is time; False if it is not."""
        if time.monotonic() < self._next_news:
            return False
        self._next_news = time.monotonic() + _NEWS_SECONDS
        for run_id in self.state.running:
            step, value = _progress(self.store.root / run_id / PROGRESS)
            self.state.running[run_id] = step
            if math.isfinite(value):
                self.state.returns[run_id] = value
        return True

    def _failed(self, spec: RunSpec, reason: str) -> None:
        path = self.store.folder(spec) / ERROR
        text = f"{spec.run_id} failed: {reason} ({path})"
        left = self.retries[spec.run_id]
        if left:
            self.retries[spec.run_id] = left - 1
            self.state.waiting.append(spec)
            text += f"; trying again, {left - 1} retries left"
        else:
            self.state.failures.append(Failure(spec, reason, path))
        self.display.message(text)

    def _tell_elsewhere(self, spec: RunSpec, maker: str) -> None:
        if spec.run_id not in self._seen_elsewhere:
            self._seen_elsewhere.add(spec.run_id)
            self.display.message(f"{spec.run_id}: {maker} makes it; waiting for that")


def _progress(path: Path) -> tuple[int, float]:
    """Step and last mean test return that a run tells of."""
    try:
        step, value = path.read_text(encoding="utf-8").split()
        return int(step), float(value)
    except (OSError, ValueError):  # not there yet
        return 0, math.nan


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
