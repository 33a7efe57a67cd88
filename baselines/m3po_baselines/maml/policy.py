"""The meta-policy, and how it adapts while it acts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from m3po_baselines.maml.inner_step import Batch, Gaussian, GaussianMLP, InnerStep
from m3po_baselines.maml.trajectories import EMPTY, Trajectories, normalized_advantages
from m3po_bench.wrappers import FIRST_STEP, PREVIOUS_REWARD, ObservationLayout

Array = NDArray[Any]


class Memory(NamedTuple):
    """What ``predict`` remembers of n envs, each apart.

    Attributes:
        parameters: Of each env's policy, shape (n, n_parameters).
        window: Its last transitions, the latest last: observation, action, mean and log deviation
            that it was drawn with, reward, time since the inner episode's start (``EMPTY`` in rows
            without a transition); shape (n, T, columns).
        pending: The transition whose reward is still to come, shape (n, columns).
        draws: Seed of the env's noise, and how often noise was drawn; int64, shape (n, 2).
    """

    parameters: Array
    window: Array
    pending: Array
    draws: Array


class AdaptivePolicy(BasePolicy):
    """A Gaussian policy without memory that takes inner steps on what it has just met.

    Args:
        observation_space: With the history columns; the network sees none of those.
        action_space: A flat Box; the network acts in +-``action_scale``.
        lr_schedule: Not used here, SB3 passes it.
        layout: Which columns of the observation are which.
        inner_learning_rate: Of the inner step.
        inner_loss: A name of ``inner_step.INNER_LOSSES``.
        gamma: Discount factor.
        gae_lambda: Of the advantages.
        baseline_ridge: Of the linear feature baseline.
        adapt_every: Steps of an episode between two inner steps; None to adapt only between the
            inner episodes of a trial.
        adapt_window: Latest transitions that an inner step learns from.
        noise_seed: Of the noise of deterministic predictions.
        net_arch: Hidden widths.
        activation: ``tanh`` or ``relu``.
        init_std: Deviation of the actions at the start, in the network's units.
        min_std: Smallest deviation.
        action_scale: The network's action that stands for the end of the env's range.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        layout: ObservationLayout,
        inner_learning_rate: float,
        inner_loss: str,
        gamma: float,
        gae_lambda: float,
        baseline_ridge: float,
        adapt_every: int | None,
        adapt_window: int,
        noise_seed: int = 0,
        net_arch: Sequence[int] = (64, 64),
        activation: str = "tanh",
        init_std: float = 1.0,
        min_std: float = 1e-6,
        action_scale: float = 1.0,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        if action_scale <= 0.0:
            raise ValueError(f"action_scale={action_scale!r}: expected a positive number")
        self.layout = layout
        self.obs_columns = layout.memoryless_columns
        self._reward_column = int(layout.columns(PREVIOUS_REWARD)[0])
        self._first_column = int(layout.columns(FIRST_STEP)[0])
        self.obs_dim, self.action_dim = len(self.obs_columns), int(action_space.shape[0])
        self.gamma, self.gae_lambda, self.baseline_ridge = gamma, gae_lambda, baseline_ridge
        self.adapt_every, self.adapt_window = adapt_every, adapt_window
        self.noise_seed, self.action_scale = noise_seed, action_scale
        self.network = GaussianMLP(
            self.obs_dim, self.action_dim, net_arch, activation, init_std, min_std
        )
        self.inner_step = InnerStep(self.network, inner_learning_rate, inner_loss)
        # The same step where the meta-policy drew the actions; here an adapted one may have.
        self._online_step = InnerStep(self.network, inner_learning_rate, "score")

    def forward(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """Actions in [-1, 1] of the policy that has not adapted."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        drawn_from = self.network(observation[:, self.obs_columns].float())
        noise = torch.zeros_like if deterministic else torch.randn_like
        raw: Tensor = drawn_from.sample(noise(drawn_from.mean))
        return (raw / self.action_scale).clamp(-1.0, 1.0)

    def to_env(self, action: Array) -> Array:
        """Actions of the network in the env's range; what exceeds it is cut."""
        return self.unscale_action(np.clip(action / self.action_scale, -1.0, 1.0))

    def batch(self, trajectories: Trajectories, drawn_from: Gaussian) -> Batch:
        """Trajectories with their advantages; ``drawn_from`` is what drew their actions."""
        advantage = normalized_advantages(
            trajectories, self.gamma, self.gae_lambda, self.baseline_ridge
        )
        filled = trajectories.filled
        weight = filled / np.maximum(filled.sum(1, keepdims=True), 1)
        return Batch(
            torch.as_tensor(trajectories.obs, dtype=torch.float32),
            torch.as_tensor(trajectories.action, dtype=torch.float32),
            torch.as_tensor(advantage),
            torch.as_tensor(weight, dtype=torch.float32),
            drawn_from,
        )

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Actions of policies that adapt as they go; see ``BaseAlgorithm.predict``.

        An inner step starts from the meta-policy and learns from the last ``adapt_window``
        transitions since ``episode_start``: whenever an inner episode of a trial has ended, and
        after every ``adapt_every`` steps of an episode.

        Args:
            observation: Shape (width,) or (n, width), history columns included.
            state: What the last call returned; None for the meta-policy.
            episode_start: Where the meta-policy begins anew, shape (n,).
            deterministic: Noise that depends on the episode's first observation and the step
                alone. There is noise all the same: an inner step learns from how actions differ
                from the mean, so a policy that acts with its mean cannot adapt.

        Returns:
            Actions in the env's range, and the state to pass next time.

        Raises:
            ValueError: If the observation has not the width that the agent was trained on.
        """
        obs = np.asarray(observation, dtype=np.float32)
        single = obs.ndim == 1
        obs = np.atleast_2d(obs)
        if obs.shape[1] != self.layout.width:
            raise ValueError(
                f"an observation of {obs.shape[1]} columns, expected {self.layout.width}: "
                f"{dict(self.layout.blocks)}; an env that is not registered by m3po_bench needs "
                "the wrapper m3po_bench.wrappers.PreviousActionReward"
            )
        memory, time = self._remember(obs, state, episode_start)
        base = obs[:, self.obs_columns]
        with torch.no_grad():
            drawn_from = self.network.at_each(
                torch.from_numpy(memory.parameters), torch.from_numpy(base)
            )
            noise = torch.randn_like(drawn_from.mean)
            if deterministic:
                noise = torch.from_numpy(self._fixed_noise(memory.draws))
            raw = drawn_from.sample(noise).numpy()
        memory.draws[:, 1] += 1
        columns = (base, raw, *drawn_from, np.zeros(len(obs)), time)
        pending = np.column_stack(columns).astype(np.float32)
        action = self.to_env(raw)
        return (action[0] if single else action), tuple(memory._replace(pending=pending))

    def _fixed_noise(self, draws: Array) -> Array:
        noise = [
            np.random.default_rng((self.noise_seed, *row)).standard_normal(self.action_dim)
            for row in draws.tolist()
        ]
        return np.asarray(noise, dtype=np.float32)

    def _remember(
        self, obs: Array, state: tuple[Array, ...] | None, episode_start: Array | None
    ) -> tuple[Memory, Array]:
        """Memory with the last transition taken in and inner steps made; time in the episode."""
        theta = self.network.flat().detach().numpy()
        memory = self._empty_memory(len(obs)) if state is None else Memory(*state)
        fresh = np.ones(len(obs), bool) if state is None else np.zeros(len(obs), bool)
        if episode_start is not None:
            fresh = fresh | np.asarray(episode_start, dtype=bool)
        first = obs[:, self._first_column] > 0.5
        completed = memory.pending.copy()
        completed[:, -2] = obs[:, self._reward_column]
        # The reward that ended an inner episode is not shown, so its transition is left out.
        taken = (~first & ~fresh)[:, None, None]
        shifted = np.concatenate([memory.window[:, 1:], completed[:, None]], axis=1)
        window = np.where(taken, shifted, memory.window)
        window[fresh, :, -1] = EMPTY
        time = np.where(first | fresh, 0, memory.pending[:, -1] + 1)
        due = first & ~fresh
        if self.adapt_every is not None:
            due |= ~fresh & (time > 0) & (time % self.adapt_every == 0)
        parameters = np.where(fresh[:, None], theta, memory.parameters)
        if due.any():
            parameters[due] = self._adapted(window[due])
        seeds = np.asarray([zlib.crc32(row.tobytes()) for row in obs[:, self.obs_columns]])
        begun = np.column_stack([seeds, np.zeros_like(seeds)])
        draws = np.where(fresh[:, None], begun, memory.draws)
        return Memory(parameters, window, memory.pending, draws), time

    def _empty_memory(self, n: int) -> Memory:
        columns = self.obs_dim + 3 * self.action_dim + 2
        return Memory(
            np.zeros((n, self.network.flat().numel()), np.float32),
            np.full((n, self.adapt_window, columns), EMPTY, np.float32),
            np.zeros((n, columns), np.float32),
            np.zeros((n, 2), np.int64),
        )

    def _adapted(self, window: Array) -> Array:
        ends = self.obs_dim + self.action_dim * np.arange(4)
        obs, action, mean, log_std, rest = np.split(window, ends, axis=-1)
        trajectories = Trajectories(obs, action, rest[..., 0], rest[..., 1].astype(np.int64))
        drawn_from = Gaussian(torch.as_tensor(mean), torch.as_tensor(log_std))
        batch = self.batch(trajectories, drawn_from)
        return self._online_step.adapt(self.network.flat().detach(), batch).numpy()
