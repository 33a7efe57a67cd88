"""Histories of a POMDP against its hidden states, which the unrolled process never sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m3po_bench.theory.hidden_tasks import HiddenTaskPOMDP, unroll, windows
from m3po_bench.theory.tabular import Case, Floats, measure, state_distributions

TASKS, SEEN, ACTIONS, LEVELS = 3, 2, 2, 2
HORIZON = 4


def random_pomdp(seed: int, hazard: float = 0.3) -> HiddenTaskPOMDP:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(SEEN * LEVELS, 0.4), (TASKS, SEEN, ACTIONS))
    return HiddenTaskPOMDP(
        first_observation=rng.dirichlet(np.ones(SEEN)),
        first_task=rng.dirichlet(np.ones(TASKS)),
        hazard=hazard,
        chances=chances.reshape(TASKS, SEEN, ACTIONS, SEEN, LEVELS),
        levels=np.array([-1.0, 0.7]),
    )


def hidden_return(pomdp: HiddenTaskPOMDP, policy: Floats, gamma: float) -> float:
    """Over all paths of tasks, observations, actions and rewards; no belief is computed."""
    total = 0.0
    offsets = [0]
    for t in range(HORIZON):
        offsets.append(offsets[-1] + SEEN * (ACTIONS * SEEN * LEVELS) ** t)
    paths = [
        (p * q, z, o, o)
        for z, p in enumerate(pomdp.first_task)
        for o, q in enumerate(pomdp.first_observation)
    ]
    for t in range(HORIZON):
        later = []
        for chance, task, seen, index in paths:
            for a, o, r in np.ndindex(ACTIONS, SEEN, LEVELS):
                step = chance * policy[offsets[t] + index, a] * pomdp.chances[task, seen, a, o, r]
                total += gamma**t * step * pomdp.levels[r]
                following = (index * ACTIONS + a) * SEEN * LEVELS + o * LEVELS + r
                for z in range(TASKS) if t + 1 < HORIZON else ():
                    moved = 1 - pomdp.hazard if z == task else pomdp.hazard / (TASKS - 1)
                    later.append((step * moved, z, o, following))
        paths = later
    return total


@pytest.mark.parametrize("seed", range(2))
def test_returns_against_hidden_states(seed: int) -> None:
    pomdp = random_pomdp(seed)
    real = unroll(pomdp, HORIZON)
    policy = np.random.default_rng(seed).dirichlet(np.ones(ACTIONS), len(real.initial))
    exact = measure(Case(real, real, policy, policy), 0.9, [1], HORIZON)
    assert exact.real_return == pytest.approx(hidden_return(pomdp, policy, 0.9))
    # The tree pays nothing after its horizon, and everything ends there.
    longer = measure(Case(real, real, policy, policy), 0.9, [1], HORIZON + 3)
    assert longer.real_return == pytest.approx(exact.real_return)
    assert state_distributions(real, policy, HORIZON + 1)[-1, -1] == pytest.approx(1)


def test_filter_follows_a_change_of_task() -> None:
    seen_reward = np.eye(2).reshape(2, 1, 1, 1, 2)
    pomdp = HiddenTaskPOMDP(np.ones(1), np.array([0.5, 0.5]), 0.25, seen_reward, np.array([1, -1]))
    real = unroll(pomdp, 3)
    np.testing.assert_allclose(pomdp.task_chain, [[0.75, 0.25], [0.25, 0.75]])
    # The first reward tells the task; then it changes with chance 1/4.
    first, good, bad = real.chances[:3, 0]
    np.testing.assert_allclose([first, good, bad], [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]])
    # A filter that excludes changes keeps its mind after the impossible.
    constant = unroll(replace(pomdp, hazard=0.0), 3)
    after_good = constant.chances[[1, 3, 4], 0]  # and then after good, after bad
    np.testing.assert_allclose(after_good, np.array([[1.0, 0.0]] * 3))


def test_windows() -> None:
    real = unroll(random_pomdp(0), HORIZON)
    branching = ACTIONS * SEEN * LEVELS
    for length in (1, 2):
        ids = windows(real, HORIZON, length)
        assert ids.shape == real.initial.shape
        own = SEEN * (branching**length - 1) // (branching - 1)
        assert ids[-1] + 1 == len(np.unique(ids)) == own + branching**length + 1
    # Two histories of three steps: the same last two, another first one.
    starts = len(ids) - 1 - SEEN * branching**3
    assert ids[starts + 5] == ids[starts + branching**2 + 5] != ids[starts + 6]
    assert len(np.unique(windows(real, HORIZON, 99))) == len(real.initial)


def test_refuses() -> None:
    good = random_pomdp(0)
    with pytest.raises(ValueError, match="chances has shape"):
        replace(good, levels=np.zeros(3))
    for hazard in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="hazard is"):
            replace(good, hazard=hazard)
    with pytest.raises(ValueError, match="0 where there is one task"):
        replace(good, first_task=np.ones(1), chances=good.chances[:1])
