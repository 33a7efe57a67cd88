"""The per-step trace that a run leaves; a room of its own, because short runs do without pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3po_bench.leaderboard.evaluation import Episode
from m3po_bench.leaderboard.store import TRACE


def trace_columns(episodes: Sequence[Episode]) -> dict[str, NDArray[Any]]:
    """One row a step: episode, step, reward, task_id, steps_since_change, terminated."""
    lengths = [len(episode.rewards) for episode in episodes]
    terminated = np.zeros(sum(lengths), dtype=bool)
    terminated[np.cumsum(lengths) - 1] = [episode.terminated for episode in episodes]
    return {
        "episode": np.repeat([episode.index for episode in episodes], lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
        "reward": np.concatenate([episode.rewards for episode in episodes]),
        "task_id": np.concatenate([episode.task_ids for episode in episodes]),
        "steps_since_change": np.concatenate([e.steps_since_change for e in episodes]),
        "terminated": terminated,
    }


def write_trace(folder: Path, episodes: Sequence[Episode]) -> None:
    """Write ``trace.parquet`` into a run's folder."""
    import pyarrow as pa
    from pyarrow import parquet

    temporary = folder / f".{TRACE}"
    parquet.write_table(pa.table(trace_columns(episodes)), temporary, compression="zstd")
    temporary.replace(folder / TRACE)
