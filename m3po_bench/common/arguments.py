"""Checks of arguments that many classes make."""

from __future__ import annotations

from numbers import Integral, Real


def check_counts(at_least: int = 1, /, **counts: int | None) -> None:
    """Refuse what cannot be counted with; None stands for no count.

    Args:
        at_least: The smallest count that makes sense.
        **counts: By the names of the arguments.

    Raises:
        ValueError: If one is below that; the message names the first that is.
    """
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= at_least):
            raise ValueError(f"{name}={count!r}: expected at least {at_least}, whole")


def check_room(buffer_size: int, learning_starts: int, n_envs: int) -> None:
    """Refuse a replay that never holds what learning starts with.

    Args:
        buffer_size: Steps that it holds, shared evenly among the envs.
        learning_starts: Steps that must be there.
        n_envs: Parallel envs.

    Raises:
        ValueError: If there is less room.
    """
    if buffer_size // n_envs * n_envs < learning_starts:
        raise ValueError(
            f"buffer_size={buffer_size} in {n_envs} envs: expected room for "
            f"learning_starts={learning_starts} steps, or nothing is ever learnt"
        )


def check_positive(**numbers: float) -> None:
    """Refuse what is not above 0.

    Args:
        **numbers: By the names of the arguments.

    Raises:
        ValueError: If one is 0 or less, or no number; the message names the first.
    """
    for name, number in numbers.items():
        if not (isinstance(number, Real) and number > 0.0):
            raise ValueError(f"{name}={number!r}: expected a positive number")


def check_shares(**shares: float) -> None:
    """Refuse what is no share of a whole.

    Args:
        **shares: By the names of the arguments.

    Raises:
        ValueError: If one is not from 0 to 1; the message names the first that is not.
    """
    for name, share in shares.items():
        if not (isinstance(share, Real) and 0.0 <= share <= 1.0):
            raise ValueError(f"{name}={share!r}: expected a share from 0 to 1")
