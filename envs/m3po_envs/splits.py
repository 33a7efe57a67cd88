"""Frozen test and ood episodes: first task, seed of the change list, initial-state seed.

``python -m m3po_envs.splits [FOLDER]`` writes the files again, byte for byte.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m3po_bench.tasks import FiniteTasks, TaskDistribution
from m3po_envs import ENTRY_POINTS

if TYPE_CHECKING:
    from m3po_envs.base import MetaEnvBase

SPLITS = ("train", "test", "ood")
N_EPISODES = {"test": 40, "ood": 20}
CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Episode:
    """One frozen episode.

    Attributes:
        task: Values of the first task.
        change_seed: Seeds the change list (under any schedule).
        state_seed: Seeds the initial state and the noise inside the episode.
    """

    task: tuple[float, ...]
    change_seed: int
    state_seed: int


def file_name(env_id: str, split: str) -> str:
    """Name of a split's file: ``PointFwdBwd-v0.test.json``."""
    return f"{env_id.rpartition('/')[2]}.{split}.json"


@functools.cache
def load_episodes(env_id: str, split: str) -> tuple[Episode, ...]:
    """The frozen episodes of a split.

    Raises:
        ValueError: If there are none, or if the file is not the one that was frozen.
    """
    folder, name = files("m3po_envs") / "splits", file_name(env_id, split)
    lines = (folder / CHECKSUMS).read_text().splitlines()
    checksums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if name not in checksums:
        raise ValueError(f"no frozen episodes {name!r}; known: {', '.join(sorted(checksums))}")
    content = (folder / name).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != checksums[name]:
        raise ValueError(
            f"{name} has SHA-256 {found}, expected {checksums[name]}: the frozen episodes were "
            "edited, so scores would not be comparable; install the package again"
        )
    return tuple(
        Episode(tuple(episode["task"]), episode["change_seed"], episode["state_seed"])
        for episode in json.loads(content)["episodes"]
    )


def generate_episodes(tasks: TaskDistribution, n: int, seed: int) -> list[Episode]:
    """Draw episodes; finite tasks take turns, so that every even-sized start is balanced."""
    rng = np.random.default_rng(seed)
    turns = len(tasks) if isinstance(tasks, FiniteTasks) else 0
    episodes = []
    for i in range(n):
        task = tasks.parse(i % turns) if turns else tasks.sample(rng)
        change_seed, state_seed = (int(x) for x in rng.integers(2**32, size=2))
        episodes.append(Episode(task.params, change_seed, state_seed))
    return episodes


def split_content(env_class: type[MetaEnvBase], split: str) -> bytes:
    """The bytes of a split's file, as they are frozen."""
    env_id, tasks = env_class.env_id, env_class.distributions["train" if split == "test" else split]
    digest = hashlib.sha256(f"{env_id} {split}".encode()).digest()
    episodes = generate_episodes(tasks, N_EPISODES[split], int.from_bytes(digest[:4], "big"))
    rows = [
        json.dumps({"task": e.task, "change_seed": e.change_seed, "state_seed": e.state_seed})
        for e in episodes
    ]
    head = json.dumps({"env": env_id, "split": split, "names": tasks.names})[:-1]
    return (head + ', "episodes": [\n' + ",\n".join(rows) + "\n]}\n").encode()


def write_splits(folder: Path) -> None:
    """Write every env's splits and the checksums, in the format of ``sha256sum``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for entry_point in ENTRY_POINTS.values():
        module, _, attribute = entry_point.partition(":")
        env_class: Any = getattr(importlib.import_module(module), attribute)
        for split in ("test", "ood") if "ood" in env_class.distributions else ("test",):
            name, content = file_name(env_class.env_id, split), split_content(env_class, split)
            (folder / name).write_bytes(content)
            lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (folder / CHECKSUMS).write_text("".join(sorted(lines, key=lambda line: line[66:])))


if __name__ == "__main__":
    write_splits(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "splits")
