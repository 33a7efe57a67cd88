"""Checks of arguments that many classes make."""

from __future__ import annotations


def check_counts(**counts: int | None) -> None:
    """Refuse what cannot be counted with; None stands for no count.

    Args:
        **counts: By the names of the arguments.

    Raises:
        ValueError: If one is below 1; the message names the first that is.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}={count!r}: expected at least 1")


def check_shares(**shares: float) -> None:
    """Refuse what is no share of a whole.

    Args:
        **shares: By the names of the arguments.

    Raises:
        ValueError: If one is not from 0 to 1; the message names the first that is not.
    """
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name}={share!r}: expected a share from 0 to 1")
