from __future__ import annotations

import importlib
import os
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
