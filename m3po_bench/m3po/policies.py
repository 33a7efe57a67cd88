"""The meta-policy pi(a | h): meta-model, actor and critics in one SB3 policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from m3po_bench.common.history_policy import HistoryPolicy, Memory, Seen
from m3po_bench.common.soft_actor_critic import Actor, critics_and_targets
from m3po_bench.m3po.meta_model import MetaModel
from m3po_bench.wrappers import ObservationLayout


class MetaPolicy(HistoryPolicy):
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
        super().__init__(observation_space, action_space, layout)
        obs_dim, action_dim = self.obs_dim, self.action_dim
        self.meta_model = MetaModel(obs_dim, action_dim, **model_kwargs)
        n_features = obs_dim + self.meta_model.state_dim
        self.actor = Actor(n_features, action_dim, net_arch)
        self.critics, self.critic_targets = critics_and_targets(
            n_features, action_dim, net_arch, n_critics, layer_norm
        )
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def empty(self, n: int) -> Memory:
        """See ``HistoryPolicy.empty``."""
        return torch.zeros(n, self.meta_model.state_dim), torch.zeros(n, self.obs_dim)

    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        """See ``HistoryPolicy.respond``."""
        history = self.remember(seen, memory)
        features = self.meta_model.features(seen.obs, history)
        return self.actor.act(features, deterministic), (history, seen.obs)

    def remember(self, seen: Seen, memory: Memory) -> Tensor:
        """History states with the last transition taken in, shape (n, state_dim).

        Args:
            seen: As in ``respond``.
            memory: As in ``respond``.
        """
        history, previous = memory
        new = self.meta_model.step_state(history, previous, seen.action, seen.reward, seen.obs)
        # An inner episode of a trial begins: no transition led here, memory stays as it is.
        return torch.where(seen.first[:, None], history, new)
