"""Tables and pictures: what is in them, and that importing them costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from m3po_bench.theory import branched_bound, figures, full_rollout_bound

PNG = b"\x89PNG\r\n\x1a\n"


def test_table() -> None:
    table = figures.bound_table(0.1, 0.2, 0.05, gamma=0.9, r_max=3.0)
    assert list(table.index) == ["1", "2", "5", "10", "20", "50", "full"]
    assert table.loc["5", "B2"] == branched_bound(0.1, 0.05, 0.9, 3.0, 5)
    assert table.loc["full", "MBPO 4.2"] == full_rollout_bound(0.1, 0.05, 0.9, 3.0)
    assert (table["B2"] <= table["MBPO 4.2"]).all()
    assert (table["B3"] <= table["MBPO 4.3"])[:-1].all()
    assert table["MBPO 4.3"].isna().to_list() == [False] * 6 + [True]


def test_pictures() -> None:
    small = figures.discrepancy_figure(np.random.default_rng(0), gamma=0.5, cases=2)
    assert small.startswith(PNG)
    assert figures.best_length_figure(cells=4).startswith(PNG)


def test_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "discrepancy_figure", lambda rng: PNG)
    monkeypatch.setattr(figures, "best_length_figure", lambda: PNG)
    written = figures.write_figures(tmp_path / "new")
    assert [p.name for p in written] == [
        "theory_discrepancy.png", "theory_coefficients.png", "theory_best_length.png",
    ]  # fmt: skip
    assert all(p.read_bytes().startswith(PNG) for p in written)


def test_importing_loads_no_plotting() -> None:
    code = (
        "import sys, m3po_bench.theory, m3po_bench.theory.figures;"
        "print({'pandas', 'matplotlib', 'seaborn', 'scipy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
