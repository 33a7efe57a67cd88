"""How a run is made; nothing here changes what it results in."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from m3po_bench.leaderboard.grid import SuiteError


@dataclass(frozen=True)
class RunOptions:
    """What one run may take before it is ended, and who else is told of its progress.

    Attributes:
        minutes: By the clock, from the start of its process; 0 means no limit.
        memory_gb: Resident memory at its peak, in GiB; 0 means no limit.
        tensorboard: Whether the agent's log is kept for TensorBoard in the run's folder.
        wandb: Project of Weights & Biases that the agent's log is sent to; none if empty.
    """

    minutes: float = 0.0
    memory_gb: float = 0.0
    tensorboard: bool = False
    wandb: str = ""

    def __post_init__(self) -> None:
        named = {"--time-limit-min": self.minutes, "--memory-limit-gb": self.memory_gb}
        for name, value in named.items():
            if not 0 <= value < float("inf"):
                raise SuiteError(f"{name} {value}: expected a positive number, or 0 for no limit")
        if self.memory_gb and not Path("/proc/self/status").exists():
            raise SuiteError("--memory-limit-gb: memory can only be watched on Linux, by /proc")


def need(option: str, package: str, extra: str) -> None:
    """Refuse to go on where a package of an optional extra is not installed.

    Args:
        option: What asks for it.
        package: Which.
        extra: Of this distribution, which brings it.

    Raises:
        SuiteError: If it is not.
    """
    if find_spec(package) is None:
        raise SuiteError(
            f'{option} needs {package}; install it with: pip install "m3po-bench[{extra}]"'
        )
