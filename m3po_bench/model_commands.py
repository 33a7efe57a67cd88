"""What the commands about single models take and do; ``cli`` parses."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
from tyro.conf import Positional, arg

from m3po_bench import film, zoo
from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import Budget, RunSpec, SuiteError, Variant, check_envs
from m3po_bench.leaderboard.places import check_file, check_folder
from m3po_bench.leaderboard.store import MODEL, RUN
from m3po_bench.registry import agent_spec, env_id, short_name

ZOO = Path("results/zoo")
"""Where agents are exported to by default, in the current folder."""

_SEEDS = 2**32
"""How many seeds NumPy has."""


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
        from m3po_bench.leaderboard.model_files import note_path, train_model

        agent_spec(self.agent)
        if not 0 <= self.seed < _SEEDS:
            raise SuiteError(f"--seed {self.seed}: expected 0 to {_SEEDS - 1}")
        spec = RunSpec(
            env=env_id(self.env),
            schedule=self.schedule,
            agent=self.agent,
            variant=Variant(self.agent),
            budget=Budget(self.steps, preset=self.preset, checkpoints=1),
            seed=self.seed,
        )
        check_envs([spec.env], [spec.schedule])
        # SB3 adds this suffix where there is none; the note beside the model has another.
        path = self.out if self.out.suffix else self.out.with_suffix(".zip")
        if path.suffix != ".zip":
            raise SuiteError(f"--out {path}: expected a name that ends in .zip")
        for file in (path, note_path(path)):
            check_file(file)
        train_model(spec, path, progress_bar=not self.quiet and sys.stderr.isatty())
        print(path)
        return 0


@dataclass(frozen=True)
class Eval:
    """Play the frozen test episodes with a saved model.

    Try:
      m3po-bench eval m3po.zip
      m3po-bench eval m3po.zip --schedule static --episodes 10 --json
      m3po-bench eval results/zoo/PointFwdBwd-hazard/M3PO
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL.zip|FOLDER")]
    """A model saved by `m3po-bench train`, or the folder of a run or of a zoo's agent."""
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
        from m3po_bench.leaderboard.evaluation import evaluate
        from m3po_bench.leaderboard.settings import make_envs, n_episodes

        if self.episodes < 0:
            raise SuiteError(f"--episodes {self.episodes}: expected 1 or more, or 0 for all")
        player = _Player.of(self.model, self.agent, self.env, self.schedule)
        envs = make_envs(player.env, player.env_kwargs)
        if self.episodes > (available := n_episodes(envs)):
            raise SuiteError(
                f"--episodes {self.episodes}: {player.env} has {available} test episodes; expected "
                "no more, or 0 for all"
            )
        played = evaluate(player.load(), envs, range(self.episodes or available))
        returns = {episode.index: episode.total for episode in played}
        mean = sum(returns.values()) / len(returns)
        if self.json:
            spec = {"agent": player.agent, "env": player.env, "schedule": player.schedule}
            print(json.dumps({**spec, "return_mean": mean, "returns": list(returns.values())}))
            return 0
        for index, value in returns.items():
            print(f"episode {index:3}  return {value:10.2f}")
        print(f"mean of {len(returns)}   return {mean:10.2f}")
        return 0


@dataclass(frozen=True)
class Play:
    """Show a frozen test episode, played by a saved model, as a film.

    Try:
      m3po-bench play m3po.zip
      m3po-bench play results/zoo/PointFwdBwd-hazard/M3PO --episode 3 --out point.gif
      MUJOCO_GL=egl m3po-bench play cheetah.zip --schedule recurrent --out cheetah.mp4
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL.zip|FOLDER")]
    """A model saved by `m3po-bench train`, or the folder of a run or of a zoo's agent."""
    out: Path = Path("episode.gif")
    """The film, .gif or .mp4."""
    episode: int = 0
    """Which test episode."""
    agent: str = ""
    """The agent, if nothing written beside the model says so."""
    env: str = ""
    """Another env than it was trained on."""
    schedule: str = ""
    """Another schedule than it was trained under."""

    def execute(self) -> int:
        """Play; see the class."""
        film.check_format(self.out.suffix)
        check_file(self.out)
        player = _Player.of(self.model, self.agent, self.env, self.schedule)
        film.check_drawing(player.env)
        shown = film.film(player.load(), player.env, player.env_kwargs, self.episode)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out, shown.encoded(self.out.suffix))
        print(f"{self.out}: episode {self.episode}, return {shown.total:.2f}")
        return 0


@dataclass(frozen=True)
class Export:
    """Bring a trained agent into a zoo: weights as safetensors, the rest as JSON, no pickles.

    `m3po_bench.load_pretrained` loads it. What is written is loaded once, and refused unless it
    predicts as the model does.

    Try:
      m3po-bench export results/runs/quick/PointFwdBwd-hazard/M3PO/seed0
      m3po-bench export m3po.zip --out my_zoo
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL.zip|FOLDER")]
    """A model saved by `m3po-bench train`, or the folder of a finished run."""
    out: Path = ZOO
    """The zoo; the agent's folder in it is ENV-SCHEDULE/AGENT."""

    def execute(self) -> int:
        """Export; see the class."""
        from m3po_bench.leaderboard.model_files import load_model, read_note

        path = _model_file(self.model)
        record = read_note(path)
        missing = [key for key in ("agent", "env", "schedule", "seed") if key not in record]
        if missing:
            raise SuiteError(
                f"nothing beside {path} says its {missing[0]}; expected the {RUN} of "
                "`m3po-bench run`, or the note of `m3po-bench train`"
            )
        config = record.get("config", {})
        agent = record.get("registered_as", record["agent"])
        preset = config.get("preset", record.get("preset", "default"))
        spec = agent_spec(agent)
        kept = ("config_hash", "env_steps", "steps", "commit", "versions")
        recipe = zoo.Recipe(
            agent, record["env"], record["schedule"], record["seed"], preset,
            config.get("kwargs", spec.kwargs(preset)),
            origin={"name": record["agent"], **{k: record[k] for k in kept if k in record}},
        )  # fmt: skip
        folder = self.out / f"{short_name(recipe.env)}-{recipe.schedule}" / record["agent"]
        check_folder(folder)
        zoo.export(load_model(agent, path), recipe, folder)
        print(folder)
        return 0


@dataclass(frozen=True)
class _Player:
    """A model and what it is to play."""

    path: Path
    agent: str
    env: str
    schedule: str

    @classmethod
    def of(cls, path: Path, agent: str, env: str, schedule: str) -> _Player:
        """A saved model or a zoo's agent; what is asked for goes before what is written."""
        from m3po_bench.leaderboard.model_files import saved_spec

        asked = {"agent": agent, "env": env_id(env) if env else "", "schedule": schedule}
        asked = {key: value for key, value in asked.items() if value}
        path = _model_file(path)
        if path.is_dir():
            recipe = zoo.read_recipe(path)
            spec = {"env": recipe.env, "schedule": recipe.schedule, **asked, "agent": recipe.agent}
        else:
            spec = saved_spec(path, asked)
        agent_spec(spec["agent"])
        check_envs([spec["env"]], [spec["schedule"]])
        return cls(path, **spec)

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of its env, beside the split."""
        return {**agent_spec(self.agent).env_kwargs, "schedule": self.schedule}

    def load(self) -> Any:
        """The agent, which its env must fit."""
        from m3po_bench.leaderboard.model_files import load_model

        folder = self.path.is_dir()
        model = zoo.load(self.path) if folder else load_model(self.agent, self.path)
        env = gym.make(self.env, split="test", **self.env_kwargs)
        for name in ("observation_space", "action_space"):
            has, wants = getattr(model, name, None), getattr(env, name)
            if has is not None and has.shape != wants.shape:
                raise SuiteError(
                    f"{self.path} was trained with {name} {has.shape}; {self.env} has {wants.shape}"
                )
        return model


def _model_file(path: Path) -> Path:
    """The model of a run's folder, or of a name without its ``.zip``; any other path as it is."""
    if not path.exists() and (zipped := path.with_name(f"{path.name}.zip")).is_file():
        return zipped  # as ``train`` and SB3 write it
    if seeds := sorted(run.parent for run in path.glob(f"seed*/{RUN}")):
        raise SuiteError(f"{path} holds several runs; expected one of them, such as {seeds[0]}")
    if (path / RUN).is_file() and not (path / MODEL).exists():
        place = ZOO.joinpath(*path.resolve().parts[-3:-1])
        known = place if place.is_dir() else ZOO / "ENV-SCHEDULE" / "AGENT"
        raise SuiteError(
            f"no {MODEL} in {path}: published runs keep none; expected an agent of the zoo, "
            f"such as {known}"
        )
    return path / MODEL if (path / MODEL).is_file() else path
