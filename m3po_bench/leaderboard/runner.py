"""One run in one process: learn, evaluate at checkpoints, keep model and provenance.

``python -m m3po_bench.leaderboard.runner`` reads what to run from one line of JSON on standard
input and dies when that input is closed, which is to say: when its parent dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from m3po_bench.leaderboard import provenance
from m3po_bench.leaderboard.evaluation import (
    Episode,
    evaluate,
    isolated_randomness,
    reported_by,
)
from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import PROTOCOL, RunSpec
from m3po_bench.leaderboard.lock import Lock, LostLockError
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.provenance import Stopwatch
from m3po_bench.leaderboard.resuming import CHECKPOINT_EVERY, RunCheckpoint
from m3po_bench.leaderboard.run_log import RunLog
from m3po_bench.leaderboard.settings import (
    ONLINE,
    TEST,
    Envs,
    make_envs,
    make_further_envs,
    n_episodes,
    rows_of,
)
from m3po_bench.leaderboard.store import ERROR, PROGRESS, Store
from m3po_bench.leaderboard.supervision import DISK_FULL
from m3po_bench.leaderboard.trace_file import write_trace
from m3po_bench.registry import make_agent

EVALUATION_SEED = 20_000
"""Global random generators start evaluations of run ``seed`` from this plus ``seed``."""

_PROGRESS_EVERY = 0.5


@dataclass
class Run:
    """A run being made; ``execute`` makes it.

    Attributes:
        spec: What to run.
        store: Where its rows and its record go.
        options: Who else is told of its progress.
        checkpoint_every: Env steps between two checkpoints to resume from.
    """

    spec: RunSpec
    store: Store
    options: RunOptions = field(default_factory=RunOptions)
    checkpoint_every: int = CHECKPOINT_EVERY
    _learning: Stopwatch = field(default_factory=Stopwatch)
    _evaluation: Stopwatch = field(default_factory=Stopwatch)
    _resumed_at: list[int] = field(default_factory=list)
    _reported: float = 0.0
    _return: float = math.nan

    def execute(self) -> None:
        """Learn and evaluate, and write ``run.json`` as the last thing.

        Raises:
            RuntimeError: If the agent stops before its budget is used.
            FloatingPointError: If a return is not a finite number.
        """
        spec, budget = self.spec, self.spec.budget
        train_env = gym.make(spec.env, split="train", **spec.env_kwargs)
        self._test_envs = make_envs(spec.env, spec.env_kwargs)
        self._checkpoint = RunCheckpoint(self.store.folder(spec), spec, self.checkpoint_every)
        model = self._begin(train_env)
        log = RunLog.attach(model, spec, self.store.folder(spec), self.options)
        self._due = [
            due
            for i in range(1, budget.checkpoints)
            if (due := budget.steps * i // budget.checkpoints) > self._start
        ]
        _use_one_thread()
        training = self._learn(model, log)
        episodes = self._evaluate(model, budget.steps, budget.final_episodes)
        log.close(budget.steps, self._return)
        write_trace(self.store.folder(spec), episodes)
        for further in make_further_envs(spec.env, spec.env_kwargs, self._test_envs[0]):
            self._play(model, budget.steps, *further, budget.final_episodes)
        diagnostics = model.diagnostics(episodes) if hasattr(model, "diagnostics") else {}
        train_env.close()
        record = self._record(model, training, diagnostics)
        if any(episode.n_changes for episode in episodes):
            record |= self._digest(episodes)
        if hasattr(model, "save"):
            self.store.keep_model(spec, model.save)
        self.store.finish(spec, record)
        self._checkpoint.clear()

    def _begin(self, train_env: gym.Env[Any, Any]) -> Any:
        """The agent, new or as a checkpoint has it, and a folder that fits it."""

        def make() -> Any:
            kwargs = deepcopy(dict(self.spec.variant.kwargs))  # SB3 writes into policy_kwargs
            return make_agent(
                self.spec.variant.agent,
                train_env,
                preset=self.spec.budget.preset,
                seed=self.spec.seed,
                **kwargs,
            )

        model, note = self._checkpoint.take_over(make)
        if note is not None:
            self._learning = Stopwatch(**note["learning"])
            self._evaluation = Stopwatch(**note["evaluation"])
            self._resumed_at = [*note["resumed_at"], int(model.num_timesteps)]
        self.store.begin(self.spec, self._start, reported_by(self._test_envs[0]))
        return model

    @property
    def _start(self) -> int:
        """The env step that this attempt goes on from."""
        return self._resumed_at[-1] if self._resumed_at else 0

    def _learn(self, model: Any, log: RunLog) -> dict[str, float]:
        """Use the budget up; seconds of training, without those of evaluation."""

        def on_step(local: dict[str, Any], _globals: dict[str, Any]) -> bool:
            return self._on_step(model, local, log)

        left = self.spec.budget.steps - self._start
        # Only told to who knows it: an agent of somebody else's may not be resumable.
        goes_on = {"reset_num_timesteps": False} if self._resumed_at else {}
        with self._learning.running():
            model.learn(total_timesteps=left, callback=on_step, **goes_on)
        if model.num_timesteps < self.spec.budget.steps:
            raise RuntimeError(
                f"{self.spec.agent} stopped after {model.num_timesteps} of "
                f"{self.spec.budget.steps} environment steps"
            )
        if self._due:
            raise RuntimeError(
                f"{self.spec.agent} says that it has made {model.num_timesteps} environment steps, "
                f"but has not called its callback at {self._due[0]}: learn must call "
                "callback(locals(), globals()) after every step, and stop where it returns False"
            )
        spent, played = self._learning.seconds, self._evaluation.seconds
        return {clock: spent[clock] - played[clock] for clock in spent}

    def _on_step(self, model: Any, local: dict[str, Any], log: RunLog) -> bool:
        """Evaluate where a checkpoint is due; false once the budget is exceeded."""
        step = int(model.num_timesteps)
        while self._due and step >= self._due[0]:
            self._evaluate(model, self._due.pop(0), self.spec.budget.eval_episodes)
            log.add_return(step, self._return)
        self._checkpoint.look(model, local.get("dones", ()), self._note)
        self._show(step)
        return step <= self.spec.budget.steps

    def _note(self) -> dict[str, Any]:
        return {
            "learning": self._learning.seconds,
            "evaluation": self._evaluation.seconds,
            "resumed_at": self._resumed_at,
        }

    def _evaluate(self, model: Any, step: int, n: int) -> list[Episode]:
        episodes = self._play(model, step, ONLINE, TEST, self._test_envs, n)
        self._return = sum(episode.total for episode in episodes) / len(episodes)
        self._show(step, now=True)
        return episodes

    def _play(
        self, model: Any, step: int, setting: str, split: str, envs: Envs, n: int
    ) -> list[Episode]:
        """The first ``n`` frozen episodes of the envs' split, all for 0; their rows are stored."""
        self._show(step, now=True)
        wanted = range(min(n or n_episodes(envs), n_episodes(envs)))
        with self._evaluation.running(), isolated_randomness(EVALUATION_SEED + self.spec.seed):
            episodes = evaluate(model, envs, wanted)
        for episode in episodes:
            if not math.isfinite(episode.total):
                raise FloatingPointError(
                    f"{self.spec.agent} earned {episode.total} in {split} episode {episode.index} "
                    f"after {step:,} steps"
                )
        rows = [row for episode in episodes for row in rows_of(episode, envs[0], setting, split)]
        self.store.add_rows(self.spec, ((step, *row[:-1], *row.reported) for row in rows))
        return episodes

    def _digest(self, episodes: list[Episode]) -> dict[str, str]:
        """Keep what followed on changes, before the run's files are sealed; what to note of it."""
        # Only now: pandas and SciPy take longer to import than a run of a toy.
        from m3po_bench.leaderboard.references import load_references
        from m3po_bench.leaderboard.traces import write_digest

        known = load_references().get((self.spec.env, self.spec.schedule), {})
        return write_digest(self.store.folder(self.spec), self.spec.env, episodes, known)

    def _show(self, step: int, now: bool = False) -> None:
        if now or time.monotonic() > self._reported + _PROGRESS_EVERY:
            self._reported = time.monotonic()
            text = f"{step} {self._return}"
            write_atomically(self.store.folder(self.spec) / PROGRESS, text)

    def _record(
        self, model: Any, training: dict[str, float], diagnostics: dict[str, Any]
    ) -> dict[str, Any]:
        resumed = {"resumed_at": self._resumed_at} if self._resumed_at else {}
        return {
            "protocol": PROTOCOL,
            "env_steps": int(model.num_timesteps),
            **resumed,
            "training_seconds": training,
            "evaluation_seconds": self._evaluation.seconds,
            "peak_memory_mb": provenance.peak_memory_mb(),
            # JSON has no NaN: what could not be measured is left out.
            "diagnostics": {k: float(v) for k, v in diagnostics.items() if math.isfinite(v)},
            "versions": self._checkpoint.made_by["versions"],
            "commit": self._checkpoint.made_by["commit"],
            "cpu": provenance.cpu_model(),
            "threads": 1,
        }


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _die_with_parent() -> None:
    # The raw descriptor: a thread that blocks in sys.stdin would abort the interpreter's exit.
    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Make the run that standard input describes; 0 if it is complete, else it failed."""
    order = json.loads(sys.stdin.readline())
    # The parent decides what these end; Slurm sends all of them to every process of a job.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    lock = Lock(Path(order["lock"]["path"]), order["lock"]["term"])
    spec, store = RunSpec.from_dict(order["spec"]), Store(Path(order["root"]), lock)
    try:
        Run(spec, store, RunOptions(**order["options"])).execute()
    except LostLockError:
        return 1  # nothing here is ours any more
    except Exception as error:
        # Where the disk is full, neither of these need work.
        with contextlib.suppress(OSError):
            write_atomically(store.folder(spec) / ERROR, traceback.format_exc())
        with contextlib.suppress(OSError):
            traceback.print_exc()
        return DISK_FULL if _is_of_full_disk(error) else 1
    return 0


def _is_of_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    sys.exit(main())
