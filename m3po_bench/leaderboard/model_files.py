"""Single models: train one, save it with a note of what it is, evaluate it later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym

from m3po_bench.leaderboard.evaluation import Episode, evaluate
from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.settings import make_envs
from m3po_bench.leaderboard.store import RUN, read_json, write_atomically
from m3po_bench.registry import agent_spec, make_agent


def train_model(spec: RunSpec, path: Path, progress_bar: bool = False) -> None:
    """Train one agent on one env and save it, with a JSON note of what it is beside it."""
    env = gym.make(spec.env, split="train", **spec.env_kwargs)
    model = make_agent(spec.agent, env, preset=spec.budget.preset, seed=spec.seed)
    # Only asked for where it is wanted: an agent of somebody else may not have it.
    shown = {"progress_bar": True} if progress_bar else {}
    model.learn(total_timesteps=spec.budget.steps, **shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    note = {"agent": spec.agent, "env": spec.env, "schedule": spec.schedule, "seed": spec.seed,
            "steps": spec.budget.steps, "preset": spec.budget.preset}  # fmt: skip
    write_atomically(_note(path), json.dumps(note, indent=2) + "\n")


def saved_spec(path: Path, asked: Mapping[str, str]) -> dict[str, str]:
    """Agent, env and schedule of a saved model: what is asked for, else what its note says.

    The note of a run's model is the run's record.

    Raises:
        SuiteError: If there is no such model, or nothing says which agent or env it is for.
    """
    if not path.is_file():
        raise SuiteError(f"no model at {path}; make one with: m3po-bench train")
    found = read_json(_note(path)) or read_json(path.with_name(RUN)) or {}
    if "registered_as" in found:  # the leaderboard may call it by another name
        found["agent"] = found["registered_as"]
    note = {"schedule": "hazard", **found, **asked}
    for key in ("agent", "env"):
        if key not in note:
            raise SuiteError(f"nothing beside {path} says which {key} it is for; give --{key}")
    return {key: str(note[key]) for key in ("agent", "env", "schedule")}


def play_model(path: Path, spec: Mapping[str, str], n_episodes: int = 0) -> list[Episode]:
    """The frozen test episodes, played by a saved model.

    Args:
        path: A saved model.
        spec: Its agent, env and schedule, from ``saved_spec``.
        n_episodes: How many; 0 means all.
    """
    agent = agent_spec(spec["agent"])
    envs = make_envs(spec["env"], {**agent.env_kwargs, "schedule": spec["schedule"]})
    available = len(envs[0].get_wrapper_attr("episodes"))
    model = agent.load_class().load(path)
    return evaluate(model, envs, range(min(n_episodes or available, available)))


def _note(path: Path) -> Path:
    return path.with_suffix(".json")
