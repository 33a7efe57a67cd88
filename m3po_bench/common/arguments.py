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
