"""A checkpoint is replaced as a whole, taken where all episodes end, and never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import gymnasium as gym
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from m3po_bench import make_agent
from m3po_bench.common.checkpoints import ExactCheckpoint, read_checkpoint, write_checkpoint
from m3po_bench.common.meta_algorithm import MetaAlgorithm

ENV = "M3PO/PointFwdBwd-v0"


def test_the_newer_one_replaces_the_older(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_checkpoint(tmp_path / "at.pt", {"seed": seed, "weight": torch.ones(2)})
    assert read_checkpoint(tmp_path / "at.pt")["seed"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["at.pt"]


def test_a_write_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    write_checkpoint(tmp_path / "at.pt", {"seed": 1})
    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "at.pt", {"seed": 2})
    assert read_checkpoint(tmp_path / "at.pt")["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["at.pt"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "touched"),)  # type: ignore[return-value]

    torch.save({"seed": Evil()}, tmp_path / "at.pt")
    with pytest.raises(ValueError, match="no checkpoint of an agent: Weights only load failed"):
        read_checkpoint(tmp_path / "at.pt")
    assert not (tmp_path / "touched").exists()


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "at.pt")
    with pytest.raises(ValueError, match="every=0: expected at least 1"):
        ExactCheckpoint(tmp_path, every=0)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    """Also where all shapes fit."""
    at = tmp_path / "at.pt"
    make_agent("M3PO", ENV, preset="tiny").learn(200, callback=ExactCheckpoint(at, every=150))
    static = gym.make(ENV, schedule="static")  # the same env still
    assert make_agent("M3PO", static, preset="tiny").resume(at).num_timesteps == 200
    with pytest.raises(ValueError, match=r"of M3PO in M3PO/Point.*, not PEARL in M3PO/Poi"):
        make_agent("PEARL", ENV, preset="tiny").resume(at)
    with pytest.raises(ValueError, match="not M3PO in M3PO/PendulumRandomParams-v0"):
        make_agent("M3PO", "M3PO/PendulumRandomParams-v0", preset="tiny").resume(at)
    at.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint of an agent"):
        make_agent("M3PO", ENV, preset="tiny").resume(at)


def test_checkpoints_wait_for_the_end_of_an_episode(tmp_path: Path) -> None:
    due: list[int] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if self.model.checkpoint_due is not None:  # type: ignore[attr-defined]
                due.append(self.num_timesteps)
            return True

    model = make_agent("M3PO", ENV, preset="tiny", seed=0, learning_starts=10_000)
    model.learn(650, callback=[ExactCheckpoint(tmp_path / "at.pt", every=120), Watch()])
    assert due == [200, 400, 600]


def test_a_task_that_is_kept_outlives_checkpoints(tmp_path: Path) -> None:
    """Under ``static`` an env's first task stays, though a checkpoint seeds the env anew."""
    tasks: list[tuple[float, ...]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            tasks.extend(task.params for task in self.training_env.get_attr("task"))
            return True

    def agent() -> MetaAlgorithm:
        env = gym.make("M3PO/Walker2dRandomParams-v0", schedule="static", max_episode_steps=20)
        settings = {"seed": 0, "learning_starts": 10_000}
        return cast(MetaAlgorithm, make_agent("M3PO", env, preset="tiny", **settings))

    checkpoint = ExactCheckpoint(tmp_path / "at.pt", every=20)
    agent().learn(80, callback=[checkpoint, Watch()])
    resumed = agent().resume(tmp_path / "at.pt")
    resumed.learn(20, callback=Watch(), reset_num_timesteps=False)
    assert len(tasks) == 100
    assert len(set(tasks)) == 1
