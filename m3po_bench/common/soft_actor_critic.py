"""Soft actor-critic (Haarnoja et al. 2018) as functions over features, shared by the agents.

What the features are is the caller's business: observations, or observations with a history state.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.networks import StackedMLP, mlp

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
Loss = TypeVar("Loss", bound=Callable[..., object])


class Transitions(NamedTuple):
    """A batch of transitions between features.

    Attributes:
        features: Shape (batch, n_features).
        action: In [-1, 1], shape (batch, action_dim).
        reward: Shape (batch,).
        next_features: Shape (batch, n_features).
        not_terminated: 1 where the episode goes on, else 0; shape (batch,).
    """

    features: Tensor
    action: Tensor
    reward: Tensor
    next_features: Tensor
    not_terminated: Tensor


class Actor(nn.Module):
    """Squashed Gaussian policy over features."""

    def __init__(self, n_features: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp(n_features, hidden, 2 * action_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation before squashing, each (batch, action_dim)."""
        mean, log_std = self.net(features).float().chunk(2, dim=-1)  # float() undoes autocast
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def act(self, features: Tensor, deterministic: bool = False) -> Tensor:
        """Actions in [-1, 1], without their density."""
        mean, log_std = self(features)
        if not deterministic:
            mean = mean + log_std.exp() * torch.randn_like(mean)
        return torch.tanh(mean)

    def act_with_log_prob(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions in [-1, 1] and their log densities, shape (batch,)."""
        mean, log_std = self(features)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not underflow
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi) - squash
        return torch.tanh(raw), log_prob.sum(-1)


class Critics(nn.Module):
    """Action values of stacked networks."""

    def __init__(
        self, n_features: int, action_dim: int, hidden: Sequence[int], n: int, layer_norm: bool
    ) -> None:
        super().__init__()
        self.net = StackedMLP(n, n_features + action_dim, hidden, 1, layer_norm=layer_norm)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Values of shape (n, batch)."""
        return cast(Tensor, self.net(torch.cat([features, action], -1)).squeeze(-1).float())


def critics_and_targets(
    n_features: int, action_dim: int, hidden: Sequence[int], n: int, layer_norm: bool
) -> tuple[Critics, Critics]:
    """Critics, and the copy of them that follows slowly and is not trained."""
    critics, targets = (Critics(n_features, action_dim, hidden, n, layer_norm) for _ in range(2))
    targets.load_state_dict(critics.state_dict())
    targets.requires_grad_(False)
    return critics, targets


def critic_loss(
    critics: Critics,
    targets: Critics,
    actor: Actor,
    batch: Transitions,
    gamma: float,
    alpha: Tensor,
) -> Tensor:
    """Mean squared soft Bellman error, summed over the critics (as SB3 does, times one half)."""
    with torch.no_grad():
        action, log_prob = actor.act_with_log_prob(batch.next_features)
        value = targets(batch.next_features, action).amin(0) - alpha * log_prob
        target = batch.reward + gamma * batch.not_terminated * value
    values = critics(batch.features, batch.action)
    loss: Tensor = 0.5 * (values - target).square().mean(1).sum()
    return loss


def actor_loss(
    critics: Critics, actor: Actor, features: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """KL to the soft-greedy policy up to a constant, and the batch's mean log density."""
    action, log_prob = actor.act_with_log_prob(features)
    value = critics(features, action).amin(0)
    return (alpha * log_prob - value).mean(), log_prob.detach().mean()


def cpp_compiler() -> str | None:
    """Where the compiler is that ``torch.compile`` calls; None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def compiled(loss: Loss) -> Loss:
    """``loss``, and what its gradient takes, fused by ``torch.compile`` at the first call.

    Random numbers stay those of torch's generator, so a compiled update is the same but for the
    order of its sums.

    Raises:
        RuntimeError: If there is no C++ compiler.
    """
    if cpp_compiler() is None:
        raise RuntimeError(
            f"torch_compile=True: expected a C++ compiler, but {os.environ.get('CXX', 'g++')!r} "
            "is not installed; CXX may name another one"
        )
    return cast(Loss, torch.compile(loss, options={"fallback_random": True}))


class SoftActorCritic:
    """Optimisers and one update; networks and temperature belong to the caller's policy.

    Args:
        actor: The policy.
        critics: Its critics.
        targets: Their slowly moving copies.
        log_alpha: Logarithm of the entropy temperature, a leaf tensor.
        learning_rate: Of all three optimisers.
        gamma: Discount factor.
        tau: Rate of the targets' moving average.
        target_entropy: Entropy the temperature is tuned for; None leaves the temperature fixed.
        actor_every: Critic updates per actor update.
        feature_parameters: What the critics' loss trains beside the critics: the parameters of an
            encoder that the features come from.
        bfloat16: Whether an update's matrix products are in bfloat16; all else stays in float32.
        torch_compile: Whether losses are ``compiled``.
    """

    def __init__(
        self,
        actor: Actor,
        critics: Critics,
        targets: Critics,
        log_alpha: Tensor,
        learning_rate: float,
        gamma: float,
        tau: float,
        target_entropy: float | None,
        actor_every: int = 1,
        feature_parameters: Iterable[Tensor] = (),
        bfloat16: bool = False,
        torch_compile: bool = False,
    ) -> None:
        self.actor, self.critics, self.targets = actor, critics, targets
        self.log_alpha, self.target_entropy = log_alpha, target_entropy
        self.gamma, self.tau, self.actor_every = gamma, tau, actor_every
        self._device, self._bfloat16 = log_alpha.device.type, bfloat16
        self._critic_loss = compiled(critic_loss) if torch_compile else critic_loss
        self._actor_loss = compiled(actor_loss) if torch_compile else actor_loss
        fused = self._device in ("cpu", "cuda")
        self.actor_optimizer = torch.optim.Adam(actor.parameters(), learning_rate, fused=fused)
        learnt_by_critics = [*critics.parameters(), *feature_parameters]
        self.critic_optimizer = torch.optim.Adam(learnt_by_critics, learning_rate, fused=fused)
        self.alpha_optimizer = torch.optim.Adam([log_alpha], learning_rate, fused=fused)
        self._critic_parameters: list[Tensor] = list(critics.parameters())
        self._target_parameters: list[Tensor] = list(targets.parameters())
        self.n_updates = 0

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All three."""
        return [self.actor_optimizer, self.critic_optimizer, self.alpha_optimizer]

    def update(
        self,
        batch: Transitions,
        penalty: Tensor | None = None,
        actor_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One gradient step on critics, actor and temperature.

        Args:
            batch: What to learn from; only the critics' loss reaches what its features come from.
            penalty: Added to the critics' loss, such as one on an encoder of the features.
            actor_features: The batch's features as the actor's loss reaches what they come from;
                without them it reaches the actor only.

        Returns:
            What to log.
        """
        alpha = self.log_alpha.detach().exp()
        with self._precision():
            of = (self.critics, self.targets, self.actor)
            loss_q = self._critic_loss(*of, batch, self.gamma, alpha)
        self.critic_optimizer.zero_grad()
        total = loss_q if penalty is None else loss_q + penalty
        total.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        logs = {"critic_loss": loss_q.detach(), "ent_coef": alpha}
        if self.n_updates % self.actor_every == 0:
            features = batch.features.detach() if actor_features is None else actor_features
            logs |= self._update_actor(features, alpha)
        with torch.no_grad():
            torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self.tau)
        self.n_updates += 1
        return logs

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16)

    def _update_actor(self, features: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        # The critics' own gradients are not wanted here, and skipping them saves a third.
        for parameter in self._critic_parameters:
            parameter.requires_grad_(False)
        with self._precision():
            loss, log_prob = self._actor_loss(self.critics, self.actor, features, alpha)
        self.actor_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.actor_optimizer.step()
        for parameter in self._critic_parameters:
            parameter.requires_grad_(True)
        if self.target_entropy is not None:
            # By hand: a backward pass through one product takes ten times as long.
            self.log_alpha.grad = -(log_prob + self.target_entropy)
            self.alpha_optimizer.step()
        return {"actor_loss": loss.detach(), "entropy": -log_prob}


def entropy_setting(
    ent_coef: float | str, target_entropy: float | str, action_dim: int
) -> tuple[float, float | None]:
    """Read the temperature as SB3's SAC does.

    Args:
        ent_coef: A positive number that stays; ``"auto"`` tunes it from 1, ``"auto_0.1"`` from 0.1.
        target_entropy: ``"auto"`` is minus the number of action dimensions.
        action_dim: That number.

    Returns:
        The first temperature, and the entropy it is tuned for; None if it stays.

    Raises:
        ValueError: If ``ent_coef`` is none of these.
    """
    tuned = isinstance(ent_coef, str)
    try:
        given = str(ent_coef).removeprefix("auto").lstrip("_") if tuned else ent_coef
        first = float(given or 1.0)
    except ValueError:
        first = -1.0
    if first <= 0.0 or (tuned and not str(ent_coef).startswith("auto")):
        raise ValueError(f"ent_coef={ent_coef!r}: expected a positive number, 'auto' or 'auto_0.1'")
    if not tuned:
        return first, None
    return first, -float(action_dim) if target_entropy == "auto" else float(target_entropy)
