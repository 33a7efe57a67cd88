"""Exact returns, branched returns and errors of finite processes.

A state may be a state of an MDP or a whole history (``hidden_tasks.unroll``): the code is the same.
Sums run over the first ``horizon`` rewards, exactly; what an endless return adds lies within
``tail_bound``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """A finite controlled process: N states, A actions, X outcomes of each action.

    An outcome is a joint value of (next observation, reward). What is random is which outcome
    comes; the reward it carries and the state it leads to are fixed. A model of a process is
    the same process with other ``chances``.

    Attributes:
        initial: Distribution of the first state, shape (N,).
        chances: Distribution of outcomes, shape (N, A, X).
        successors: State that an outcome leads to, integers in [0, N), shape (N, A, X).
        rewards: Reward that an outcome carries, shape (N, A, X).

    Raises:
        ValueError: If shapes disagree or something is not a distribution.
    """

    initial: Floats
    chances: Floats
    successors: NDArray[np.intp]
    rewards: Floats

    def __post_init__(self) -> None:
        shape = self.chances.shape
        if len(shape) != 3 or not (self.successors.shape == self.rewards.shape == shape):
            raise ValueError(
                f"chances, successors and rewards have shapes {shape}, {self.successors.shape} and "
                f"{self.rewards.shape}; expected one shape (N, A, X)"
            )
        if self.initial.shape != shape[:1]:
            raise ValueError(f"initial has shape {self.initial.shape}; expected {shape[:1]}")
        for name, table in (("initial", self.initial), ("chances", self.chances)):
            if not (table.min() >= 0 and np.allclose(table.sum(-1), 1.0)):
                raise ValueError(f"{name} does not hold distributions along its last axis")

    def expected_rewards(self) -> Floats:
        """Mean reward of each action in each state, shape (N, A)."""
        means: Floats = (self.chances * self.rewards).sum(-1)
        return means


@dataclass(frozen=True)
class Case:
    """All that a bound speaks of.

    Attributes:
        real: The environment.
        model: Its model: the same process, other ``chances``.
        policy: The current policy pi, shape (N, A).
        data_policy: The data-collecting policy pi_D, shape (N, A).
    """

    real: Process
    model: Process
    policy: Floats
    data_policy: Floats


@dataclass(frozen=True)
class Measurement:
    """Exact quantities of a case over a horizon.

    Attributes:
        eps_m: Model error under pi_D.
        eps_m_prime: Model error under pi.
        eps_pi: Policy shift.
        real_return: Discounted real return of pi.
        branched_returns: Branched returns of pi, one for each rollout length asked for.
    """

    eps_m: float
    eps_m_prime: float
    eps_pi: float
    real_return: float
    branched_returns: Floats

    @property
    def gaps(self) -> Floats:
        """Branched minus real return: positive where imagination is too rosy."""
        return self.branched_returns - self.real_return


def measure(
    case: Case,
    gamma: float,
    ks: Sequence[float],
    horizon: int,
    *,
    model_rewards: bool = False,
) -> Measurement:
    """Errors, return and branched returns of a case, all exact over ``horizon`` steps.

    Args:
        case: Environment, model and policies.
        gamma: Discount.
        ks: Rollout lengths, at least 1; ``math.inf`` for full rollouts.
        horizon: Number of rewards that count.
        model_rewards: Count the rewards that the model predicts, not the known ones.
    """
    real, model = case.real, case.model
    visited = state_distributions(real, case.policy, horizon)
    collected = state_distributions(real, case.data_policy, horizon)
    discounts = gamma ** np.arange(horizon)
    reward = (case.policy * real.expected_rewards()).sum(-1)
    return Measurement(
        eps_m=_model_error(real, model, case.data_policy, collected),
        eps_m_prime=_model_error(real, model, case.policy, visited),
        eps_pi=float(total_variation(case.policy, case.data_policy).max()),
        real_return=float(discounts @ (visited @ reward)),
        branched_returns=_branched_returns(case, gamma, ks, collected, model_rewards),
    )


def state_distributions(process: Process, policy: Floats, horizon: int) -> Floats:
    """Distributions of the state at times 0 to ``horizon - 1``, shape (horizon, N)."""
    flow = policy[..., None] * process.chances
    targets = process.successors.ravel()
    states = np.empty((horizon, len(process.initial)))
    states[0] = process.initial
    for t in range(1, horizon):
        moved = (states[t - 1][:, None, None] * flow).ravel()
        states[t] = np.bincount(targets, moved, minlength=len(process.initial))
    return states


def total_variation(p: Floats, q: Floats) -> Floats:
    """Total variation between distributions along the last axis: half their L1 distance."""
    half: Floats = 0.5 * np.abs(p - q).sum(-1)
    return half


def tail_bound(gamma: float, r_max: float, horizon: int) -> float:
    """Largest absolute value of all discounted rewards from time ``horizon`` on."""
    return gamma**horizon * r_max / (1 - gamma)


def _model_error(real: Process, model: Process, policy: Floats, visited: Floats) -> float:
    per_state = (policy * total_variation(real.chances, model.chances)).sum(-1)
    # Rounding must not carry a mean of numbers in [0, 1] out of it.
    return min(1.0, float((visited @ per_state).max()))


def _branched_returns(
    case: Case, gamma: float, ks: Sequence[float], collected: Floats, model_rewards: bool
) -> Floats:
    """``sum_t gamma^t E[r_t]`` with the last ``min(t, steps)`` steps before r_t in the model."""
    horizon = len(collected)
    rewarding = case.model if model_rewards else case.real
    flow = case.policy[..., None] * case.model.chances
    # Expected reward after j model steps from each state; starts at j = 0.
    ahead: Floats = (case.policy * rewarding.expected_rewards()).sum(-1)
    occupancy = np.cumsum(gamma ** np.arange(horizon)[:, None] * collected, axis=0)
    # The model's own reward is itself the last of the k predictions.
    steps = [min(k - 1 if model_rewards else k, horizon) for k in ks]
    returns = np.empty(len(ks))
    on_the_way = 0.0  # rewards of times t < j, by rollouts from the first state
    for j in range(int(max(steps)) + 1):
        for i, wanted in enumerate(steps):
            if wanted == j:
                beyond = occupancy[horizon - 1 - j] @ ahead if j < horizon else 0.0
                returns[i] = on_the_way + gamma**j * beyond
        on_the_way += gamma**j * float(case.real.initial @ ahead)
        ahead = (flow * ahead[case.model.successors]).sum((1, 2))
    return returns


def endless_horizon(gamma: float, tolerance: float = 1e-9) -> int:
    """Steps after which all later rewards together change a return by less than the tolerance.

    Args:
        gamma: Discount in [0, 1).
        tolerance: In units of the largest reward.
    """
    if gamma == 0:
        return 1
    return max(1, math.ceil(math.log(tolerance * (1 - gamma)) / math.log(gamma)))
