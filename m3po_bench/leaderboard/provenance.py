"""Where a result comes from: versions, commit, machine, time and memory."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import m3po_bench

PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "sb3-contrib", "torch")


def versions() -> dict[str, str]:
    """Versions of Python, this package and of what results depend on."""
    found = {"python": platform.python_version(), "m3po-bench": m3po_bench.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The checkout's commit, with ``+`` where tracked files differ; None outside a checkout."""
    folder = Path(m3po_bench.__file__).parent
    if not (folder.parent / ".git").exists():  # an installed copy inside somebody's repository
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def cpu_model() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


class Stopwatch:
    """Adds up wall and CPU seconds of the blocks it times.

    Args:
        wall: Seconds by the clock to begin with.
        cpu: Seconds of this process on processors to begin with.
    """

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self._spent = (wall, cpu)
        self._since: tuple[float, float] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the block inside."""
        self._since = _clocks()
        try:
            yield
        finally:
            self._spent, self._since = self._both(), None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds so far, ``wall`` and ``cpu``; those of a block that still runs are in."""
        wall, cpu = self._both()
        return {"wall": wall, "cpu": cpu}

    def _both(self) -> tuple[float, float]:
        wall, cpu = self._spent
        if self._since is None:
            return wall, cpu
        now = _clocks()
        return wall + now[0] - self._since[0], cpu + now[1] - self._since[1]


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
