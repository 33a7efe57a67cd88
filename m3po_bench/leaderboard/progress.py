"""What a user sees while runs are made: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.scheduler import State

_LINE_EVERY = 30.0


class LiveDisplay:
    """A bar for all runs and one for each running run, with the time that is left."""

    def __init__(self, runs: list[RunSpec], workers: int, console: Console) -> None:
        self._steps = {run.run_id: run.budget.steps for run in runs}
        self._workers = workers
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._total = self._progress.add_task("[bold]all runs", total=len(runs), note="")

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, state: State) -> None:
        """See ``Display.update``."""
        for run_id in set(self._bars) - set(state.running):
            self._progress.remove_task(self._bars.pop(run_id))
        for run_id, step in state.running.items():
            if run_id not in self._bars:
                total = self._steps[run_id]
                self._bars[run_id] = self._progress.add_task(run_id, total=total, note="")
            note = f"{step:,} / {self._steps[run_id]:,} steps{_return(state, run_id)}"
            self._progress.update(self._bars[run_id], completed=step, note=note)
        done = state.skipped + len(state.finished)
        note = _summary(state, self._workers)
        self._progress.update(self._total, completed=done, note=note)

    def message(self, text: str) -> None:
        """See ``Display.message``."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


class LineDisplay:
    """A line whenever a run starts or ends, and one every half minute."""

    def __init__(self, runs: list[RunSpec], workers: int, console: Console) -> None:
        self._n_runs = len(runs)
        self._workers = workers
        self._console = console
        self._running: set[str] = set()
        self._finished = 0
        self._last = time.monotonic()

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, state: State) -> None:
        """See ``Display.update``."""
        for run_id in sorted(set(state.running) - self._running):
            self.message(f"started {run_id}")
        self._running |= set(state.running)
        ended = [f"finished {run.run_id}" for run in state.finished[self._finished :]]
        self._finished = len(state.finished)
        overdue = bool(state.running) and time.monotonic() > self._last + _LINE_EVERY
        for text in ended or ([_steps(state)] if overdue else []):
            self._last = time.monotonic()
            self.message(f"{text} ({_summary(state, self._workers)}; of {self._n_runs})")

    def message(self, text: str) -> None:
        """See ``Display.message``."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class SilentDisplay:
    """Shows nothing; failures are still reported by the exit status and ``error.txt``."""

    def __enter__(self) -> SilentDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, state: State) -> None:
        """See ``Display.update``."""

    def message(self, text: str) -> None:
        """See ``Display.message``."""


def make_display(runs: list[RunSpec], workers: int, quiet: bool) -> Any:
    """The display for this terminal, as a context manager; everything goes to stderr."""
    console = Console(stderr=True)
    if quiet:
        return SilentDisplay()
    return (LiveDisplay if console.is_terminal else LineDisplay)(runs, workers, console)


def _steps(state: State) -> str:
    return ", ".join(
        f"{run_id} at {step:,}{_return(state, run_id)}" for run_id, step in state.running.items()
    )


def _return(state: State, run_id: str) -> str:
    return f", return {state.returns[run_id]:.1f}" if run_id in state.returns else ""


def _summary(state: State, workers: int) -> str:
    done = state.skipped + len(state.finished)
    left = state.seconds_left(workers)
    eta = "" if left is None or not (state.running or state.waiting) else f", {_clock(left)} left"
    failed = f", {len(state.failures)} failed" if state.failures else ""
    return f"{done} finished, {len(state.running)} running{failed}{eta}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
