"""A run that is interrupted goes on from its checkpoint, and ends as if nothing had happened."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.files import read_json
from m3po_bench.leaderboard.grid import Budget, RunSpec, Variant
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import CHECKPOINT, CHECKPOINT_NOTE, EVALUATION, ROWS, RUN, Store
from m3po_bench.leaderboard.suite_files import parse_suite

EVERY = 13


@pytest.fixture(autouse=True)
def _committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is being edited: checkpoints of changed code fit nothing."""
    monkeypatch.setattr("m3po_bench.leaderboard.provenance.commit", lambda: "abc")


@pytest.fixture
def spec(toys: Any) -> RunSpec:
    table = {**tomllib.loads(toys.SUITE.text), "agents": ["Toy"]}
    return replace(parse_suite(table).runs()[0], variant=Variant("Toy", {"exact_resume": True}))


def make(spec: RunSpec, root: Path, every: int = EVERY) -> tuple[bytes, dict[str, Any]]:
    """Rows and record of a run that is made to its end."""
    store = Store(root)
    Run(spec, store, checkpoint_every=every).execute()
    record = read_json(store.folder(spec) / RUN)
    assert record is not None
    return (store.folder(spec) / EVALUATION).read_bytes(), record


def interrupt(spec: RunSpec, root: Path, step: int, every: int = EVERY) -> Path:
    """Let it fail, with the same configuration, at a step; returns its folder."""
    store = Store(root)
    run = Run(spec, store, checkpoint_every=every)
    usual = Run._on_step

    def failing(self: Run, model: Any, local: dict[str, Any], log: Any) -> bool:
        if model.num_timesteps == step:
            raise ArithmeticError("struck")
        return usual(self, model, local, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_on_step", failing)
        with pytest.raises(ArithmeticError, match="struck"):
            run.execute()
    return store.folder(spec)


def test_what_is_resumed_equals_what_went_on(spec: RunSpec, tmp_path: Path) -> None:
    rows, record = make(spec, tmp_path / "undisturbed")
    assert rows != make(spec, tmp_path / "other", every=1000)[0]  # checkpoints leave a trace
    folder = interrupt(spec, tmp_path / "struck", 45)
    assert (folder / CHECKPOINT).exists()
    at = json.loads((folder / CHECKPOINT).read_text())["step"]
    assert EVERY <= at < 45
    again, resumed = make(spec, tmp_path / "struck")
    assert again == rows
    assert resumed["resumed_at"] == [at]
    assert "resumed_at" not in record
    assert not (folder / CHECKPOINT).exists()
    assert not (folder / CHECKPOINT_NOTE).exists()
    assert Store(tmp_path / "struck").is_finished(spec)


def test_twice_interrupted(spec: RunSpec, tmp_path: Path) -> None:
    rows, _ = make(spec, tmp_path / "undisturbed")
    for step in (30, 58):
        interrupt(spec, tmp_path / "struck", step)
    again, record = make(spec, tmp_path / "struck")
    assert again == rows
    assert len(record["resumed_at"]) == 2


def test_time_of_all_attempts_counts(spec: RunSpec, tmp_path: Path) -> None:
    slow = replace(spec, variant=Variant("Toy", {"exact_resume": True, "pause": 0.01}))
    folder = interrupt(slow, tmp_path, 45)
    at = json.loads((folder / CHECKPOINT).read_text())["step"]
    _, record = make(slow, tmp_path)
    assert record["training_seconds"]["wall"] > 0.01 * 60
    assert record["resumed_at"] == [at]


def test_a_kill_between_note_and_checkpoint_counts_no_time_twice(
    spec: RunSpec, tmp_path: Path, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = make(spec, tmp_path / "undisturbed")
    usual = toys.ToyAgent._keep

    def killed(self: Any, path: Path) -> None:
        if path.exists():  # the second checkpoint: its note has been written
            raise ArithmeticError("struck")
        usual(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(toys.ToyAgent, "_keep", killed)
        with pytest.raises(ArithmeticError):
            make(spec, tmp_path / "struck")
    folder = Store(tmp_path / "struck").folder(spec)
    at = json.loads((folder / CHECKPOINT).read_text())["step"]
    note = json.loads((folder / CHECKPOINT_NOTE).read_text())
    first, second = note["at"]
    assert int(first) == at < int(second)
    note["at"][first]["learning"]["cpu"], note["at"][second]["learning"]["cpu"] = 500.0, 1000.0
    (folder / CHECKPOINT_NOTE).write_text(json.dumps(note))
    again, record = make(spec, tmp_path / "struck")
    assert again == rows
    assert 500.0 <= record["training_seconds"]["cpu"] < 600.0


@pytest.mark.parametrize("name", [CHECKPOINT, CHECKPOINT_NOTE])
def test_a_damaged_checkpoint_is_not_gone_on_from(spec: RunSpec, tmp_path: Path, name: str) -> None:
    rows, _ = make(spec, tmp_path / "undisturbed")
    path = interrupt(spec, tmp_path / "struck", 45) / name
    path.write_bytes(path.read_bytes()[:20])
    if name == CHECKPOINT:
        with pytest.warns(UserWarning, match="cannot be gone on from"):
            again, record = make(spec, tmp_path / "struck")
    else:
        again, record = make(spec, tmp_path / "struck")
    assert again == rows
    assert "resumed_at" not in record


def test_a_checkpoint_of_another_commit_or_configuration_fits_nothing(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(spec, tmp_path, 45)
    other = replace(spec, budget=replace(spec.budget, eval_episodes=1))
    interrupt(other, tmp_path, 20)  # the same folder
    assert "resumed_at" not in make(spec, tmp_path)[1]
    for commit in ("def", "abc+"):
        interrupt(replace(spec, seed=1), tmp_path, 45)
        with monkeypatch.context() as patch:
            patch.setattr("m3po_bench.leaderboard.provenance.commit", lambda: commit)  # noqa: B023
            interrupt(replace(spec, seed=1), tmp_path, 5)
    assert "resumed_at" not in make(replace(spec, seed=1), tmp_path)[1]


def test_an_agent_that_cannot_be_resumed_starts_anew(spec: RunSpec, tmp_path: Path) -> None:
    plain = replace(spec, variant=Variant("Toy"))
    folder = interrupt(plain, tmp_path, 45)
    assert not (folder / CHECKPOINT).exists()
    assert "resumed_at" not in make(plain, tmp_path)[1]


def test_rows_cut_short_by_a_kill_are_dropped(spec: RunSpec, tmp_path: Path) -> None:
    rows, _ = make(spec, tmp_path / "undisturbed")
    path = interrupt(spec, tmp_path / "struck", 45) / ROWS
    assert path.read_text().endswith("\n")
    with path.open("a") as file:
        file.write("4")  # of 45, which is before the checkpoint if taken for a whole
    assert make(spec, tmp_path / "struck")[0] == rows


def test_m3po_is_resumed(tmp_path: Path) -> None:
    budget = Budget(steps=450, preset="tiny", checkpoints=3, eval_episodes=2, final_episodes=3)
    spec = RunSpec("M3PO/PointFwdBwd-v0", "hazard", "M3PO", Variant("M3PO"), budget, 0)
    rows, _ = make(spec, tmp_path / "undisturbed", every=150)
    interrupt(spec, tmp_path / "struck", 350, every=150)
    again, record = make(spec, tmp_path / "struck", every=150)
    assert record["resumed_at"] == [200]  # the end of an episode
    assert again == rows
