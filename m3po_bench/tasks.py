"""What a meta-environment is made of: a task, a distribution over tasks, the protocol.

A task fixes whatever may vary between episodes, or inside one: a direction, a mass, a gain. Agents
never see it unless they are told (``visibility="oracle"``); everything here is plain numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One setting of everything that may vary.

    Attributes:
        params: The values, in the order of the distribution's ``names``.
        index: Position in a finite distribution's list; -1 for a task drawn from a range.
    """

    params: tuple[float, ...]
    index: int = -1

    @property
    def vector(self) -> Array:
        """The values as a fresh float64 array of shape (n_params,)."""
        return np.asarray(self.params, dtype=np.float64)


def task_parameters(tasks: Iterable[Task | None]) -> list[list[float] | None]:
    """The tasks' values as plain numbers, for files; None where there is no task."""
    return [None if task is None else [float(x) for x in task.params] for task in tasks]


class TaskDistribution(Protocol):
    """Where tasks come from."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name per entry of ``Task.params``."""
        ...

    @property
    def low(self) -> Array:
        """Smallest values, shape (n_params,)."""
        ...

    @property
    def high(self) -> Array:
        """Largest values, shape (n_params,)."""
        ...

    def sample(self, rng: np.random.Generator, other_than: Task | None = None) -> Task:
        """Draw a task; one that differs from ``other_than`` if that is given."""
        ...

    def parse(self, value: Any) -> Task:
        """Turn an index, a sequence of values or a task into one of this distribution's tasks.

        Raises:
            ValueError: If ``value`` names no task of this distribution.
        """
        ...


@dataclass(frozen=True)
class FiniteTasks:
    """Equally likely tasks from a list, such as a direction of +1 or -1.

    Attributes:
        names: One name per entry of a task.
        values: The tasks' values, one tuple per task.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.values or any(len(value) != len(self.names) for value in self.values):
            raise ValueError(f"every task needs the values {self.names}, got {self.values}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def low(self) -> Array:
        """Smallest value of each parameter."""
        lowest: Array = np.min(np.asarray(self.values, dtype=np.float64), axis=0)
        return lowest

    @property
    def high(self) -> Array:
        """Largest value of each parameter."""
        highest: Array = np.max(np.asarray(self.values, dtype=np.float64), axis=0)
        return highest

    def sample(self, rng: np.random.Generator, other_than: Task | None = None) -> Task:
        """Draw a task uniformly from the list, or from its others."""
        taken = None if other_than is None else other_than.params
        indices = [i for i, value in enumerate(self.values) if value != taken]
        if not indices:
            raise ValueError(f"there is only one task, {self.values[0]}: nothing to change to")
        index = indices[int(rng.integers(len(indices)))]
        return Task(self.values[index], index)

    def parse(self, value: Any) -> Task:
        """See ``TaskDistribution.parse``; a float such as ``-1.0`` means a task of one value."""
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            if not 0 <= value < len(self.values):
                raise ValueError(
                    f"task {value} is not one of the indices 0..{len(self.values) - 1}"
                )
            return Task(self.values[int(value)], int(value))
        params = _params(value, self.names)
        for index, known in enumerate(self.values):
            if np.allclose(known, params):
                return Task(known, index)
        raise ValueError(f"task {params} is not one of {self.values}")


@dataclass(frozen=True)
class UniformTasks:
    """Tasks drawn from boxes: each parameter uniform in its range, or in the logarithm of it.

    Attributes:
        names: One name per parameter.
        ranges: (low, high) per parameter.
        log: Parameters drawn uniformly in the logarithm of their range.
        signs: Parameters whose sign is drawn too, each with probability one half.
        angles: Parameters that are angles in radians, so that 0 and 2 pi are the same.
    """

    names: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    log: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    angles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ranges):
            raise ValueError(f"{len(self.names)} names for {len(self.ranges)} ranges")
        unknown = {*self.log, *self.signs, *self.angles} - set(self.names)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are not among the parameters {self.names}")
        for name, (low, high) in zip(self.names, self.ranges, strict=True):
            if not low <= high:
                raise ValueError(f"range of {name!r}: [{low}, {high}], expected low <= high")

    @property
    def low(self) -> Array:
        """Smallest value of each parameter."""
        return np.asarray(
            [-high if name in self.signs else low
             for name, (low, high) in zip(self.names, self.ranges, strict=True)]
        )  # fmt: skip

    @property
    def high(self) -> Array:
        """Largest value of each parameter."""
        return np.asarray([high for _, high in self.ranges])

    def sample(self, rng: np.random.Generator, other_than: Task | None = None) -> Task:
        """Draw every parameter; two draws differ with probability one, and are made to.

        Raises:
            ValueError: If another task is asked for and the ranges hold only one.
        """
        while True:
            task = Task(tuple(self._draw(rng, i) for i in range(len(self.names))))
            if other_than is None or task.params != other_than.params:
                return task
            if np.all(self.low == self.high):
                raise ValueError(f"there is only one task, {task.params}: nothing to change to")

    def _draw(self, rng: np.random.Generator, i: int) -> float:
        name, (low, high) = self.names[i], self.ranges[i]
        if name in self.log:
            value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        else:
            value = float(rng.uniform(low, high))
        return -value if name in self.signs and rng.random() < 0.5 else value

    def place(self, task: Task) -> Array:
        """Where a task's magnitudes lie in their ranges (or the logarithms), 0 low to 1 high.

        Returns:
            Shape (n_params,).
        """
        low, high = self._scaled_ranges()
        signed = np.array([name in self.signs for name in self.names])
        sizes = np.where(signed, np.abs(task.vector), task.vector)
        sizes = np.where(self._is_log(), np.log(np.maximum(sizes, 1e-300)), sizes)
        placed: Array = (sizes - low) / np.where(high > low, high - low, 1.0)
        return placed

    def at(self, place: Array, like: Task) -> Task:
        """The inverse of ``place``, with the signs of ``like``."""
        low, high = self._scaled_ranges()
        sizes = low + place * (high - low)
        sizes = np.where(self._is_log(), np.exp(sizes), sizes)
        signed = np.array([name in self.signs for name in self.names])
        return Task(tuple(np.where(signed, np.sign(like.vector) * sizes, sizes).tolist()))

    def _is_log(self) -> NDArray[np.bool_]:
        return np.array([name in self.log for name in self.names])

    def _scaled_ranges(self) -> Array:
        """Low and high ends, in the logarithm where that is what is uniform; (2, n_params)."""
        ends = np.asarray(self.ranges, dtype=np.float64).T
        scaled: Array = np.where(self._is_log(), np.log(np.where(self._is_log(), ends, 1.0)), ends)
        return scaled

    def parse(self, value: Any) -> Task:
        """See ``TaskDistribution.parse``; any values of the right number are a task."""
        if isinstance(value, (int, np.integer)):
            raise ValueError(
                f"tasks of a continuous range have no index ({value}): give the values {self.names}"
            )
        return Task(_params(value, self.names))


def _params(value: Any, names: tuple[str, ...]) -> tuple[float, ...]:
    if isinstance(value, Task):
        params: Sequence[Any] = value.params
    elif isinstance(value, (float, np.floating)):
        params = (value,)
    elif isinstance(value, (list, tuple, np.ndarray)):
        params = tuple(value)
    else:
        raise ValueError(f"task {value!r}: expected an index, a Task, or the values {names}")
    if len(params) != len(names):
        raise ValueError(f"task {value!r}: expected {len(names)} values, {names}")
    numbers = tuple(float(x) for x in params)
    if not np.all(np.isfinite(numbers)):
        raise ValueError(f"task {value!r}: every value must be finite")
    return numbers


@runtime_checkable
class MetaEnv(Protocol):
    """What agents and harness may ask of a meta-environment, besides Gymnasium's own interface.

    ``reset(options={"task": ..., "schedule": ...})`` forces the first task of the episode, or the
    schedule, until the next time one is forced (``None`` frees it again).
    """

    @property
    def task(self) -> Task:
        """The task in force for the next step."""
        ...

    @property
    def tasks(self) -> TaskDistribution:
        """Where this split's tasks come from."""
        ...

    def terminated(self, obs: Array, action: Array, next_obs: Array) -> NDArray[np.bool_]:
        """Whether each transition ends its episode, shape (n,); exact.

        Args:
            obs: Observations without any wrapper's columns, shape (n, obs_dim).
            action: Actions in [-1, 1], shape (n, action_dim).
            next_obs: Following observations, shape (n, obs_dim).
        """
        ...

    def reward(self, obs: Array, action: Array, next_obs: Array, task: Array) -> Array:
        """Rewards of transitions under given tasks, shape (n,).

        Args:
            obs: Observations without any wrapper's columns, shape (n, obs_dim).
            action: Actions in [-1, 1], shape (n, action_dim).
            next_obs: Following observations, shape (n, obs_dim).
            task: Task vectors, shape (n, n_params) or (n_params,).
        """
        ...
