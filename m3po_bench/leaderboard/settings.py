"""In which settings a trained agent is examined: online and K-shot, on test and ood episodes.

*Online*: one episode, memory empty at its start, the task changes by the suite's schedule.
*Unseen*: the same, but the task changes by a schedule that the agent has not learnt under.
*K-shot*: a trial of three episodes in one task, memory kept between them; the one after K others
counts. It is always played under ``episodic``, whatever the suite's schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from m3po_bench.leaderboard.evaluation import COPIES, Episode
from m3po_bench.wrappers import FIRST_STEP, TrialWrapper, layout_of

ONLINE, UNSEEN = "online", "unseen"
TRIAL_EPISODES = 3
SHOTS = tuple(f"{k}-shot" for k in range(TRIAL_EPISODES))
SETTINGS = (ONLINE, UNSEEN, *SHOTS)
TEST, OOD = "test", "ood"
PLAYED = ((ONLINE, TEST), (ONLINE, OOD), (UNSEEN, TEST), *((shot, TEST) for shot in SHOTS))
"""Settings and splits that go together; all but the first at the last checkpoint only."""

TRIAL = "trial"
"""What the settings ``SHOTS`` are played as."""

TRIAL_SCHEDULE = "episodic"

Envs = list[gym.Env[Any, Any]]


class Row(NamedTuple):
    """What one episode of one setting earned.

    Attributes:
        setting: Of ``SETTINGS``.
        split: ``test`` or ``ood``.
        episode: Its index in the split's frozen list.
        total: Its return.
        length: Its env steps.
        n_changes: Changes of the task within it.
        reported: Means over its steps, in the order of ``evaluation.reported_by``.
    """

    setting: str
    split: str
    episode: int
    total: float
    length: int
    n_changes: int
    reported: tuple[float, ...]


def make_envs(env_id: str, env_kwargs: Mapping[str, Any], split: str = TEST) -> Envs:
    """Copies of an env's test or ood split, no more than it has episodes."""
    first = gym.make(env_id, split=split, **env_kwargs)
    copies = min(COPIES, n_episodes([first]))
    return [first, *(gym.make(env_id, split=split, **env_kwargs) for _ in range(copies - 1))]


def unseen_schedule(schedule: str) -> str:
    """The schedule of the setting ``UNSEEN``, for an agent that has learnt under another."""
    return "periodic" if schedule != "periodic" else "hazard"


def n_episodes(envs: Sequence[gym.Env[Any, Any]]) -> int:
    """Frozen episodes of the envs' split."""
    return len(envs[0].get_wrapper_attr("episodes"))


def make_further_envs(
    env_id: str, env_kwargs: Mapping[str, Any], like: gym.Env[Any, Any]
) -> list[tuple[str, str, Envs]]:
    """What is played after the final checkpoint's online test episodes: setting, split, envs.

    Args:
        env_id: Registered id.
        env_kwargs: Arguments besides the split.
        like: One of the test envs: what it does not offer is left out.
    """
    found = []
    if like.has_wrapper_attr("distributions") and OOD in like.get_wrapper_attr("distributions"):
        found.append((ONLINE, OOD, make_envs(env_id, env_kwargs, OOD)))
    if like.has_wrapper_attr("first_task"):
        other = {**env_kwargs, "schedule": unseen_schedule(env_kwargs["schedule"])}
        found.append((UNSEEN, TEST, make_envs(env_id, other)))
        episodic = {**env_kwargs, "schedule": TRIAL_SCHEDULE}
        trials = [TrialWrapper(env, TRIAL_EPISODES) for env in make_envs(env_id, episodic)]
        found.append((TRIAL, TEST, list(trials)))
    return found


def rows_of(episode: Episode, env: gym.Env[Any, Any], setting: str, split: str) -> list[Row]:
    """One row for an episode, or one for each episode of a trial.

    Args:
        episode: What ``env`` has played.
        env: The env; for a ``TRIAL`` its ``TrialWrapper``.
        setting: ``ONLINE``, ``UNSEEN`` or ``TRIAL``.
        split: The env's.
    """
    is_trial = setting == TRIAL
    starts = []
    if is_trial:
        first = episode.observations[:-1, layout_of(env).columns(FIRST_STEP)[0]] > 0.5
        starts = np.flatnonzero(first)[1:].tolist()
    reported = np.array([*episode.reported.values()]).reshape(-1, len(episode.rewards))
    return [
        Row(
            name, split, episode.index, float(rewards.sum()), len(rewards),
            0 if is_trial else episode.n_changes, tuple(values.mean(axis=1).tolist()),
        )
        for name, rewards, values in zip(
            SHOTS if is_trial else (setting,),
            np.split(episode.rewards, starts),
            np.split(reported, starts, axis=1),
            strict=True,
        )
    ]  # fmt: skip
