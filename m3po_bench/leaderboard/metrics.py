"""What an agent loses by a change of the task, and how fast it learns: pure functions of arrays.

A *segment* is the part of an episode under one task. Times are env steps since the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

WINDOW = 5
"""Steps over which rewards are averaged before they are judged."""

RECOVERED = 0.8
"""Share of the way from random to the oracle that counts as recovered."""

NEVER = 10**6
"""The time to recovery after a fall, beyond every horizon."""


class Recovery(NamedTuple):
    """Time to recovery after one change.

    Attributes:
        time: Env steps; where not observed, those that the segment has, or ``NEVER``.
        observed: False if the segment ended before the agent had recovered (right-censored).
    """

    time: int
    observed: bool


def segments(rewards: ArrayLike, steps_since_change: ArrayLike) -> list[Array]:
    """The rewards of an episode by task in force; the first began with the reset.

    Args:
        rewards: Shape (T,).
        steps_since_change: At each step, 0 at the first of a task; shape (T,).
    """
    rewards, age = np.asarray(rewards, np.float64), np.asarray(steps_since_change)
    return np.split(rewards, np.flatnonzero(age[1:] == 0) + 1)


def adaptation_regret(segment: ArrayLike, oracle: ArrayLike, lost: int = 0) -> float:
    """What the oracle earns more, at equal times since the change, up to the shorter one's end.

    Args:
        segment: Rewards since the change, shape (L,).
        oracle: The oracle's mean reward at each time since a change, shape (K,).
        lost: Steps that a fall has taken away; they earn nothing.
    """
    segment, oracle = np.asarray(segment, np.float64), np.asarray(oracle, np.float64)
    segment = np.pad(segment, (0, lost))
    n = min(len(segment), len(oracle))
    return float(np.sum(oracle[:n] - segment[:n]))


def recovery(segment: ArrayLike, random: float, oracle: float, fell: bool = False) -> Recovery:
    """First time from which the windowed, normalised reward stays at ``RECOVERED`` or above.

    It must stay there for at least a window, and to the segment's end; otherwise it is censored.
    So the longer a segment, the more of a noisy agent's relapses it shows: only times of the same
    list of changes can be compared.
    After a fall it does not stay anywhere: that is no chance end of the segment, but a failure.

    Args:
        segment: Rewards since the change, shape (L,).
        random: The random agent's mean reward per step.
        oracle: The oracle's mean reward per step once it has adapted.
        fell: Whether the segment ended because the episode terminated.

    Raises:
        ValueError: If the oracle does not earn more than the random agent.
    """
    if not oracle > random:
        raise ValueError(f"oracle {oracle} does not earn more than random {random}: no scale")
    if fell:
        return Recovery(NEVER, False)
    share = (np.asarray(segment, np.float64) - random) / (oracle - random)
    if len(share) < WINDOW:
        return Recovery(len(share), False)
    windowed = np.convolve(share, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
    below = np.flatnonzero(windowed < RECOVERED - 1e-12)
    start = int(below[-1]) + 1 if len(below) else 0
    if start >= len(windowed):
        return Recovery(len(share), False)
    return Recovery(start, True)


def recovery_times(times: ArrayLike, observed: ArrayLike) -> list[Recovery]:
    """``Recovery`` of each change, from the two columns that tables of changes keep.

    Args:
        times: Env steps, shape (n,).
        observed: Shape (n,), of 0 and 1.
    """
    pairs = zip(np.asarray(times), np.asarray(observed), strict=True)
    return [Recovery(int(time), bool(seen)) for time, seen in pairs]


def survival(recoveries: Sequence[Recovery], times: ArrayLike) -> Array:
    """Share of changes not recovered from after each time: the Kaplan-Meier estimate.

    That a segment of n steps has recovered from a step on takes a window to be seen, so it counts
    until ``WINDOW`` steps before its end, and one that is shorter not at all.

    Args:
        recoveries: Of all changes.
        times: Env steps since the change, shape (n,).

    Returns:
        Shape (n,); NaN where no segment is long enough to tell. Beyond the longest segment the
        last value stays.
    """
    done = [r.time for r in recoveries if r.observed]
    watched = [r.time - WINDOW for r in recoveries if not r.observed and r.time >= WINDOW]
    if not done:  # scipy has no estimate from censored times alone
        return np.full(len(np.asarray(times)), 1.0 if watched else np.nan)
    data = stats.CensoredData(uncensored=done, right=watched)
    found: Array = stats.ecdf(data).sf.evaluate(np.asarray(times, np.float64))
    return found


def restricted_mean(recoveries: Sequence[Recovery], horizon: int) -> float:
    """Mean time to recovery, cut off at ``horizon``: the area under the survival curve."""
    return float(survival(recoveries, np.arange(horizon)).sum())


def median_time(recoveries: Sequence[Recovery], horizon: int) -> float:
    """Env steps after which half of the changes are recovered from; infinite beyond ``horizon``."""
    left = survival(recoveries, np.arange(horizon + 1))
    if np.isnan(left).any():
        return np.nan
    halved = np.flatnonzero(left <= 0.5)
    return float(halved[0]) if len(halved) else np.inf


def drop_depth(before: ArrayLike, after: ArrayLike) -> float:
    """Mean reward of the last window before a change, minus the worst window after it."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    window = min(WINDOW, len(after))
    windowed = np.convolve(after, np.full(window, 1.0 / window), mode="valid")
    return float(before[-WINDOW:].mean() - windowed.min())


def savings(first: ArrayLike, again: ArrayLike, oracle: ArrayLike) -> float:
    """Regret that is saved when a task comes back (A-B-A); positive if it is known again faster.

    Args:
        first: Rewards since the change that first brought the task.
        again: Rewards since the one that brought it back.
        oracle: The oracle's mean reward at each time since a change.
    """
    n = min(len(np.asarray(first)), len(np.asarray(again)))
    return adaptation_regret(np.asarray(first)[:n], oracle) - adaptation_regret(
        np.asarray(again)[:n], oracle
    )


def cvar(returns: ArrayLike, share: float = 0.1) -> float:
    """Mean of the worst ``share`` of returns, at least of one."""
    ordered = np.sort(np.asarray(returns, np.float64))
    return float(ordered[: max(1, int(np.floor(share * len(ordered))))].mean())


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Mean return over training: the trapezoids between checkpoints, from env step 0 on.

    Until the first checkpoint the return counts as it is there: a curve that began at it would
    leave out the more of the beginning the fewer checkpoints there are.

    Args:
        steps: Env steps of the checkpoints, increasing, shape (n,).
        returns: Shape (n,).
    """
    steps, returns = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    area = np.trapezoid(np.append(returns[0], returns), np.append(0.0, steps))
    return float(area / steps[-1])


def steps_to(steps: ArrayLike, returns: ArrayLike, threshold: float) -> int | None:
    """Env steps of the first checkpoint at ``threshold`` or above; None if there is none."""
    reached = np.flatnonzero(np.asarray(returns) >= threshold)
    return int(np.asarray(steps)[reached[0]]) if len(reached) else None
