"""When something is due that comes after every so many env steps, however many envs there are."""

from __future__ import annotations


def turns_due(planned: int, every: int, now: int, n_envs: int) -> tuple[int, int]:
    """How many turns are due, and what the next is planned for.

    Parallel envs step past a turn, by less than ``n_envs``; every turn that they stepped past is
    due. What is later than that had to wait, for data or for ``learn``, and is due once; so is what
    is asked for before its time.

    Args:
        planned: Env step that the turn was planned for.
        every: Env steps between two turns.
        now: Env steps so far.
        n_envs: Env steps between two calls.
    """
    late = now - planned if 0 <= now - planned < n_envs else 0
    turns = 1 + late // every
    return turns, now - late + turns * every
