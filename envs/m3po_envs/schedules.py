"""When a task changes: the whole change list of an episode, drawn at its reset.

A schedule never looks at actions or states, so equal seeds give every agent equal changes. In
JSON a schedule is its name, or a dict such as ``{"name": "hazard", "rate": 0.01}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import Task, TaskDistribution


class Change(NamedTuple):
    """A change of task inside an episode.

    Attributes:
        step: The first transition, counted from 0, under the new task; at least 1.
        task: The new task.
    """

    step: int
    task: Task


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules; by itself a task never changes inside an episode.

    A subclass overrides ``_steps`` if only the times are special, ``changes`` if the tasks are.
    """

    name: ClassVar[str]
    keeps_first_task: ClassVar[bool] = False
    """Whether every episode starts in the task of the env's first one."""

    def changes(
        self, rng: np.random.Generator, horizon: int, tasks: TaskDistribution, first: Task
    ) -> tuple[Change, ...]:
        """Draw an episode's changes.

        Args:
            rng: What is drawn from.
            horizon: Transitions in the episode; no change is listed at or after it.
            tasks: Where new tasks come from.
            first: The task of the episode's start.

        Returns:
            The changes in order of time; each brings a task that differs from the one before.
        """
        listed: list[Change] = []
        task = first
        for step in self._steps(rng, horizon):
            task = tasks.sample(rng, other_than=task)
            listed.append(Change(int(step), task))
        return tuple(listed)

    def _steps(self, rng: np.random.Generator, horizon: int) -> Iterable[int]:
        return ()


@dataclass(frozen=True)
class Static(Schedule):
    """One task for the env's life."""

    name: ClassVar[str] = "static"
    keeps_first_task: ClassVar[bool] = True


@dataclass(frozen=True)
class Episodic(Schedule):
    """A new task at each reset, none inside an episode."""

    name: ClassVar[str] = "episodic"


@dataclass(frozen=True)
class Single(Schedule):
    """One change per episode.

    Attributes:
        step: When; ``None`` draws it uniformly from the episode's middle half.
    """

    name: ClassVar[str] = "single"
    step: int | None = None

    def __post_init__(self) -> None:
        if self.step is not None:
            _check_count(self, "step", self.step)

    def _steps(self, rng: np.random.Generator, horizon: int) -> Iterable[int]:
        if self.step is not None:
            return (self.step,) if self.step < horizon else ()
        low, high = max(1, horizon // 4), 3 * horizon // 4
        return (int(rng.integers(low, high + 1)),) if low <= high else ()


@dataclass(frozen=True)
class Periodic(Schedule):
    """A change after every ``period`` steps.

    Attributes:
        period: Steps between changes.
    """

    name: ClassVar[str] = "periodic"
    period: int = 50

    def __post_init__(self) -> None:
        _check_count(self, "period", self.period)

    def _steps(self, rng: np.random.Generator, horizon: int) -> Iterable[int]:
        return range(self.period, horizon, self.period)


@dataclass(frozen=True)
class Hazard(Schedule):
    """A change before each step but the first with a fixed probability.

    Attributes:
        rate: That probability.
    """

    name: ClassVar[str] = "hazard"
    rate: float = 0.01

    def __post_init__(self) -> None:
        if not _is_number(self.rate) or not 0 <= self.rate <= 1:
            raise ValueError(
                f"schedule 'hazard': rate={self.rate!r}, expected a probability in [0, 1] "
                f"such as {Hazard.rate}"
            )

    def _steps(self, rng: np.random.Generator, horizon: int) -> Iterable[int]:
        return [int(i) + 1 for i in np.flatnonzero(rng.random(max(0, horizon - 1)) < self.rate)]


@dataclass(frozen=True)
class Recurrent(Schedule):
    """A, then B, then A again, each for a third of the episode."""

    name: ClassVar[str] = "recurrent"

    def changes(
        self, rng: np.random.Generator, horizon: int, tasks: TaskDistribution, first: Task
    ) -> tuple[Change, ...]:
        """See ``Schedule.changes``; the second change brings the very task of the start back."""
        away, back = horizon // 3, 2 * horizon // 3
        if not 1 <= away < back:
            return ()
        return Change(away, tasks.sample(rng, other_than=first)), Change(back, first)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind for kind in (Static, Episodic, Single, Periodic, Hazard, Recurrent)
}


def parse_schedule(value: str | Mapping[str, Any]) -> Schedule:
    """Make the schedule that a name or a JSON dict describes.

    Args:
        value: A name of ``SCHEDULES``, or a dict with ``"name"`` and that schedule's arguments.

    Raises:
        ValueError: If the name, an argument or its value is not known; it names the nearest.
    """
    arguments = {"name": value} if isinstance(value, str) else value
    if not isinstance(arguments, Mapping) or "name" not in arguments:
        raise ValueError(
            f'schedule {value!r}: expected a name or a dict such as {{"name": "hazard"}}; '
            f"known: {', '.join(SCHEDULES)}"
        )
    if arguments["name"] not in SCHEDULES:
        raise unknown_name("schedule", arguments["name"], SCHEDULES)
    kind = SCHEDULES[arguments["name"]]
    known = [field.name for field in dataclasses.fields(kind)]
    given = {key: argument for key, argument in arguments.items() if key != "name"}
    for key in given:
        if key not in known:
            raise unknown_name(f"argument of schedule {kind.name!r}", key, known or ["(none)"])
    return kind(**given)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(schedule: Schedule, argument: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"schedule {schedule.name!r}: {argument}={value!r}, expected a whole number of steps, "
            "1 or more"
        )
