"""A torch-free agent and a tiny env, offered as a plugin: what the harness is tested with.

Env variables name folders: in ``TOY_PIDS`` every learning process leaves its id; in ``TOY_FAULTS``
it finds, and removes, a fault to suffer (see ``Fault``); in ``TOY_ALONE`` it says if another one
makes the same run at the same time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from m3po_bench.registry import AgentSpec, register_agent, unknown_name

ENV = "Toy/Line-v0"
HORIZON = 10
N_EPISODES = 6
Array = NDArray[Any]


class LineEnv(gym.Env[Array, Array]):
    """Reward is minus the distance of the action from a target, which episodes differ in."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, schedule: str = "hazard", split: str = "train", told: bool = False) -> None:
        if schedule not in ("hazard", "static"):
            raise unknown_name("schedule", schedule, ("hazard", "static"))
        self.split, self.told = split, told
        self.episodes = tuple(range(N_EPISODES)) if split == "test" else ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        index = (options or {}).get("episode", int(self.np_random.integers(N_EPISODES)))
        self.target, self.t = 0.1 * index, 0
        # Episodes end at different times, so that copies must be masked out.
        self.length = HORIZON - index
        return self._obs(), self._info()

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.t += 1
        reward = -abs(float(action[0]) - self.target)
        return self._obs(), reward, False, self.t >= self.length, self._info()

    def _obs(self) -> Array:
        return np.asarray([self.t, self.target if self.told else 0.0], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"task_id": 0, "task_changed": 0, "steps_since_change": self.t, "n_changes": 0}


class ToyAgent:
    """Tries random actions and keeps the best; memory counts the steps of an episode."""

    def __init__(
        self, policy: str, env: Any, seed: int | None = None, pause: float = 0.0, **options: Any
    ) -> None:
        self.env, self.pause, self.options = env, pause, options
        self.rng = np.random.default_rng(seed)
        self.seed, self.num_timesteps = seed, 0
        self.checkpoint_due: Path | None = None
        self.best, self.best_reward = np.zeros(1, np.float32), -np.inf

    @property
    def exact_resume(self) -> bool:
        return bool(self.options.get("exact_resume", False))

    def resume(self, path: Path) -> ToyAgent:
        found = json.loads(path.read_text())
        self.num_timesteps = found["step"]
        self.best, self.best_reward = np.asarray(found["best"], np.float32), found["best_reward"]
        self._begin_anew()
        return self

    def _begin_anew(self) -> None:
        self.rng = np.random.default_rng([self.seed or 0, self.num_timesteps])
        self.env.reset(seed=self.num_timesteps)

    def _keep(self, path: Path) -> None:
        found = {"step": self.num_timesteps, "best": self.best.tolist()}
        path.write_text(json.dumps({**found, "best_reward": self.best_reward}))
        self.checkpoint_due = None
        self._begin_anew()

    def learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True
    ) -> ToyAgent:
        if folder := os.environ.get("TOY_PIDS"):
            Path(folder, str(os.getpid())).touch()
        self._check_alone()
        fault = Fault.take()
        self.hoard = bytearray(self.options.get("hoard_mb", 0) << 20)
        if reset_num_timesteps:
            self.env.reset(seed=self.seed)
        limit = self.options.get("stop_at", self.num_timesteps + total_timesteps)
        while self.num_timesteps < limit:
            action = self.rng.uniform(-1, 1, 1).astype(np.float32)
            _, reward, _, truncated, _ = self.env.step(action)
            if reward > self.best_reward:
                self.best, self.best_reward = action, reward
            if truncated:
                self.env.reset()
            self.num_timesteps += 1
            if self.num_timesteps == self.options.get("fail_at"):
                raise ArithmeticError("the toy broke")
            if self.num_timesteps == fault.step:
                fault.strike(self)
            time.sleep(self.pause)
            dones = [truncated]
            if callback is not None and not callback(locals(), globals()):
                break
            if self.checkpoint_due is not None:
                self._keep(self.checkpoint_due)
        return self

    def predict(
        self,
        observation: Array,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        time.sleep(self.options.get("predict_pause", 0.0))
        count = np.zeros(len(observation)) if state is None else state
        count = np.where(episode_start, 0, count) + 1
        wrong = float(self.options.get("predict_plus", 0.0))
        return (self.best + wrong + 0.01 * count[:, None]).astype(np.float32), count

    def diagnostics(self, episodes: list[Any]) -> dict[str, float]:
        return {"episodes_seen": len(episodes), "not_measured": float("nan")}

    def save(self, path: Path) -> None:
        padding = " " * self.options.get("model_bytes", 0)
        path.write_text(json.dumps({"best": float(self.best[0])}) + padding)

    @classmethod
    def load(cls, path: Path, env: Any = None) -> ToyAgent:
        model = cls("", env)
        model.best = np.asarray([json.loads(path.read_text())["best"]], np.float32)
        return model

    def _check_alone(self) -> None:
        """The system's own lock, which a dead process never holds, is the judge of ours."""
        folder = os.environ.get("TOY_ALONE")
        if not folder:
            return
        judge = os.open(Path(folder, f"{self.pause}-{self.seed}"), os.O_CREAT | os.O_RDWR)
        for _ in range(50):  # an orphan has a moment to die
            try:
                fcntl.flock(judge, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the process ends
                return
            except BlockingIOError:
                time.sleep(0.02)
        Path(folder, f"overlap-{os.getpid()}").touch()


class Fault(NamedTuple):
    """What happens to a learning process, and at which step: a file named ``kind-step-number``."""

    kind: str
    step: int

    @classmethod
    def take(cls) -> Fault:
        """One that waits, which no other process then gets."""
        folder = os.environ.get("TOY_FAULTS")
        for path in sorted(Path(folder).iterdir()) if folder else []:
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            kind, step, _ = path.name.split("-")
            return cls(kind, int(step))
        return cls("", 0)

    def strike(self, agent: ToyAgent) -> None:
        """Happen."""
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "raise":
            raise ArithmeticError("the toy broke")
        elif self.kind == "nan":
            agent.options["predict_plus"] = float("nan")
        elif self.kind == "full":  # from now on the kernel tells this process that no space is left
            usual = Path.open

            def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
                return usual(path if "r" in mode else Path("/dev/full"), mode, *args, **kwargs)

            Path.open = full  # type: ignore[method-assign, assignment]


TOY = AgentSpec("Toy", "toy_bench:ToyAgent", presets={"default": {"pause": 0.0}})
AGENTS = (
    TOY,
    AgentSpec("ToySlow", "toy_bench:ToyAgent", presets={"default": {"pause": 0.02}}),
    AgentSpec("ToyFails", "toy_bench:ToyAgent", presets={"default": {"fail_at": 20}}),
    AgentSpec("ToyLazy", "toy_bench:ToyAgent", presets={"default": {"stop_at": 20}}),
    AgentSpec("ToyHoards", "toy_bench:ToyAgent", presets={"default": {"hoard_mb": 600}}),
    AgentSpec("ToyLarge", "toy_bench:ToyAgent", presets={"default": {"model_bytes": 10**6}}),
    AgentSpec("ToyTold", "toy_bench:ToyAgent", env_kwargs={"told": True}, privileges=("target",)),
)


def register() -> None:
    if ENV not in gym.registry:
        gym.register(ENV, entry_point="toy_bench:LineEnv")
    for spec in AGENTS:
        register_agent(spec)


SUITE = SimpleNamespace(
    text="""\
name = "toys"
envs = ["Toy/Line-v0"]
schedule = "hazard"
agents = ["ToySlow", "Toy"]
seeds = 2
steps = 60
checkpoints = 3
eval_episodes = 2
""",
    runs=4,
)
