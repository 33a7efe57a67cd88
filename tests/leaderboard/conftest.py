from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import EVALUATION, MODEL, Store
from m3po_bench.leaderboard.suite_files import load_suite

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    # When tests run, not when they are collected: the contract tests are not for toys.
    importlib.import_module("toy_bench").register()


@pytest.fixture
def toys() -> Any:
    """The module of the toys."""
    return importlib.import_module("toy_bench")


@pytest.fixture(scope="session")
def python_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ``PYTHONPATH`` with which child processes find the toys as an installed plugin."""
    info = tmp_path_factory.mktemp("site") / "toy_bench-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-bench\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[m3po_bench.plugins]\ntoy = toy_bench:register\n")
    paths = [str(info.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, paths))


@pytest.fixture
def suite_file(
    tmp_path: Path, toys: Any, python_path: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A suite of toys, which child processes find too."""
    monkeypatch.setenv("PYTHONPATH", python_path)
    path = tmp_path / "toys.toml"
    path.write_text(toys.SUITE.text)
    return path


class CommandLine:
    """``m3po-bench run`` of a suite, in processes of its own."""

    def __init__(self, suite: Path) -> None:
        self.suite = suite

    def start(self, out: Path, *options: str) -> subprocess.Popen[str]:
        """Begin, as the leader of a process group."""
        main = "from m3po_bench.cli import main; main()"
        command = [sys.executable, "-c", main, "run", str(self.suite)]
        command += ["--out", str(out), "--workers", "2", *options]
        # A script that starts tests in the background has SIGINT ignored, which children inherit.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, out: Path, *options: str) -> tuple[int, str, str]:
        """Status, standard output and standard error of a whole one."""
        process = self.start(out, *options)
        stdout, stderr = process.communicate(timeout=900)
        return process.returncode, stdout, stderr


class Outcomes:
    """What must not depend on what happened on the way."""

    @staticmethod
    def of(out: Path) -> dict[str, bytes]:
        """Tables, rows and models of a results folder."""
        paths = [path for path in out.glob("leaderboard.*") if path.suffix in (".csv", ".md")]
        paths += [path for name in (EVALUATION, MODEL) for path in out.glob(f"*/*/seed?/{name}")]
        return {str(path.relative_to(out)): path.read_bytes() for path in paths}

    @classmethod
    def undisturbed(cls, suite: Path | str, out: Path) -> dict[str, bytes]:
        """What a suite gives, made without any process, lock or scheduler."""
        store, grid = Store(out), load_suite(str(suite))
        for spec in grid.runs():
            Run(spec, store).execute()
        store.write_suite(grid)
        write_report(store)
        return cls.of(out)


@pytest.fixture
def outcomes() -> type[Outcomes]:
    """To compare results folders."""
    return Outcomes


@pytest.fixture
def command_line(suite_file: Path) -> CommandLine:
    """Runs the suite of toys, two at a time unless told otherwise."""
    return CommandLine(suite_file)
