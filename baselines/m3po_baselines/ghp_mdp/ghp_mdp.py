"""GHP-MDP: plans with an ensemble that is conditioned on inferred latent task variables.

Perez, Such, Karaletsos, "Generalized Hidden Parameter MDPs: Transferable Model-Based RL in a
Handful of Trials", AAAI 2020, arXiv 2002.03072. Its code was never released. What is here is our
reading of the idea, not of its details, and none of its settings are known to us.

=======================================  =======================================================
the method                               here
=======================================  =======================================================
latents for dynamics and for reward      two Gaussians of ``latent_dim`` each, prior N(0, I)
p(o' | o, a, z), p(r | o, a, o', z)      ``dynamics``, ``reward``: ``common.dynamics`` ensembles
q(z | transitions)                       ``posterior``: a product of one Gaussian factor per
                                         transition and the prior
evidence lower bound                     ``loss``
inference at test time                   ``remember``: one more factor per step
model-predictive control                 ``adaptive_mpc.MPCPolicy``: every member imagines every
                                         plan at the posterior's mean; returns are averaged
=======================================  =======================================================

The bound is that of the future given the past,

    log p(future | past) >= E_q(z | past, future)[log p(future | z)]
                            - KL(q(z | past, future) || q(z | past)),

on windows of both, one bound for the observations and one for the rewards, each per transition and
output; where a window begins with its episode, the past is empty and q(z | past) the prior. So the
latents belong to a window, not to an episode, in which the task may change.

Known deviations from what we believe was published: the posterior is amortised, where theirs has
parameters of its own for each task, optimised by gradient steps at test time too. A factor per
transition costs one small network per env step, instead of many passes through the ensemble, and
stays right when the task changes within an episode: factors older than ``support`` steps are
dropped. Likelihoods are weighted by a power of the variance (``common.dynamics``), so that the
effect of a latent is not written off as noise before it is learnt; the bound is exact at
``beta=0``. Members differ by their initial weights and their draws of z, not by a bootstrap; what
they imagine are means, without their predicted noise, and z is not sampled to plan with. Reward,
statistics, validation, termination and trials as in ``learning_to_adapt.grbal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    EnvReward,
    Head,
    Heads,
    Observed,
    windows,
)
from m3po_baselines.learning_to_adapt.adaptive_mpc import AdaptiveMPC
from m3po_bench.common.arguments import check_counts
from m3po_bench.common.dynamics import GaussianEnsemble
from m3po_bench.common.history_policy import Memory
from m3po_bench.common.networks import StackedMLP


class Gaussian(NamedTuple):
    """Diagonal Gaussians over the latents of dynamics and reward, side by side.

    Attributes:
        mean: Shape (..., 2 latent_dim).
        precision: Shape (..., 2 latent_dim).
    """

    mean: Tensor
    precision: Tensor

    def sample(self) -> Tensor:
        """A draw from each, with gradient."""
        return self.mean + torch.randn_like(self.mean) * self.precision.rsqrt()

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) of each dimension."""
        ratio = other.precision / self.precision
        distance = (self.mean - other.mean).square() * other.precision
        return 0.5 * (ratio + distance - 1.0 - ratio.log())


class LatentModel(AdaptiveModel):
    """Ensembles over latents, and the encoder that infers them.

    The memory holds the Gaussian factors of the last transitions, mean and precision, each of
    shape (n, support, 2 latent_dim), the newest last; a precision of 0 stands for none.

    Args:
        obs_dim: See ``AdaptiveModel``.
        action_dim: See ``AdaptiveModel``.
        support: Transitions that are remembered.
        query: Transitions behind them, the future of the bound.
        latent_dim: Latents of dynamics, and of reward.
        ensemble_size: Members of each ensemble.
        hidden: Hidden widths of the dynamics' members.
        reward_hidden: Hidden widths of the reward's members, and of termination.
        encoder_hidden: Hidden widths of the encoders.
        beta: Power of the variance that weighs the likelihoods; see ``GaussianEnsemble``.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        support: int,
        query: int,
        latent_dim: int = 4,
        ensemble_size: int = 5,
        hidden: Sequence[int] = (200, 200, 200),
        reward_hidden: Sequence[int] = (200, 200),
        encoder_hidden: Sequence[int] = (128, 128),
        beta: float = 0.5,
    ) -> None:
        super().__init__(obs_dim, action_dim, reward_hidden)
        self.support, self.query, self.latent_dim = support, query, latent_dim
        seen = obs_dim + action_dim + latent_dim
        self.dynamics = GaussianEnsemble(ensemble_size, seen, obs_dim, hidden, beta)
        self.reward = GaussianEnsemble(ensemble_size, seen + obs_dim, 1, reward_hidden, beta)
        # One encoder for the latents of dynamics, one for those of reward.
        transition = 2 * obs_dim + action_dim + 1
        self.encoder = StackedMLP(2, transition, encoder_hidden, 2 * latent_dim, "silu")

    def empty(self, n: int) -> Memory:
        """See ``AdaptiveModel``."""
        shape = (n, self.support, 2 * self.latent_dim)
        return torch.zeros(shape), torch.zeros(shape)

    def factors(self, data: Observed) -> Gaussian:
        """What each transition says of the latents, (n, steps, 2 latent_dim)."""
        inputs = self.encoded(data)
        found = self.encoder(inputs.flatten(0, 1)).unflatten(1, inputs.shape[:2])
        mean, raw = (torch.cat(list(x), -1) for x in found.chunk(2, -1))
        return Gaussian(mean, F.softplus(raw) * data.weight[..., None])

    def posterior(self, factors: Gaussian) -> Gaussian:
        """The product of all factors, (n, steps, ...) to (n, ...), and of the prior."""
        precision = 1.0 + factors.precision.sum(1)
        return Gaussian((factors.precision * factors.mean).sum(1) / precision, precision)

    def remember(self, memory: Memory, last: Observed) -> Memory:
        """See ``AdaptiveModel``."""
        new = self.factors(Observed(*(x[:, None] for x in last)))
        return tuple(torch.cat([a[:, 1:], b], 1) for a, b in zip(memory, new, strict=True))

    def adapted(self, memory: Memory) -> Heads:
        """One predictor per member and env, members first: (members n, rows, in) to (..., out)."""
        latent = self.posterior(Gaussian(*memory)).mean.chunk(2, -1)

        def head(ensemble: GaussianEnsemble, own: Tensor) -> Head:
            def predict(inputs: Tensor) -> Tensor:
                n_rows = inputs.shape[1]
                given = own.repeat(ensemble.n, 1)[:, None].expand(-1, n_rows, -1)
                rows = torch.cat([inputs, given], -1)
                members = rows.view(ensemble.n, -1, rows.shape[-1])
                mean: Tensor = ensemble(members)[0]
                return mean.view(len(inputs), n_rows, -1)

            return predict

        return Heads(head(self.dynamics, latent[0]), head(self.reward, latent[1]))

    def errors(self, heads: Heads, data: Observed) -> tuple[Tensor, Tensor]:
        """Errors of a member, on average; see ``AdaptiveModel``."""
        n = self.dynamics.n
        repeated = Observed(*(x.repeat(n, *[1] * (x.dim() - 1)) for x in data))
        obs, reward = super().errors(heads, repeated)
        shape = (n, *data.weight.shape)
        return obs.view(shape).mean(0), reward.view(shape).mean(0)

    def returns(
        self, heads: Heads, obs: Tensor, plans: Tensor, env_reward: EnvReward | None = None
    ) -> Tensor:
        """Mean over the members, each of which imagines every plan; see ``AdaptiveModel``."""
        n = self.dynamics.n
        found = super().returns(heads, obs.repeat(n, 1), plans.repeat(n, 1, 1, 1), env_reward)
        return found.view(n, len(obs), -1).mean(0)

    def piece(self, data: Observed) -> int:
        """See ``AdaptiveModel``."""
        return self.support + self.query

    def batch(self, data: Observed, n: int) -> Observed:
        """Windows of past and future."""
        return windows(data, n, self.support, self.query)

    def loss(self, batch: Observed) -> Tensor:
        """The negative bound per transition and output; each member has a draw of z of its own."""
        factors = self.factors(batch)
        past = self.posterior(Gaussian(*(x[:, : self.support] for x in factors)))
        both = self.posterior(factors)
        query = Observed(*(x[:, self.support :] for x in batch))
        there = query.weight > 0
        now, after = self.obs_norm(query.obs), self.obs_norm(query.next_obs)
        change = self.delta_norm(query.next_obs - query.obs)
        reward = self.reward_norm(query.reward[..., None])
        n = self.dynamics.n
        latent = torch.stack([both.sample() for _ in range(n)])
        latent = latent[:, :, None].expand(-1, -1, self.query, -1)[:, there]
        for_dynamics, for_reward = latent.chunk(2, -1)

        def rows(*parts: Tensor) -> Tensor:
            return torch.cat(parts, -1)[there].expand(n, -1, -1)

        dynamics_loss = self.dynamics.loss(
            torch.cat([rows(now, query.action), for_dynamics], -1), rows(change)
        )
        reward_loss = self.reward.loss(
            torch.cat([rows(now, query.action, after), for_reward], -1), rows(reward)
        )
        # Twice, as GaussianEnsemble leaves out the one half of the log density.
        kl_dynamics, kl_reward = (2.0 * both.kl(past)).chunk(2, -1)
        count = there.sum()
        bound = (dynamics_loss + reward_loss) / n
        return bound + kl_dynamics.sum() / (count * self.obs_dim) + kl_reward.sum() / count


class GHPMDP(AdaptiveMPC):
    """Model-predictive control with latents inferred from the transitions so far.

    Args:
        *args: See ``AdaptiveMPC``.
        support: Transitions that are remembered; 200 is a whole episode of most envs.
        query: Transitions behind them that the latents must predict in training.
        **kwargs: See ``AdaptiveMPC``; its planner is the cross-entropy method here.
    """

    def __init__(self, *args: Any, support: int = 200, query: int = 16, **kwargs: Any) -> None:
        check_counts(support=support, query=query)
        self.support, self.query = support, query
        kwargs.setdefault("planner", "cem")
        super().__init__(*args, **kwargs)

    def _make_model(self, obs_dim: int, action_dim: int, **kwargs: Any) -> AdaptiveModel:
        return LatentModel(obs_dim, action_dim, self.support, self.query, **kwargs)
