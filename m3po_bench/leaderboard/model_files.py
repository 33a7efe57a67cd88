"""Single models: train one, save it with a note of what it is, evaluate it later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from m3po_bench.leaderboard.evaluation import Episode, evaluate
from m3po_bench.leaderboard.files import read_json, write_atomically
from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.settings import make_envs, n_episodes
from m3po_bench.leaderboard.store import RUN
from m3po_bench.registry import agent_spec, make_agent

_NOTE: dict[str, type] = {
    "agent": str, "env": str, "schedule": str, "seed": int, "preset": str, "config": dict,
    "registered_as": str,
}  # fmt: skip
_KINDS: dict[type, str] = {str: "text", int: "a whole number", dict: "an object"}


def train_model(spec: RunSpec, path: Path, progress_bar: bool = False) -> None:
    """Train one agent on one env and save it, with a JSON note of what it is beside it."""
    env = gym.make(spec.env, split="train", **spec.env_kwargs)
    model = make_agent(spec.agent, env, preset=spec.budget.preset, seed=spec.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only asked for where it is wanted: an agent of somebody else may not have it.
    shown = {"progress_bar": True} if progress_bar else {}
    model.learn(total_timesteps=spec.budget.steps, **shown)
    model.save(path)
    note = {"agent": spec.agent, "env": spec.env, "schedule": spec.schedule, "seed": spec.seed,
            "steps": spec.budget.steps, "preset": spec.budget.preset}  # fmt: skip
    write_atomically(note_path(path), json.dumps(note, indent=2) + "\n")


def note_path(path: Path) -> Path:
    """Where a model's note is."""
    return path.with_suffix(".json")


def read_note(path: Path) -> dict[str, Any]:
    """What is written beside a saved model, which of a run's model is the run's record.

    Raises:
        SuiteError: If there is no such model, or its note is not what it should be.
    """
    if not path.is_file():
        raise SuiteError(f"no model at {path}; make one with: m3po-bench train")
    for file in (note_path(path), path.with_name(RUN)):
        try:
            note = read_json(file)
        except (IsADirectoryError, ValueError, RecursionError):
            raise SuiteError(f"{file}: not JSON; expected an object that tells of {path}") from None
        if note is None:
            continue
        if not isinstance(note, dict):
            raise SuiteError(f"{file}: expected an object that tells of {path}")
        for key, kind in _NOTE.items():
            if key in note and type(note[key]) is not kind:
                said = repr(note[key])[:40]
                raise SuiteError(f"{file}: {key} = {said}, expected {_KINDS[kind]}")
        return note
    return {}


def saved_spec(path: Path, asked: Mapping[str, str]) -> dict[str, str]:
    """Agent, env and schedule of a saved model: what is asked for, else what its note says.

    Raises:
        SuiteError: As ``read_note``, or if nothing says which agent or env it is for.
    """
    found = read_note(path)
    if "registered_as" in found:  # the leaderboard may call it by another name
        found["agent"] = found["registered_as"]
    note = {"schedule": "hazard", **found, **asked}
    for key in ("agent", "env"):
        if key not in note:
            raise SuiteError(f"nothing beside {path} says which {key} it is for; give --{key}")
    return {key: note[key] for key in ("agent", "env", "schedule")}


def load_model(agent: str, path: Path) -> Any:
    """A saved model.

    Raises:
        SuiteError: If it cannot be loaded as this agent.
        UnknownNameError: If there is no such agent.
    """
    cls = agent_spec(agent).load_class()
    try:
        return cls.load(path)
    except Exception as error:  # whatever a class makes of a file that is not its own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SuiteError(f"{path} cannot be loaded as {agent}: {reason}") from error


def play_model(path: Path, spec: Mapping[str, str]) -> list[Episode]:
    """The frozen test episodes, played by a saved model.

    Args:
        path: A saved model.
        spec: Its agent, env and schedule, from ``saved_spec``.
    """
    agent = agent_spec(spec["agent"])
    envs = make_envs(spec["env"], {**agent.env_kwargs, "schedule": spec["schedule"]})
    return evaluate(load_model(spec["agent"], path), envs, range(n_episodes(envs)))
