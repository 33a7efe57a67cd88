"""GrBAL: the model adapts by a gradient step on the last transitions.

Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine, Finn, "Learning to Adapt in Dynamic, Real-World
Environments through Meta-Reinforcement Learning", ICLR 2019, arXiv 1803.11347.

=========================================  =====================================================
the method                                 here
=========================================  =====================================================
model of parameters theta                  ``GradientModel``: ``dynamics`` and ``reward``
past K and future M transitions            ``support`` and ``query``, drawn by ``batch``
theta' = theta - alpha grad L(past)        ``adapted``: one SGD step, for all envs side by side
min over theta of L(future, theta')        ``loss``, differentiated through the inner step
control with theta'                        ``adaptive_mpc.MPCPolicy``: from theta anew each step
=========================================  =====================================================

The preset ``default`` has the settings of the authors' code (window 16 + 16, three layers of 512,
both rates 0.001, ten windows a step, at most 100 epochs, random shooting with 500 candidates and
horizon 10, fits after every 5,000 env steps).

Known deviations. The reward is predicted, from (o, a, o') by a network of its own, and the inner
step contains its error; the published planner is given the true reward function, which
``reward_source="env"`` is, and ``GrBAL-EnvReward`` registers. The published code plans with theta
until the window is full; here the step is taken on as many transitions as there are, and theta is
trained for that, with windows that an episode's beginning cuts short. Means and deviations are
those of all data, not of the newest batch; actions enter as they are, in [-1, 1], where theirs are
standardised too. Validation loss is measured on the same windows after every epoch; it is the loss
after the inner step, theirs the loss before it. The cross-entropy planner acts on its last mean,
theirs on the best candidate of its last population. Once a terminal transition has been seen, a
network predicts termination, which ends an imagined return; the published envs have none. Memory
lasts through a trial of several episodes, of which the published code knows none. Optional, off by
default: ``exploration``, learnt inner rates, the cross-entropy planner (``lite`` and ``quick`` use
it), and a context (``lite`` has one): a vector that both networks see beside their input and that
the inner step moves like all other parameters, a bias transformation (Finn, Yu, Zhang, Abbeel,
Levine 2017, arXiv 1709.04905).

``MPC`` is this agent with ``adapt=False`` and all else equal, so that the two differ in the inner
step alone; the authors' own controller without adaptation has two layers of 512, batches of 128,
2,000 candidates and horizon 20.

Where a joint is disabled (``HalfCheetahDisabledJoint``, ``lite``, ``results/lite``, two seeds), the
inner step lowers the model's error by a quarter, and both seeds earn more than either of ``MPC``.
Without a context it lowered the error by 3% at most, and ``MPC`` earned as much.

Where a reward's sign is hidden (``PointFwdBwd``):

* An inner rate of 0.001 is too small to turn the predicted reward around; 0.1 does it in one step.
* What the inner step says about states on the other side of those it has seen, it has to learn
  from windows that contain both. Plans alone do not lead there: without ``exploration`` the agent
  that was wrong about the direction comes to rest. ``quick`` explores.
* Measured along the agent's own episodes, the error before the inner step can look small: one that
  runs in the right direction earns what the speed alone would predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    Heads,
    Observed,
    weighted_mean,
    windows,
)
from m3po_baselines.learning_to_adapt.adaptive_mpc import AdaptiveMPC
from m3po_bench.common.arguments import check_counts
from m3po_bench.common.history_policy import Memory
from m3po_bench.common.networks import StackedMLP

CONTEXT_RATE = 1.0
"""First inner rate of a context. It is small and has to move far to tell one task from another."""


class GradientModel(AdaptiveModel):
    """Remembers the last transitions and takes one gradient step on them.

    The memory is an ``Observed`` of shape (n, support, ...), the newest transition last, whose
    weight is 0 where nothing has happened yet.

    Args:
        obs_dim: See ``AdaptiveModel``.
        action_dim: See ``AdaptiveModel``.
        adapt: False for the same model without the inner step.
        inner_learning_rate: Of the inner step; where it is learnt, its first value.
        learn_inner_rate: Learn one inner rate per weight matrix, bias and context.
        support: Transitions K that are remembered.
        query: Transitions M behind them on which the adapted model is judged.
        hidden: Hidden widths of the dynamics.
        reward_hidden: Hidden widths of reward and termination.
        activation: ``relu`` or ``silu``.
        context: Width of the vector that dynamics and reward each see beside their input. It is a
            parameter like the others; where it is 0 there is none.

    Raises:
        ValueError: If ``context`` is negative.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        adapt: bool,
        inner_learning_rate: float,
        learn_inner_rate: bool,
        support: int,
        query: int,
        hidden: Sequence[int] = (512, 512, 512),
        reward_hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        context: int = 0,
    ) -> None:
        if context < 0:
            raise ValueError(f"context={context}: expected a width, or 0 for none")
        super().__init__(obs_dim, action_dim, reward_hidden)
        step = obs_dim + action_dim
        self.dynamics = StackedMLP(1, step + context, hidden, obs_dim, activation)
        self.reward = StackedMLP(1, step + obs_dim + context, reward_hidden, 1, activation)
        n_contexts = 2 if context else 0
        self.contexts = nn.ParameterList(torch.zeros(1, 1, context) for _ in range(n_contexts))
        self.adapt, self.support, self.query = adapt, support, query
        rates = torch.full((len(self._theta()),), inner_learning_rate)
        rates[len(rates) - n_contexts :] = CONTEXT_RATE
        self.log_rates = nn.Parameter(rates.log(), requires_grad=learn_inner_rate)

    def empty(self, n: int) -> Memory:
        """See ``AdaptiveModel``."""
        shape = (n, self.support)
        return Observed(
            obs=torch.zeros(*shape, self.obs_dim),
            action=torch.zeros(*shape, self.action_dim),
            reward=torch.zeros(shape),
            next_obs=torch.zeros(*shape, self.obs_dim),
            terminated=torch.zeros(shape),
            weight=torch.zeros(shape),
        )

    def remember(self, memory: Memory, last: Observed) -> Memory:
        """See ``AdaptiveModel``."""
        pairs = zip(memory, last, strict=True)
        return Observed(*(torch.cat([old[:, 1:], new[:, None]], 1) for old, new in pairs))

    def adapted(self, memory: Memory) -> Heads:
        """See ``AdaptiveModel``; differentiable in theta where gradients are on."""
        support = Observed(*memory)
        n = len(support.weight)
        theta = [p.expand(n, *p.shape[1:]) for p in self._theta()]
        if not self.adapt:
            return self._heads(theta)
        differentiable = torch.is_grad_enabled()
        if not differentiable:
            theta = [p.detach().requires_grad_() for p in theta]
        with torch.enable_grad():
            obs_errors, reward_errors = self.errors(self._heads(theta), support)
            # Each env has its own copy of theta, so the sum's gradient is each one's own.
            loss = weighted_mean(obs_errors + reward_errors, support.weight).sum()
            gradients = torch.autograd.grad(loss, theta, create_graph=differentiable)
        steps = zip(theta, self.log_rates.exp(), gradients, strict=True)
        return self._heads([p - rate * gradient for p, rate, gradient in steps])

    def _theta(self) -> list[Tensor]:
        """Parameters of the dynamics, those of the reward, and the contexts of both."""
        return [*self.dynamics.parameters(), *self.reward.parameters(), *self.contexts]

    def _heads(self, theta: Sequence[Tensor]) -> Heads:
        split = len(list(self.dynamics.parameters()))
        end = split + len(list(self.reward.parameters()))
        dynamics, reward, contexts = theta[:split], theta[split:end], theta[end:]
        if contexts:
            dynamics, reward = _given(dynamics, contexts[0]), _given(reward, contexts[1])
        return Heads(partial(self.dynamics.run, dynamics), partial(self.reward.run, reward))

    def piece(self, data: Observed) -> int:
        """See ``AdaptiveModel``."""
        return self.support + self.query

    def batch(self, data: Observed, n: int) -> Observed:
        """Windows of K transitions before a moment and M from it on."""
        return windows(data, n, self.support, self.query)

    def loss(self, batch: Observed) -> Tensor:
        """The adapted model's mean error on the query."""
        support = Observed(*(x[:, : self.support] for x in batch))
        query = Observed(*(x[:, self.support :] for x in batch))
        obs_errors, reward_errors = self.errors(self.adapted(support), query)
        return weighted_mean((obs_errors + reward_errors).flatten(), query.weight.flatten())


def _given(parameters: Sequence[Tensor], context: Tensor) -> list[Tensor]:
    """An MLP's parameters given the last part of its input, for all rows alike.

    What the first layer makes of that part joins its bias.
    """
    weight, bias, *rest = parameters
    seen = weight.shape[1] - context.shape[-1]
    return [weight[:, :seen], torch.baddbmm(bias, context, weight[:, seen:]), *rest]


class GrBAL(AdaptiveMPC):
    """Model-predictive control whose model takes a gradient step on the last transitions.

    Args:
        *args: See ``AdaptiveMPC``.
        adapt: False for the same controller without adaptation.
        inner_learning_rate: Of the inner step.
        learn_inner_rate: Learn the inner rates, one per weight matrix and bias from that value, one
            per context from ``CONTEXT_RATE``.
        support: Transitions K the inner step sees.
        query: Transitions M on which the adapted model is judged in training.
        **kwargs: See ``AdaptiveMPC``.
    """

    def __init__(
        self,
        *args: Any,
        adapt: bool = True,
        inner_learning_rate: float = 1e-3,
        learn_inner_rate: bool = False,
        support: int = 16,
        query: int = 16,
        **kwargs: Any,
    ) -> None:
        self.adapt, self.inner_learning_rate = adapt, inner_learning_rate
        self.learn_inner_rate = learn_inner_rate
        self.support, self.query = support, query
        check_counts(support=support, query=query)
        if inner_learning_rate <= 0.0:
            raise ValueError(
                f"inner_learning_rate={inner_learning_rate}: expected a positive number; "
                "adapt=False switches the inner step off"
            )
        super().__init__(*args, **kwargs)

    def _make_model(self, obs_dim: int, action_dim: int, **kwargs: Any) -> AdaptiveModel:
        return GradientModel(
            obs_dim, action_dim, self.adapt, self.inner_learning_rate, self.learn_inner_rate,
            self.support, self.query, **kwargs,
        )  # fmt: skip
