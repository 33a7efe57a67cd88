"""Values that change in the course of training: MBPO's thresholded linear schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

EPOCH = 1000
"""Env steps of an epoch (Janner et al. 2019)."""


@dataclass(frozen=True)
class Ramp:
    """``first`` up to the epoch ``start``, ``last`` from the epoch ``end`` on, linear between.

    Attributes:
        start: In epochs of 1,000 env steps.
        end: In epochs of 1,000 env steps, after ``start``.
        first: Value at the start.
        last: Value at the end.
    """

    start: float
    end: float
    first: float
    last: float

    @classmethod
    def parse(
        cls, name: str, value: float | Sequence[float], least: float, most: float = math.inf
    ) -> Ramp:
        """A number, which stays, or the four numbers (start, end, first, last).

        Args:
            name: Of the argument.
            value: Of the argument.
            least: Smallest value there may be.
            most: Largest value there may be.

        Raises:
            ValueError: If it is neither, or out of range; the message names the argument.
        """
        if isinstance(value, Real) and not isinstance(value, bool):
            return cls(0.0, 1.0, float(value), float(value))._within(name, value, least, most)
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
            raise ValueError(
                f"{name}={value!r}: expected a number or (start_epoch, end_epoch, first, last)"
            )
        ramp = cls(*(float(x) for x in value))
        if not 0.0 <= ramp.start < ramp.end:
            raise ValueError(f"{name}={value!r}: expected 0 <= start_epoch < end_epoch")
        return ramp._within(name, value, least, most)

    def _within(self, name: str, value: object, least: float, most: float) -> Ramp:
        if not (least <= self.first <= most and least <= self.last <= most):
            limits = f"at least {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
            raise ValueError(f"{name}={value!r}: expected {limits}")
        return self

    def at(self, step: int) -> float:
        """The value after ``step`` env steps."""
        share = (step / EPOCH - self.start) / (self.end - self.start)
        return self.first + min(1.0, max(0.0, share)) * (self.last - self.first)

    @property
    def largest(self) -> float:
        """The largest value it takes."""
        return max(self.first, self.last)
