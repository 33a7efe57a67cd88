from __future__ import annotations

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import m3po_bench  # noqa: F401 - registers the ids
import m3po_envs
from m3po_envs import ENTRY_POINTS, splits
from m3po_envs.pendulum import PendulumRandomParamsEnv

FROZEN = Path(m3po_envs.__file__).parent / "splits"


def test_the_generator_writes_the_frozen_files_byte_for_byte(tmp_path: Path) -> None:
    splits.write_splits(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in FROZEN.iterdir()}


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_there_are_forty_different_test_episodes(env_id: str) -> None:
    episodes = splits.load_episodes(env_id, "test")
    assert len(episodes) == 40
    assert len({e.change_seed for e in episodes}) == len({e.state_seed for e in episodes}) == 40


@pytest.mark.parametrize("env_id", ["M3PO/PointFwdBwd-v0", "M3PO/HalfCheetahFwdBwd-v0"])
def test_two_tasks_take_turns(env_id: str) -> None:
    tasks = [episode.task for episode in splits.load_episodes(env_id, "test")]
    assert tasks == [(-1.0,), (1.0,)] * 20


def test_test_tasks_are_inside_and_ood_tasks_outside_the_training_ranges() -> None:
    train = PendulumRandomParamsEnv.distributions["train"]
    low, high = np.array(train.ranges).T
    for episode in splits.load_episodes(PendulumRandomParamsEnv.env_id, "test"):
        assert np.all((np.abs(episode.task) >= low) & (np.abs(episode.task) <= high))
    ood = splits.load_episodes(PendulumRandomParamsEnv.env_id, "ood")
    assert len(ood) == 20
    for episode in ood:
        assert np.all((np.abs(episode.task) < low) | (np.abs(episode.task) > high))


def test_an_edited_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FROZEN, tmp_path / "splits")
    path = tmp_path / "splits" / splits.file_name("M3PO/PointFwdBwd-v0", "test")
    path.write_text(path.read_text().replace("-1.0", "1.0", 1))
    monkeypatch.setattr(splits, "files", lambda package: tmp_path)
    splits.load_episodes.cache_clear()
    with pytest.raises(ValueError, match=r"PointFwdBwd-v0\.test\.json has SHA-256 .* edited"):
        splits.load_episodes("M3PO/PointFwdBwd-v0", "test")


def test_an_unknown_family_has_no_frozen_episodes() -> None:
    with pytest.raises(ValueError, match=r"no frozen episodes 'Nowhere-v0\.test\.json'"):
        splits.load_episodes("M3PO/Nowhere-v0", "test")


def test_two_task_families_say_why_they_have_no_ood_split() -> None:
    with pytest.raises(ValueError, match=r"no split 'ood': its tasks, \(\(-1\.0,\), \(1\.0,\)\)"):
        gym.make("M3PO/PointFwdBwd-v0", split="ood")
