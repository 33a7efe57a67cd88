"""The one SB3 base of the agents that adapt: wrapping, learn loop, logging, what is saved.

A subclass says what its networks are (``_setup_model``), what it does with a step (``_store``)
and how it trains (``train``); nothing else.
"""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from m3po_bench.common.checkpoints import read_checkpoint, write_checkpoint
from m3po_bench.common.vec_wrappers import VecPreviousActionReward
from m3po_bench.common.warm_start import WarmStart
from m3po_bench.tasks import task_parameters
from m3po_bench.wrappers import (
    FIRST_STEP,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    ObservationLayout,
    check_flat,
    layout_of,
)

_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")

Array = NDArray[Any]
AgentState = tuple[Array, ...]


class VecStep(NamedTuple):
    """One step of every parallel env, in the layout of the wrapped observation.

    Attributes:
        obs: Shape (n_envs, width).
        action: In [-1, 1], shape (n_envs, action_dim).
        reward: Shape (n_envs,).
        next_obs: What followed, before any reset; shape (n_envs, width).
        terminated: Shape (n_envs,), bool; False where the episode was cut off by time.
        starts: Whether ``obs`` starts a sequence, with an empty memory; shape (n_envs,), bool.
        cut: Whether ``next_obs`` begins another inner episode of the same trial; (n_envs,), bool.
    """

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array
    starts: Array
    cut: Array

    def tensors(self, columns: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """The fields in their order, numbers as float32, with these columns of observations."""
        numbers = (
            self.obs[:, columns], self.action, self.reward, self.next_obs[:, columns],
            self.terminated,
        )  # fmt: skip
        return (
            *(torch.as_tensor(x, dtype=torch.float32) for x in numbers),
            torch.as_tensor(self.starts),
            torch.as_tensor(self.cut),
        )


class MetaAlgorithm(BaseAlgorithm):
    """An SB3 algorithm over histories.

    Any env with flat Box observations and Box actions is accepted; one without previous action,
    previous reward and first-step flag in its observation gets them (``VecPreviousActionReward``).

    Args:
        policy: Class of the policy, or its alias.
        env: Gymnasium env, SB3 VecEnv or registered id; None only while loading.
        learning_rate: Of the policy's optimisers.
        learning_starts: Env steps with uniformly random actions before the policy acts.
        warm_start_correlation: Of such an action with the next one; see ``warm_start.WarmStart``.
        policy_kwargs: Passed to the policy.
        stats_window_size: Episodes over which ``rollout/ep_rew_mean`` is averaged.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 the log, 2 debug.
        seed: Seeds env, networks and sampling.
        device: ``"cpu"``; ``"auto"`` means the same. Networks of this size do not pay on another.
        _init_setup_model: Build networks and buffers now (SB3's ``load`` does it later).
    """

    layout: ObservationLayout
    exact_resume: ClassVar[bool] = False
    """Whether ``resume`` goes on as if there had been no interruption."""
    checkpoint_due: Path | None = None
    """Where ``ExactCheckpoint`` wants one to be taken once this step has been learnt from."""

    def __init__(
        self,
        policy: str | type[Any],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        learning_starts: int = 0,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str = "cpu",
        _init_setup_model: bool = True,
        warm_start_correlation: float = 0.0,
    ) -> None:
        if str(device) not in ("cpu", "auto"):
            raise ValueError(
                f"device={device!r}: {type(self).__name__} runs on the CPU, "
                "expected 'cpu' or 'auto'"
            )
        super().__init__(
            policy=policy,
            env=env,
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device="cpu",
            support_multi_env=True,
            seed=seed,
            supported_action_spaces=(spaces.Box,),
        )
        if learning_starts < 0:
            raise ValueError(f"learning_starts={learning_starts}: expected at least 0")
        if not 0.0 <= warm_start_correlation < 1.0:
            raise ValueError(
                f"warm_start_correlation={warm_start_correlation!r}: "
                "expected at least 0 and less than 1"
            )
        self.learning_starts = learning_starts
        self.warm_start_correlation = warm_start_correlation
        self._warm_start: WarmStart | None = None
        self._agent_state: AgentState | None = None
        if self.env is not None:
            self.layout = layout_of(self.env)
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        venv = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        check_flat(venv.observation_space)
        if unwrap_vec_normalize(venv) is not None:
            raise ValueError(
                "VecNormalize is not supported: these agents standardise observations and rewards "
                "themselves, and its changing statistics would rewrite the stored histories; "
                "pass the env without it"
            )
        if not isinstance(venv.action_space, spaces.Box) or len(venv.action_space.shape) != 1:
            raise ValueError(f"expected a flat Box action space, got {venv.action_space}")
        return venv if layout_of(venv).has_history else VecPreviousActionReward(venv)

    @abstractmethod
    def train(self) -> None:
        """Learn from what has been stored; called after every step from ``learning_starts`` on."""

    @abstractmethod
    def _store(self, step: VecStep) -> None:
        """Keep one step of every env."""

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` env steps; see ``BaseAlgorithm.learn``.

        Args:
            total_timesteps: Env steps, summed over the parallel envs.
            callback: SB3 callbacks, called after every step of all envs.
            log_interval: Episodes between two dumps of the log; None for none.
            tb_log_name: Name of the TensorBoard run; the class's name by default.
            reset_num_timesteps: Count steps from zero; False continues.
            progress_bar: Show tqdm's progress bar.
        """
        total_timesteps, callback = self._setup_learn(
            total_timesteps,
            callback,
            reset_num_timesteps,
            tb_log_name or type(self).__name__,
            progress_bar,
        )
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            if not self._collect_step(callback, log_interval):
                self.checkpoint_due = None  # of a step that is not learnt from
                break
            callback.on_rollout_end()
            if self.num_timesteps >= self.learning_starts:
                self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
                self.train()
            if self.checkpoint_due is not None:
                self._take_checkpoint(self.checkpoint_due)
        callback.on_training_end()
        return self

    def resume(self, path: str | Path) -> Self:
        """Take over a checkpoint; ``learn(..., reset_num_timesteps=False)`` goes on with it.

        The agent must have been made as the one before was. Nothing is unpickled.

        Args:
            path: Where ``common.checkpoints.ExactCheckpoint`` has put it.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            RuntimeError: If it is of an agent with other networks.
            ValueError: If it is of another agent or env, or no checkpoint.
        """
        found = read_checkpoint(path)
        of, mine = found.get("made_for", self._made_for()), self._made_for()
        if of != mine:
            raise ValueError(
                f"{path} is a checkpoint of {' in '.join(of)}, not {' in '.join(mine)}"
            )
        self.set_parameters(found["parameters"])
        for name in _COUNTERS:
            setattr(self, name, found[name])
        self._restore(found["training"])
        self._begin_anew(found["seed"], found["kept_tasks"])
        return self

    def _take_checkpoint(self, path: Path) -> None:
        self.checkpoint_due = None
        entropy = None if self.seed is None else (self.seed, self.num_timesteps)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
        content = {
            "parameters": self.get_parameters(),
            "training": self._training_state(),
            "seed": seed,
            "kept_tasks": self._kept_tasks(),
            "made_for": self._made_for(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        write_checkpoint(path, content)
        self._begin_anew(content["seed"], content["kept_tasks"])

    def _made_for(self) -> list[str]:
        """Names of the agent and, if it is a registered one, of its env."""
        assert self.env is not None
        spec = self.env.get_attr("spec", indices=0)[0]
        return [type(self).__name__, spec.id] if spec is not None else [type(self).__name__]

    def _kept_tasks(self) -> list[list[float] | None]:
        """By env, the parameters of the task that its later episodes start in; None without."""
        assert self.env is not None
        if not self.env.has_attr("kept_task"):
            return [None] * self.n_envs
        return task_parameters(self.env.get_attr("kept_task"))

    def _begin_anew(self, seed: int, kept_tasks: list[list[float] | None]) -> None:
        """Seed everything and start new episodes: what follows depends on the arguments alone."""
        assert self.env is not None
        self.set_random_seed(seed)
        if any(kept_tasks):  # else a seed would bring an env under the schedule "static" a new one
            self.env.set_options([{"task": task} if task else {} for task in kept_tasks])
        self._last_obs = cast(Array, self.env.reset())
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        self._agent_state = self._warm_start = None

    def _training_state(self) -> dict[str, Any]:
        """Tensors and plain values, beside parameters, that decide how training goes on."""
        raise NotImplementedError(f"{type(self).__name__} does not declare exact_resume")

    def _restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``_training_state``."""
        raise NotImplementedError(f"{type(self).__name__} does not declare exact_resume")

    def _collect_step(self, callback: BaseCallback, log_interval: int | None) -> bool:
        """Step every env once; False if a callback asks to stop."""
        assert self.env is not None
        obs, starts = self._last_obs, self._last_episode_starts
        assert isinstance(obs, np.ndarray)
        assert starts is not None
        env_action = self._act(obs, starts)
        if self.num_timesteps < self.learning_starts:
            env_action = self._warm_start_actions()
        new_obs, rewards, dones, infos = self.env.step(env_action)
        self.num_timesteps += self.n_envs
        self._store(self._vec_step(obs, env_action, new_obs, rewards, dones, starts, infos))
        self._last_obs, self._last_episode_starts = cast(Array, new_obs), dones
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        self._update_info_buffer(infos, dones)
        for _ in range(int(dones.sum())):
            self._episode_num += 1
            if log_interval is not None and self._episode_num % log_interval == 0:
                self.dump_logs()
        return True

    def _warm_start_actions(self) -> Array:
        if self._warm_start is None:
            assert isinstance(self.action_space, spaces.Box)
            correlation = self.warm_start_correlation
            self._warm_start = WarmStart(self.action_space, self.n_envs, correlation)
        return self._warm_start.draw()

    def _act(self, obs: Array, starts: Array) -> Array:
        """Actions to collect with, in the env's range; ``predict``'s samples unless overridden."""
        action, self._agent_state = self.predict(obs, self._agent_state, starts)
        return action

    def _vec_step(
        self,
        obs: Array,
        env_action: Array,
        new_obs: Any,
        rewards: Array,
        dones: Array,
        starts: Array,
        infos: list[dict[str, Any]],
    ) -> VecStep:
        next_obs = np.array(new_obs)
        terminated = np.array(dones)
        for i in np.flatnonzero(dones):
            next_obs[i] = infos[i]["terminal_observation"]
            terminated[i] = not infos[i].get("TimeLimit.truncated", False)
        first = next_obs[:, self.layout.columns(FIRST_STEP)[0]] > 0.5
        self._check_history(next_obs, env_action, rewards, ~(first | np.asarray(dones)))
        return VecStep(
            obs=obs,
            action=self._scale_action(env_action),
            reward=rewards,
            next_obs=next_obs,
            terminated=terminated,
            starts=np.array(starts),
            cut=first & ~np.asarray(dones),
        )

    def _check_history(self, next_obs: Array, action: Array, reward: Array, rows: Array) -> None:
        """Refuse an env that shows ``rows`` another action or reward than those that led there.

        What acts would remember other histories than what learns.
        """
        shown = next_obs[:, self.layout.columns(PREVIOUS_ACTION, PREVIOUS_REWARD)]
        led_here = np.column_stack([action, reward])
        off = np.abs(shown - led_here) > 1e-4 * (1.0 + np.abs(led_here))
        if off[rows].any():
            raise ValueError(
                f"{self.env} shows previous actions and rewards {shown.tolist()}, but got "
                f"{led_here.tolist()}: wrappers that change actions or rewards go inside "
                "PreviousActionReward"
            )

    def _scale_action(self, env_action: Array) -> Array:
        assert isinstance(self.action_space, spaces.Box)
        low, high = self.action_space.low, self.action_space.high
        scaled: Array = 2.0 * (env_action - low) / (high - low) - 1.0
        return scaled

    def dump_logs(self) -> None:
        """Write what has been recorded since the last time, with SB3's usual keys."""
        assert self.ep_info_buffer is not None
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        steps = self.num_timesteps - self._num_timesteps_at_start
        if len(self.ep_info_buffer) > 0:
            for key, name in (("r", "rew"), ("l", "len")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/ep_{name}_mean", mean)
        self.logger.record("time/episodes", self._episode_num, exclude="tensorboard")
        self.logger.record("time/fps", int(steps / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_agent_state", "_warm_start", "checkpoint_due"]
