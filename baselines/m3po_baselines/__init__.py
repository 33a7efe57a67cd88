"""Baselines and references with SB3's face, registered by string; no agent is imported here."""

from __future__ import annotations


def register() -> None:
    """Register every agent of this package, and M3PO itself, by name."""
