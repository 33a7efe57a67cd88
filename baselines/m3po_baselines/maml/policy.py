"""The meta-policy, and how it adapts while it acts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from m3po_baselines.maml.inner_step import Batch, Gaussian, GaussianMLP, InnerStep
from m3po_baselines.maml.trajectories import EMPTY, Trajectories, normalized_advantages
from m3po_bench.common.history_policy import HistoryPolicy, Seen
from m3po_bench.wrappers import ObservationLayout

ONLINE_RIDGE = 1.0
"""Of the baseline in prediction, at least: the published one, meant for thousands of transitions,
would let it explain all that the first few dozen of an episode have earned, and more."""


class Memory(NamedTuple):
    """What is remembered of n envs, each apart.

    Attributes:
        parameters: Of each env's policy, shape (n, n_parameters).
        window: Its last transitions, the latest last: observation, action, mean and log deviation
            that it was drawn with, reward, time since the inner episode's start (``EMPTY`` in rows
            without a transition); shape (n, T, columns).
        pending: The transition whose reward is still to come, shape (n, columns).
        draws: Seed of the env's noise, and how often noise was drawn; int64, shape (n, 2).
    """

    parameters: Tensor
    window: Tensor
    pending: Tensor
    draws: Tensor


class AdaptivePolicy(HistoryPolicy):
    """A Gaussian policy that takes inner steps on what it has just met.

    A step starts from the meta-policy and learns from the last ``adapt_window`` transitions:
    whenever an inner episode of a trial has ended, and after every ``adapt_every`` steps of an
    episode. ``predict``'s ``state`` is a ``Memory`` of arrays.

    Where actions are deterministic there is noise all the same: an inner step learns from how
    actions differ from the mean, so a policy that acts with its mean cannot adapt. It depends on
    the episode's first observation and the step alone.

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
        super().__init__(observation_space, action_space, layout)
        if action_scale <= 0.0:
            raise ValueError(f"action_scale={action_scale!r}: expected a positive number")
        self.gamma, self.gae_lambda, self.baseline_ridge = gamma, gae_lambda, baseline_ridge
        self.adapt_every, self.adapt_window = adapt_every, adapt_window
        self.noise_seed, self.action_scale = noise_seed, action_scale
        self.network = GaussianMLP(
            self.obs_dim, self.action_dim, net_arch, activation, init_std, min_std
        )
        self.inner_step = InnerStep(self.network, inner_learning_rate, inner_loss)
        # The same step where the meta-policy drew the actions; here an adapted one may have.
        self._online_step = InnerStep(self.network, inner_learning_rate, "score")

    def bounded(self, action: Tensor) -> Tensor:
        """Actions of the network in [-1, 1]; what exceeds that is cut."""
        return (action / self.action_scale).clamp(-1.0, 1.0)

    def batch(
        self, trajectories: Trajectories, drawn_from: Gaussian, ridge: float | None = None
    ) -> Batch:
        """Trajectories with their advantages; ``drawn_from`` is what drew their actions."""
        ridge = self.baseline_ridge if ridge is None else ridge
        advantage = normalized_advantages(trajectories, self.gamma, self.gae_lambda, ridge)
        filled = trajectories.filled
        weight = filled / np.maximum(filled.sum(1, keepdims=True), 1)
        return Batch(
            torch.as_tensor(trajectories.obs, dtype=torch.float32),
            torch.as_tensor(trajectories.action, dtype=torch.float32),
            torch.as_tensor(advantage),
            torch.as_tensor(weight, dtype=torch.float32),
            drawn_from,
        )

    def empty(self, n: int) -> Memory:
        """See ``HistoryPolicy.empty``."""
        columns = self.obs_dim + 3 * self.action_dim + 2
        return Memory(
            self.network.flat().detach().repeat(n, 1),
            torch.full((n, self.adapt_window, columns), float(EMPTY)),
            torch.zeros(n, columns),
            torch.zeros(n, 2, dtype=torch.int64),
        )

    def respond(
        self, seen: Seen, memory: tuple[Tensor, ...], deterministic: bool
    ) -> tuple[Tensor, Memory]:
        """See ``HistoryPolicy.respond``."""
        known, time = self._take_in(seen, Memory(*memory))
        drawn_from = self.network.at_each(known.parameters, seen.obs)
        raw = drawn_from.sample(
            self._fixed_noise(known.draws) if deterministic else torch.randn_like(drawn_from.mean)
        )
        pending = (seen.obs, raw, *drawn_from, torch.zeros(len(raw)), time)
        new = known._replace(
            pending=torch.column_stack(pending), draws=known.draws + torch.tensor([0, 1])
        )
        return self.bounded(raw), new

    def _fixed_noise(self, draws: Tensor) -> Tensor:
        noise = [
            np.random.default_rng((self.noise_seed, *row)).standard_normal(self.action_dim)
            for row in draws.tolist()
        ]
        return torch.tensor(np.asarray(noise), dtype=torch.float32)

    def _take_in(self, seen: Seen, memory: Memory) -> tuple[Memory, Tensor]:
        """Memory with the last transition taken in and inner steps made; time in the episode."""
        completed = memory.pending.clone()
        completed[:, -2] = seen.reward
        # The reward that ended an inner episode is not shown, so its transition is left out.
        shifted = torch.cat([memory.window[:, 1:], completed[:, None]], 1)
        window = torch.where(seen.first[:, None, None], memory.window, shifted)
        time = torch.where(seen.first, 0.0, completed[:, -1] + 1.0)
        seed, n_drawn = memory.draws.T
        due = seen.first & (n_drawn > 0)
        if self.adapt_every is not None:
            due |= (time > 0) & (time % self.adapt_every == 0)
        parameters = memory.parameters
        if due.any():
            parameters = parameters.index_put((due,), self._adapted(window[due]))
        begun = torch.tensor([zlib.crc32(row.tobytes()) for row in seen.obs.numpy()])
        seed = torch.where(n_drawn == 0, begun, seed)
        return Memory(parameters, window, completed, torch.stack([seed, n_drawn], 1)), time

    def _adapted(self, window: Tensor) -> Tensor:
        widths = [self.obs_dim, *3 * [self.action_dim], 1, 1]
        obs, action, mean, log_std, reward, time = torch.split(window, widths, -1)
        trajectories = Trajectories(
            obs.numpy(), action.numpy(), reward[..., 0].numpy(), time[..., 0].long().numpy()
        )
        ridge = max(self.baseline_ridge, ONLINE_RIDGE)
        batch = self.batch(trajectories, Gaussian(mean, log_std), ridge)
        return self._online_step.adapt(self.network.flat().detach(), batch)
