"""Random and worst cases to hold the bounds against.

``leaky_chain`` and ``unseen_switches`` are cases in which the bounds are met to first order in the
errors, so no smaller constant would do; the random cases spread over sizes, sparse and dense
chances, rosy models and policies that differ where it hurts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from m3po_bench.theory.hidden_tasks import HiddenTaskPOMDP, unroll, windows
from m3po_bench.theory.tabular import Case, Process

Floats = NDArray[np.float64]


def leaky_chain(
    eps_m: float,
    eps_pi: float = 0.0,
    *,
    slip: Literal["unmodelled", "modelled"] = "unmodelled",
    paid: Literal["leaving", "arriving"] = "leaving",
) -> Case:
    """A good state that reality leaves for a bad one, for ever, and the model does not.

    In the good state (reward 1), action 0 leaks into the bad state (reward -1) with chance
    ``eps_m``; action 1 falls into it at once. The model knows no leak. pi_D plays action 0; pi
    plays action 1 with chance ``eps_pi``.

    Args:
        eps_m: Leak, in [0, 1].
        eps_pi: Policy shift, in [0, 1].
        slip: Whether the model knows what action 1 does. ``unmodelled`` is the worst case of B2
            (the model is wrong where no data is), ``modelled`` that of B3.
        paid: Whether a step is paid for the state it leaves, or, as a model that predicts rewards
            has to find out, for the state it arrives in.
    """
    state_reward = np.array([1.0, -1.0])
    real = np.array([[[1 - eps_m, eps_m], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    model = real.copy()
    model[0, 0] = [1.0, 0.0]
    if slip == "unmodelled":
        model[0, 1] = [1.0, 0.0]
    arrive = np.broadcast_to(np.arange(2, dtype=np.intp), real.shape)
    leave = np.broadcast_to(np.arange(2, dtype=np.intp)[:, None, None], real.shape)
    rewards = state_reward[leave if paid == "leaving" else arrive]
    process = Process(np.array([1.0, 0.0]), real, arrive, rewards)
    policy = np.array([[1 - eps_pi, eps_pi], [1.0, 0.0]])
    data_policy = np.array([[1.0, 0.0], [1.0, 0.0]])
    return Case(process, replace(process, chances=model), policy, data_policy)


def unseen_switches(hazard: float, horizon: int) -> Case:
    """Task changes within the episode that the meta-model does not expect.

    Of two tasks one pays 1 and the other -1 a step, whatever is done; nothing else is seen. The
    episode starts in the paying task but for a chance of ``hazard``; the task then changes with
    that chance at each step. The meta-model is the Bayes filter that all but excludes both (not
    quite: a filter that holds them impossible could not follow a change that has happened).

    Args:
        hazard: Chance of a change, in (0, 1).
        horizon: Steps to unroll.
    """
    unexpected = 1e-9
    real = HiddenTaskPOMDP(
        first_observation=np.ones(1),
        first_task=np.array([1 - hazard, hazard]),
        hazard=hazard,
        chances=np.eye(2).reshape(2, 1, 1, 1, 2),
        levels=np.array([1.0, -1.0]),
    )
    believed = replace(real, hazard=unexpected, first_task=np.array([1 - unexpected, unexpected]))
    histories = unroll(real, horizon)
    model = replace(histories, chances=unroll(believed, horizon).chances)
    policy = np.ones((len(histories.initial), 1))
    return Case(histories, model, policy, policy)


def random_mdp(rng: Generator, *, nonnegative: bool = False) -> Case:
    """A random MDP with 2 to 5 states, 2 or 3 actions and random rewards, ``|r| <= 1``.

    Args:
        rng: Source of randomness.
        nonnegative: Draw rewards from [0, 1] instead of [-1, 1].
    """
    states, actions, levels = int(rng.integers(2, 6)), int(rng.integers(2, 4)), 2
    shape = (states, actions, states * levels)
    reached = np.arange(states * levels, dtype=np.intp) // levels
    low = 0.0 if nonnegative else -1.0
    paid = rng.uniform(low, 1.0, (states, 1, 1)) if rng.random() < 0.5 else _extremes(rng, low)
    rewards = np.where(rng.random(shape) < 0.5, paid, _extremes(rng, low))
    real = Process(
        initial=_distributions(rng, (states,)),
        chances=_distributions(rng, shape),
        successors=np.broadcast_to(reached, shape),
        rewards=rewards,
    )
    data_policy = _distributions(rng, (states, actions))
    return _case(rng, real, _distributions(rng, shape), data_policy)


def random_hidden_tasks(rng: Generator, horizon: int, *, nonnegative: bool = False) -> Case:
    """A random POMDP with 1 to 3 hidden tasks, 2 observations, 2 actions and 2 reward levels.

    The meta-model is a random table on windows of the last one or two steps or the Bayes filter of
    another POMDP (often one that takes tasks for constant), then mixed with the truth; the policies
    are tables on such windows.

    Args:
        rng: Source of randomness.
        horizon: Steps to unroll.
        nonnegative: Draw rewards from [0, 1] instead of [-1, 1].
    """
    tasks, seen, actions, levels = int(rng.integers(1, 4)), 2, 2, 2

    def draw_chances() -> Floats:
        shape = (tasks, seen, actions, seen * levels)
        return _distributions(rng, shape).reshape(tasks, seen, actions, seen, levels)

    low = 0.0 if nonnegative else -1.0
    hazard = float(rng.choice([0.0, 0.01, 0.3, rng.random()])) if tasks > 1 else 0.0
    pomdp = HiddenTaskPOMDP(
        first_observation=_distributions(rng, (seen,)),
        first_task=_distributions(rng, (tasks,)),
        hazard=hazard,
        chances=draw_chances(),
        levels=np.array([low, 1.0]) if rng.random() < 0.5 else rng.uniform(low, 1.0, levels),
    )
    real = unroll(pomdp, horizon)
    memory = windows(real, horizon, length=int(rng.integers(1, 3)))
    kinds = int(memory[-1]) + 1
    if rng.random() < 0.5:
        other = _distributions(rng, (kinds, *real.chances.shape[1:]))[memory]
    else:
        mistaken = replace(pomdp, hazard=0.0, first_task=_distributions(rng, (tasks,)))
        if rng.random() < 0.5:
            mistaken = replace(mistaken, chances=draw_chances())
        other = unroll(mistaken, horizon).chances
    data_policy = _distributions(rng, (kinds, actions))[memory]
    return _case(rng, real, other, data_policy)


def random_chain(rng: Generator) -> Case:
    """A ``leaky_chain`` with random errors from 0.001 to 1 (at times no policy shift).

    Args:
        rng: Source of randomness.
    """
    eps_m, eps_pi = 10 ** rng.uniform(-3, 0, 2)
    return leaky_chain(
        float(eps_m),
        float(eps_pi * rng.integers(2)),
        slip="modelled" if rng.random() < 0.5 else "unmodelled",
        paid="arriving" if rng.random() < 0.5 else "leaving",
    )


def _case(rng: Generator, real: Process, other: Floats, data_policy: Floats) -> Case:
    """Model and policy a drawn distance from reality and data, at random or adversarially."""
    worth = _action_values(real, data_policy)
    if rng.random() < 0.5:
        # Rosy: what the model gets wrong, it takes for the best that could happen.
        ahead = (data_policy * worth).sum(-1)
        best = (real.rewards + 0.9 * ahead[real.successors]).argmax(-1)
        other = np.eye(real.chances.shape[2])[best]
    model = replace(real, chances=_blend(rng, real.chances, other))
    shifted = _distributions(rng, data_policy.shape)
    if rng.random() < 0.7:
        judged = worth if rng.random() < 0.5 else -worth
        shifted = np.eye(data_policy.shape[1])[judged.argmax(-1)]
    return Case(real, model, _blend(rng, data_policy, shifted), data_policy)


def _action_values(process: Process, policy: Floats, sweeps: int = 10) -> Floats:
    values = np.zeros(policy.shape)
    for _ in range(sweeps):
        ahead = (policy * values).sum(-1)
        values = (process.chances * (process.rewards + 0.9 * ahead[process.successors])).sum(-1)
    return values


def _blend(rng: Generator, kept: Floats, other: Floats) -> Floats:
    share = rng.choice([0.0, 10 ** rng.uniform(-3, 0), rng.random(), 1.0], p=[0.1, 0.5, 0.3, 0.1])
    blend: Floats = (1 - share) * kept + share * other
    return blend


def _distributions(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Random distributions along the last axis, from near-deterministic to near-uniform."""
    weights = rng.gamma(rng.choice([0.05, 0.3, 1.0, 5.0]), size=shape) + 1e-12
    drawn: Floats = weights / weights.sum(-1, keepdims=True)
    return drawn


def _extremes(rng: Generator, low: float) -> Floats:
    return rng.choice([low, 1.0], (1, 1, 1))
