"""The meta-policy pi(a | h): meta-model, actor and critics in one SB3 policy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from m3po_bench.common.encoders import HistoryEncoder
from m3po_bench.common.history_policy import HistoryPolicy, Memory, Seen
from m3po_bench.common.soft_actor_critic import Actor, Critics, critics_and_targets
from m3po_bench.m3po.history_states import HistoryStates
from m3po_bench.m3po.meta_model import Imagined, MetaModel
from m3po_bench.m3po.recurrent import RecurrentActor, RecurrentCritics
from m3po_bench.wrappers import ObservationLayout


class MetaPolicy(HistoryPolicy, HistoryStates):
    """Policy and critics over (observation, history state).

    With ``encoder="shared"`` the history state is the meta-model's, and both see it detached. With
    ``"separate"`` it has columns of the policy's and of the critics' own encoder behind the
    meta-model's (see ``recurrent``), and only these are seen; each is as wide as a branch of the
    meta-model's.

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
        encoder: ``"shared"`` or ``"separate"``.
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
        encoder: str = "shared",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, layout)
        obs_dim, action_dim = self.obs_dim, self.action_dim
        model = self.meta_model = MetaModel(obs_dim, action_dim, **model_kwargs)
        self._own_encoders: tuple[HistoryEncoder, ...] = ()
        if encoder == "separate":
            actor = RecurrentActor(model, net_arch)
            critics = RecurrentCritics(model, net_arch, n_critics, layer_norm)
            self.actor: Actor = actor
            self.critics: Critics = critics
            self.critic_targets: Critics = copy.deepcopy(critics).requires_grad_(False)
            self._own_encoders = (actor.encoder, critics.encoder)
        else:
            n_features = obs_dim + model.state_dim
            self.actor = Actor(n_features, action_dim, net_arch)
            self.critics, self.critic_targets = critics_and_targets(
                n_features, action_dim, net_arch, n_critics, layer_norm
            )
        self.state_dim = model.state_dim + sum(e.state_dim for e in self._own_encoders)
        self.seen_columns = slice(model.state_dim if self._own_encoders else 0, None)
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def empty(self, n: int) -> Memory:
        """See ``HistoryPolicy.empty``."""
        return torch.zeros(n, self.state_dim), torch.zeros(n, self.obs_dim)

    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        """See ``HistoryPolicy.respond``."""
        history = self.remember(seen, memory)
        return self.actor.act(self.features(seen.obs, history), deterministic), (history, seen.obs)

    def remember(self, seen: Seen, memory: Memory) -> Tensor:
        """History states with the last transition taken in, shape (n, state_dim).

        Args:
            seen: As in ``respond``.
            memory: As in ``respond``.
        """
        history, previous = memory
        new = self.step_state(history, previous, seen.action, seen.reward, seen.obs)
        # An inner episode of a trial begins: no transition led here, memory stays as it is.
        return torch.where(seen.first[:, None], history, new)

    def features(self, obs: Tensor, state: Tensor) -> Tensor:
        """What policy and critics see of a history, shape (n, n_features)."""
        return self.meta_model.features(obs, state[..., self.seen_columns])

    def step_state(
        self, state: Tensor, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor
    ) -> Tensor:
        """See ``HistoryStates.step_state``."""
        new = self.meta_model.step_state(state, obs, action, reward, next_obs)
        return self._with_own(new, state, obs, action, reward, next_obs)

    def imagine(
        self, obs: Tensor, state: Tensor, action: Tensor, later: Tensor | None = None
    ) -> Imagined:
        """See ``MetaModel.imagine``; policy and critics remember what was imagined."""
        step = self.meta_model.imagine(obs, state, action, later)
        new = self._with_own(step.next_state, state, obs, action, step.reward, step.next_obs)
        return step._replace(next_state=new)

    def _with_own(self, new: Tensor, state: Tensor, *transition: Tensor) -> Tensor:
        """The meta-model's new state and behind it, where there are any, those of our own."""
        if not self._own_encoders:
            return new
        inputs = self.meta_model.encoded(*transition)
        old = state[:, self.seen_columns].chunk(len(self._own_encoders), -1)
        own = [e.step(inputs, s) for e, s in zip(self._own_encoders, old, strict=True)]
        return torch.cat([new, *own], -1)
