"""A checkpoint is replaced as a whole, taken where all episodes end, and found after any kill."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from m3po_bench import make_agent
from m3po_bench.common.checkpoints import (
    MODEL,
    STATE,
    ExactCheckpoint,
    find_checkpoint,
    write_checkpoint,
)

ENV = "M3PO/PointFwdBwd-v0"


def saving(text: str) -> Any:
    return SimpleNamespace(save=lambda path: Path(path).write_text(text))


def test_the_newer_one_replaces_the_older(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_checkpoint(tmp_path / "at", saving(text), {"seed": 1})
    assert (find_checkpoint(tmp_path / "at") / MODEL).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["at"]


def test_a_kill_between_two_renamings_leaves_the_old_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "at", saving("old"), {})
    (tmp_path / "at").rename(tmp_path / ".at.old")
    assert (find_checkpoint(tmp_path / "at") / MODEL).read_text() == "old"


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        raise OSError("No space left on device")

    write_checkpoint(tmp_path / "at", saving("old"), {})
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "at", SimpleNamespace(save=fails), {})
    assert (find_checkpoint(tmp_path / "at") / MODEL).read_text() == "old"


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"expected {MODEL} and {STATE}"):
        find_checkpoint(tmp_path / "at")
    with pytest.raises(ValueError, match="every=0: expected at least 1"):
        ExactCheckpoint(tmp_path, every=0)


def test_checkpoints_wait_for_the_end_of_an_episode(tmp_path: Path) -> None:
    due: list[int] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if self.model.checkpoint_due is not None:  # type: ignore[attr-defined]
                due.append(self.num_timesteps)
            return True

    model = make_agent("M3PO", ENV, preset="tiny", seed=0, learning_starts=10_000)
    model.learn(650, callback=[ExactCheckpoint(tmp_path / "at", every=120), Watch()])
    assert due == [200, 400, 600]
