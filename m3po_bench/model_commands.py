"""What the commands about single models take and do; ``cli`` parses."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from m3po_bench.leaderboard.grid import Budget, RunSpec, SuiteError, Variant, check_envs, env_id
from m3po_bench.registry import agent_spec


@dataclass(frozen=True)
class Train:
    """Train one agent on one env and save the model.

    Try:
      m3po-bench train --agent M3PO --env PointFwdBwd --steps 3000 --preset quick --out m3po.zip
    """

    agent: str
    """A registered agent."""
    env: str
    """An env's id or short name."""
    steps: int
    """Env steps."""
    out: Path
    """Where the model is saved; what it is, is written beside it as JSON."""
    seed: int = 0
    """Seeds networks, env and sampling."""
    preset: str = "default"
    """default, lite, quick or tiny."""
    schedule: str = "hazard"
    """When the task changes."""
    quiet: bool = False
    """No progress."""

    def execute(self) -> int:
        """Train; see the class."""
        from m3po_bench.leaderboard.model_files import train_model

        agent_spec(self.agent)
        spec = RunSpec(
            env=env_id(self.env),
            schedule=self.schedule,
            agent=self.agent,
            variant=Variant(self.agent),
            budget=Budget(self.steps, preset=self.preset, checkpoints=1),
            seed=self.seed,
        )
        check_envs([spec.env], [spec.schedule])
        # SB3 adds a suffix where there is none; the note beside the model must agree.
        path = self.out if self.out.suffix else self.out.with_suffix(".zip")
        train_model(spec, path, progress_bar=not self.quiet and sys.stderr.isatty())
        print(path)
        return 0


@dataclass(frozen=True)
class Eval:
    """Play the frozen test episodes with a saved model.

    Try:
      m3po-bench eval m3po.zip
      m3po-bench eval m3po.zip --schedule static --episodes 10 --json
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL.zip")]
    """A model saved by `m3po-bench train`."""
    agent: str = ""
    """The agent, if nothing written beside the model says so."""
    env: str = ""
    """Another env than it was trained on."""
    schedule: str = ""
    """Another schedule than it was trained under."""
    episodes: int = 0
    """How many test episodes; 0 means all."""
    json: bool = False
    """Print one JSON object instead of text."""

    def execute(self) -> int:
        """Evaluate; see the class."""
        from m3po_bench.leaderboard.model_files import play_model, saved_spec

        if self.episodes < 0:
            raise SuiteError(f"--episodes {self.episodes}: expected 1 or more, or 0 for all")
        asked = {"agent": self.agent, "env": env_id(self.env) if self.env else "",
                 "schedule": self.schedule}  # fmt: skip
        spec = saved_spec(self.model, {key: value for key, value in asked.items() if value})
        agent_spec(spec["agent"])
        check_envs([spec["env"]], [spec["schedule"]])
        episodes = play_model(self.model, spec, self.episodes)
        returns = {episode.index: episode.total for episode in episodes}
        mean = sum(returns.values()) / len(returns)
        if self.json:
            print(json.dumps({**spec, "return_mean": mean, "returns": list(returns.values())}))
            return 0
        for index, value in returns.items():
            print(f"episode {index:3}  return {value:10.2f}")
        print(f"mean of {len(returns)}   return {mean:10.2f}")
        return 0
