"""Playing frozen test episodes: several env copies step side by side, one batch predicts."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

COPIES = 40
"""Most env copies that are stepped side by side."""


@dataclass(frozen=True)
class Episode:
    """What happened in one test episode of T steps.

    Attributes:
        index: Its place in the split's frozen list.
        observations: Shape (T + 1, obs_dim), with every wrapper's columns.
        actions: Shape (T, action_dim), as given to the env.
        rewards: Shape (T,).
        task_ids: The task in force in each step, shape (T,).
        tasks: Its values, shape (T, n_params); without columns where the env does not tell.
        steps_since_change: Steps since its task began, at each step, shape (T,).
        n_changes: Changes of the task within the episode.
        reported: What the env reports in each step (see ``reported_by``), by name, shape (T,).
        terminated: Whether the env ended it, as after a fall, and not its time limit.
    """

    index: int
    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    task_ids: NDArray[np.int64]
    tasks: NDArray[np.float64]
    steps_since_change: NDArray[np.int64]
    n_changes: int
    reported: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    terminated: bool = False

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(self.rewards.sum())


@dataclass
class _Recording:
    """An episode being played."""

    index: int
    observations: list[Any]
    info: dict[str, Any]
    reported: dict[str, list[float]]
    actions: list[Any] = field(default_factory=list)
    steps: list[tuple[float, int, Any, int]] = field(default_factory=list)

    def add(self, action: Any, obs: Any, reward: float, info: dict[str, Any]) -> None:
        # An info describes the task of the NEXT step, so this step's is the one before.
        before = self.info
        self.steps.append(
            (reward, before["task_id"], before.get("task", ()), before["steps_since_change"])
        )
        for name, values in self.reported.items():
            values.append(float(info[name]))
        self.actions.append(np.array(action))
        self.observations.append(np.array(obs))
        self.info = info

    def finish(self, terminated: bool) -> Episode:
        columns = zip(*self.steps, strict=True)
        rewards, task_ids, tasks, since = (np.asarray(column) for column in columns)
        return Episode(
            index=self.index,
            observations=np.stack(self.observations),
            actions=np.stack(self.actions),
            rewards=rewards.astype(np.float64),
            task_ids=task_ids.astype(np.int64),
            tasks=tasks.astype(np.float64),
            steps_since_change=since.astype(np.int64),
            n_changes=int(self.info["n_changes"]),
            reported={name: np.asarray(values) for name, values in self.reported.items()},
            terminated=terminated,
        )


def evaluate(
    model: Any, envs: Sequence[gym.Env[Any, Any]], episodes: Sequence[int]
) -> list[Episode]:
    """Play frozen test episodes with deterministic actions.

    Every episode starts with an empty memory (``episode_start`` is true), so the result does not
    depend on how many copies play.

    Args:
        model: Anything with Stable-Baselines3's ``predict``.
        envs: Copies of one env, each on its own; ``reset(options={"episode": i})`` must play the
            i-th frozen episode.
        episodes: Which episodes to play.

    Returns:
        The episodes in the order of ``episodes``.
    """
    waiting = list(reversed(episodes))
    envs = envs[: len(waiting)]
    playing: list[_Recording | None] = [_begin(env, waiting.pop()) for env in envs]
    observations = np.stack([recording.observations[0] for recording in playing if recording])
    starts = np.ones(len(envs), dtype=bool)
    state: Any = None
    done: dict[int, Episode] = {}
    while any(playing):
        actions, state = model.predict(
            observations, state=state, episode_start=starts, deterministic=True
        )
        starts = np.zeros(len(envs), dtype=bool)
        for i, (env, recording) in enumerate(zip(envs, playing, strict=True)):
            if recording is None:
                continue
            obs, reward, terminated, truncated, info = env.step(actions[i])
            recording.add(actions[i], obs, float(reward), info)
            if terminated or truncated:
                done[recording.index] = recording.finish(bool(terminated))
                if waiting:
                    recording = _begin(env, waiting.pop())
                    obs, starts[i] = recording.observations[0], True
                    playing[i] = recording
                else:
                    playing[i] = None
            observations[i] = obs
    return [done[index] for index in episodes]


def reported_by(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """Names of numbers in a step's ``info`` that an env wants reported beside the return.

    They are its attribute ``reported``; an env without has none.
    """
    return tuple(env.get_wrapper_attr("reported")) if env.has_wrapper_attr("reported") else ()


def _begin(env: gym.Env[Any, Any], index: int) -> _Recording:
    obs, info = env.reset(options={"episode": int(index)})
    return _Recording(index, [np.array(obs)], info, {name: [] for name in reported_by(env)})


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Global random generators start from ``seed`` inside, and go on as before afterwards.

    Agents that sample while they predict would else make training depend on when it is
    evaluated. Torch is left alone where nobody has imported it.
    """
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch_before = torch.get_rng_state() if torch else None
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(torch_before)
