"""The policy pi(a | o, z) that acts on its belief about the task: encoder, actor and critics."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from m3po_baselines.pearl.belief import Belief, ContextEncoder
from m3po_bench.common.history_policy import HistoryPolicy, Memory, Seen
from m3po_bench.common.networks import Normalizer
from m3po_bench.common.soft_actor_critic import Actor, critics_and_targets
from m3po_bench.wrappers import ObservationLayout

BELIEF_UPDATES = ("step", "episode")


class BeliefPolicy(HistoryPolicy):
    """Policy and critics over (observation, z), and the encoder that z comes from.

    ``predict``'s ``state`` is (weighted mean and precision of the belief, z, previous
    observation), arrays of shapes (n, latent_dim), three times, and (n, obs_dim). Transitions of
    all episodes of a trial add up; memory is empty where ``episode_start`` holds.

    Args:
        observation_space: With the history columns.
        action_space: A flat Box; networks act in [-1, 1].
        lr_schedule: Not used here, SB3 passes it.
        layout: Which columns of the observation are which.
        forgetting: Share of the belief's precision that is lost with each transition; 0 weighs all
            transitions alike.
        belief_update: When z is inferred anew from the transitions so far. ``"step"``: after each,
            for tasks that must be found out within the episode; z is the posterior's mean where
            actions are deterministic, else a draw. ``"episode"``, as published: between the
            episodes of a trial only, and z is a draw in any case; where actions are deterministic
            it depends on the episode's first observation and nothing else.
        net_arch: Hidden widths of actor and critics.
        encoder_arch: Hidden widths of the encoder.
        latent_dim: Width of z.
        next_obs_in_context: Whether the encoder sees what a transition led to.
        n_critics: Number of critics.
        layer_norm: Whether critics normalise their hidden layers.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        layout: ObservationLayout,
        forgetting: float = 0.0,
        belief_update: str = "step",
        net_arch: Sequence[int] = (300, 300, 300),
        encoder_arch: Sequence[int] = (200, 200, 200),
        latent_dim: int = 5,
        next_obs_in_context: bool = True,
        n_critics: int = 2,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(observation_space, action_space, layout)
        self.forgetting, self.belief_update = forgetting, belief_update
        self.latent_dim = latent_dim
        self._context_width = self.obs_dim + self.action_dim + 1
        if next_obs_in_context:
            self._context_width += self.obs_dim
        self.context_normalizer = Normalizer(self._context_width)
        self.encoder = ContextEncoder(self._context_width, encoder_arch, latent_dim)
        n_features = self.obs_dim + latent_dim
        self.actor = Actor(n_features, self.action_dim, net_arch)
        self.critics, self.critic_targets = critics_and_targets(
            n_features, self.action_dim, net_arch, n_critics, layer_norm
        )
        self.log_alpha = nn.Parameter(torch.zeros(()))

    def infer(self, context: Tensor) -> Belief:
        """The posterior of each context: (n_tasks, n, 2 obs_dim + action_dim + 1) to (n_tasks,).

        Args:
            context: Transitions as in ``TaskTransitions.context``.
        """
        rows = self.context_normalizer(context[..., : self._context_width])
        return self.encoder.forward(rows).product()

    def fit_normalizer(self, context: Tensor) -> None:
        """Standardise contexts from now on by what these transitions look like.

        Args:
            context: Shape (n, 2 obs_dim + action_dim + 1).
        """
        self.context_normalizer.fit(context[:, : self._context_width])

    def empty(self, n: int) -> Memory:
        """See ``HistoryPolicy.empty``."""
        prior = Belief.prior(n, self.latent_dim)
        return *prior, torch.zeros(n, self.latent_dim), torch.zeros(n, self.obs_dim)

    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        """See ``HistoryPolicy.respond``."""
        *sums, z, previous = memory
        belief = self._take_in(Belief(*sums), previous, seen)
        if self.belief_update == "step":
            z = belief.mean if deterministic else belief.sample()
        elif seen.first.any():
            z = torch.where(seen.first[:, None], self._draw(belief, seen.obs, deterministic), z)
        action = self.actor.act(torch.cat([seen.obs, z], -1), deterministic)
        return action, (*belief, z, seen.obs)

    def _take_in(self, belief: Belief, previous: Tensor, seen: Seen) -> Belief:
        """The belief after the transitions that ended in ``seen``."""
        transition = torch.cat([previous, seen.action, seen.reward[:, None], seen.obs], -1)
        # An inner episode of a trial begins: no transition led here.
        kept = belief.weighted(1.0 - self.forgetting)
        return belief.where(seen.first, kept.times(self.infer(transition[:, None])))

    def _draw(self, belief: Belief, obs: Tensor, deterministic: bool) -> Tensor:
        if not deterministic:
            return belief.sample()
        # Not the generator's next numbers: they would depend on what is predicted side by side.
        noise = [
            np.random.default_rng(zlib.crc32(row.tobytes())).standard_normal(self.latent_dim)
            for row in obs.numpy()
        ]
        return belief.mean + belief.variance.sqrt() * torch.from_numpy(np.stack(noise)).float()
