from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def suite_file(tmp_path: Path, toys: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of toys; child processes find them as an installed plugin."""
    info = tmp_path / "site" / "toy_bench-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-bench\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[m3po_bench.plugins]\ntoy = toy_bench:register\n")
    paths = [str(info.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
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


@pytest.fixture
def command_line(suite_file: Path) -> CommandLine:
    """Runs the suite of toys, two at a time unless told otherwise."""
    return CommandLine(suite_file)
