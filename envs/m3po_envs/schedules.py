"""When a task changes: the whole change list of an episode, drawn at its reset.

A schedule never looks at actions or states, so equal seeds give every agent equal changes. In
JSON a schedule is its name, or a dict such as ``{"name": "hazard", "rate": 0.01}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import Array, Task, TaskDistribution, UniformTasks


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
    goes_on: ClassVar[bool] = False
    """Whether tasks change for as long as an episode lasts."""

    def check(self, tasks: TaskDistribution) -> None:
        """Refuse tasks that this schedule cannot change.

        Raises:
            ValueError: If it cannot; the message says why.
        """

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
    goes_on: ClassVar[bool] = True
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
    goes_on: ClassVar[bool] = True
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


@dataclass(frozen=True)
class Drift(Schedule):
    """A task that moves through its range little by little; every move is a change.

    Magnitudes move and signs stay, so that no value leaves the family's ranges.

    Attributes:
        kind: ``"linear"``, to another task at the episode's end; ``"sinusoid"``, to another task
            and back; ``"random_walk"``, by Gaussian steps, reflected at the ends of the range.
        every: Steps between moves.
        period: Steps of the sinusoid's whole swing.
        scale: Deviation of a step of the random walk, as a share of the range.
    """

    name: ClassVar[str] = "drift"
    kind: str = "random_walk"
    every: int = 5
    period: int = 100
    scale: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in DRIFTS:
            raise unknown_name("kind of schedule 'drift'", self.kind, DRIFTS)
        _check_count(self, "every", self.every)
        _check_count(self, "period", self.period)
        if not _is_number(self.scale) or not 0 < self.scale <= 1:
            raise ValueError(
                f"schedule 'drift': scale={self.scale!r}, expected a share in (0, 1] such as "
                f"{Drift.scale}"
            )

    def check(self, tasks: TaskDistribution) -> None:
        """See ``Schedule.check``."""
        if not isinstance(tasks, UniformTasks):
            raise ValueError(
                f"schedule 'drift' moves through a range, and the tasks {tasks.names} are a list; "
                "nearest: schedule='hazard'"
            )

    def changes(
        self, rng: np.random.Generator, horizon: int, tasks: TaskDistribution, first: Task
    ) -> tuple[Change, ...]:
        """See ``Schedule.changes``; a move that leaves the task as it is is not listed."""
        self.check(tasks)
        assert isinstance(tasks, UniformTasks)
        steps = np.arange(self.every, horizon, self.every, dtype=np.float64)
        start, listed, last = tasks.place(first), list[Change](), first
        goal = tasks.place(tasks.sample(rng, other_than=first))
        for step, place in zip(steps, self._path(rng, start, goal, steps, horizon), strict=True):
            task = tasks.at(place, like=first)
            if task.params != last.params:
                listed.append(Change(int(step), task))
            last = task
        return tuple(listed)

    def _path(
        self, rng: np.random.Generator, start: Array, goal: Array, steps: Array, horizon: int
    ) -> Array:
        """Places after each move, shape (len(steps), n_params)."""
        if self.kind == "random_walk":
            noise = self.scale * rng.standard_normal((len(steps), len(start)))
            # Reflection at 0 and 1 is the triangle wave of the free walk.
            walk: Array = 1.0 - np.abs(1.0 - np.mod(start + np.cumsum(noise, axis=0), 2.0))
            return walk
        if self.kind == "linear":
            share = steps / max(1, horizon - 1)
        else:
            share = (1.0 - np.cos(2.0 * np.pi * steps / self.period)) / 2.0
        path: Array = start + share[:, None] * (goal - start)
        return path


DRIFTS = ("linear", "sinusoid", "random_walk")


@dataclass(frozen=True)
class Compound(Schedule):
    """Several schedules at once, each for parameters of its own; the others stay.

    In JSON: ``{"name": "compound", "parts": [{"params": ["gain"], "schedule": "hazard"},
    {"params": ["mass", "length"], "schedule": {"name": "drift"}}]}``.

    Attributes:
        parts: Each with the names of ``params`` and their ``schedule``; without any, every
            parameter has a hazard of its own.
        defaults: Those of the parts' schedules, see ``parse_schedule``; not in JSON.
    """

    name: ClassVar[str] = "compound"
    goes_on: ClassVar[bool] = True
    parts: tuple[Mapping[str, Any], ...] = ()
    defaults: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not isinstance(self.parts, Sequence):
            raise ValueError(f"schedule 'compound': parts={self.parts!r}, expected a list")
        seen: set[str] = set()
        for part in self.parts:
            if not isinstance(part, Mapping) or set(part) != {"params", "schedule"}:
                raise ValueError(
                    f"schedule 'compound': part {part!r}, expected "
                    '{"params": [names], "schedule": name or dict}'
                )
            twice = seen.intersection(part["params"])
            if twice:
                raise ValueError(f"schedule 'compound': {sorted(twice)} are in two parts")
            seen.update(part["params"])
            self._schedule_of(part)

    def _schedule_of(self, part: Mapping[str, Any]) -> Schedule:
        return parse_schedule(part["schedule"], self.defaults)

    def _of(self, tasks: TaskDistribution) -> list[tuple[list[int], Schedule]]:
        each: list[Mapping[str, Any]] = [
            {"params": [name], "schedule": "hazard"} for name in tasks.names
        ]
        return [
            ([tasks.names.index(name) for name in part["params"]], self._schedule_of(part))
            for part in self.parts or each
        ]

    def check(self, tasks: TaskDistribution) -> None:
        """See ``Schedule.check``."""
        if not isinstance(tasks, UniformTasks):
            raise ValueError(
                f"schedule 'compound' changes parameters apart, and the tasks {tasks.names} are "
                "a list; nearest: schedule='hazard'"
            )
        for name in (name for part in self.parts for name in part["params"]):
            if name not in tasks.names:
                raise unknown_name("parameter of schedule 'compound'", name, tasks.names)

    def changes(
        self, rng: np.random.Generator, horizon: int, tasks: TaskDistribution, first: Task
    ) -> tuple[Change, ...]:
        """See ``Schedule.changes``; parts that change at the same step make one change."""
        self.check(tasks)
        moves: dict[int, dict[int, float]] = {}
        for columns, schedule in self._of(tasks):
            for change in schedule.changes(rng, horizon, tasks, first):
                values = {i: change.task.params[i] for i in columns}
                moves.setdefault(change.step, {}).update(values)
        params, listed = list(first.params), list[Change]()
        for step in sorted(moves):
            for i, value in moves[step].items():
                params[i] = value
            task = Task(tuple(params))
            if task.params != (listed[-1].task if listed else first).params:
                listed.append(Change(step, task))
        return tuple(listed)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (Static, Episodic, Single, Periodic, Hazard, Recurrent, Drift, Compound)
}


def arguments_of(kind: type[Schedule]) -> dict[str, Any]:
    """The arguments that a schedule's dict may hold beside its name, with their defaults."""
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name != "defaults"}


def parse_schedule(
    value: str | Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> Schedule:
    """Make the schedule that a name or a JSON dict describes.

    Args:
        value: A name of ``SCHEDULES``, or a dict with ``"name"`` and that schedule's arguments.
        defaults: By schedule, arguments that replace its own defaults, also in a compound.

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
    known = list(arguments_of(kind))
    given = {key: argument for key, argument in arguments.items() if key != "name"}
    for key in given:
        if key not in known:
            raise unknown_name(f"argument of schedule {kind.name!r}", key, known or ["(none)"])
    if kind is Compound:
        given["defaults"] = defaults
    return kind(**{**(defaults or {}).get(kind.name, {}), **given})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(schedule: Schedule, argument: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"schedule {schedule.name!r}: {argument}={value!r}, expected a whole number of steps, "
            "1 or more"
        )
