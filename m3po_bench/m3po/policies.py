"""The meta-policy pi(a | h): meta-model, actor and critics in one SB3 policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from m3po_bench.common.soft_actor_critic import Actor, Critics
from m3po_bench.m3po.meta_model import MetaModel
from m3po_bench.wrappers import (
    FIRST_STEP,
    HISTORY_BLOCKS,
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    ObservationLayout,
)

Array = NDArray[Any]


class MetaPolicy(BasePolicy):
    """Policy and critics over (observation, history state); both see the state detached.

    ``predict``'s ``state`` is (history states, previous observations), arrays of shapes
    (n, state_dim) and (n, obs_dim): what is needed to take in the transition that the
    observation's history columns complete.

    Args:
        observation_space: With the history columns.
        action_space: A flat Box; networks act in [-1, 1].
        lr_schedule: Not used here, SB3 passes it.
        layout: Which columns of the observation are which.
        net_arch: Hidden widths of actor and critics.
        n_critics: Number of critics.
        layer_norm: Whether critics normalise their hidden layers.
        **model_kwargs: Passed to ``MetaModel``.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        layout: ObservationLayout,
        net_arch: Sequence[int] = (256, 256),
        n_critics: int = 2,
        layer_norm: bool = True,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.layout = layout
        names = [name for name in layout.names if name not in HISTORY_BLOCKS]
        self.obs_columns = layout.columns(*names)
        self._action_columns = layout.columns(PREVIOUS_ACTION)
        self._reward_column = int(layout.columns(PREVIOUS_REWARD)[0])
        self._first_column = int(layout.columns(FIRST_STEP)[0])
        obs_dim, action_dim = len(self.obs_columns), int(action_space.shape[0])
        self.meta_model = MetaModel(obs_dim, action_dim, **model_kwargs)
        n_features = obs_dim + self.meta_model.state_dim
        self.actor = Actor(n_features, action_dim, net_arch)
        self.critics = Critics(n_features, action_dim, net_arch, n_critics, layer_norm)
        self.critic_targets = Critics(n_features, action_dim, net_arch, n_critics, layer_norm)
        self.critic_targets.load_state_dict(self.critics.state_dict())
        self.critic_targets.requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def forward(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """Actions in [-1, 1] for the empty history."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        obs = observation[:, self.obs_columns].float()
        state = torch.zeros(len(obs), self.meta_model.state_dim)
        return self.actor.act(self.meta_model.features(obs, state), deterministic)

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Actions for histories; see ``BaseAlgorithm.predict``.

        Args:
            observation: Shape (width,) or (n, width), history columns included.
            state: What the last call returned; None for empty histories.
            episode_start: Where memory begins anew, shape (n,): the start of an episode, or of
                a trial of several.
            deterministic: The mean action instead of a sample.

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
        with torch.no_grad():
            history, base = self.remember(obs, state, episode_start)
            scaled = self.actor.act(self.meta_model.features(base, history), deterministic)
        action = self.unscale_action(scaled.numpy())
        new_state = (history.numpy(), base.numpy())
        return (action[0] if single else action), new_state

    def remember(
        self,
        obs: Array,
        state: tuple[Array, ...] | None,
        episode_start: Array | None = None,
    ) -> tuple[Tensor, Tensor]:
        """History states with the last transition taken in, and the bare observations.

        Args:
            obs: float32, shape (n, width), history columns included.
            state: As in ``predict``.
            episode_start: As in ``predict``.

        Returns:
            Shapes (n, state_dim) and (n, obs_dim).
        """
        base = torch.from_numpy(obs[:, self.obs_columns])
        empty = torch.zeros(len(obs), self.meta_model.state_dim)
        if state is None:
            return empty, base
        history, previous = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in state)
        action = torch.from_numpy(self.scale_action(obs[:, self._action_columns]))
        reward = torch.from_numpy(obs[:, self._reward_column])
        new = self.meta_model.step_state(history, previous, action, reward, base)
        # An inner episode of a trial begins: no transition led here, memory stays as it is.
        first = torch.from_numpy(obs[:, self._first_column] > 0.5)
        new = torch.where(first[:, None], history, new)
        if episode_start is not None:
            starts = torch.from_numpy(np.asarray(episode_start, dtype=bool))
            new = torch.where(starts[:, None], empty, new)
        return new, base
