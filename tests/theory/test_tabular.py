"""Exact quantities against formulas that share no code with them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from m3po_bench.theory.cases import leaky_chain, random_mdp
from m3po_bench.theory.tabular import (
    Case,
    Floats,
    Process,
    endless_horizon,
    measure,
    state_distributions,
    tail_bound,
    total_variation,
)

KS = [1, 2, 3, 7, math.inf]


def matrix(process: Process, policy: Floats) -> Floats:
    states = len(process.initial)
    moves = np.zeros((states, states))
    for s, a, x in np.ndindex(process.chances.shape):
        moves[s, process.successors[s, a, x]] += policy[s, a] * process.chances[s, a, x]
    return moves


def endless_branched_return(case: Case, gamma: float, steps: float, reward: Floats) -> float:
    """By linear algebra: rollouts from the start, then those from every real state after it."""
    real, imagined = matrix(case.real, case.data_policy), matrix(case.model, case.policy)
    start, unit = case.real.initial, np.eye(len(reward))
    if steps == math.inf:
        return float(start @ np.linalg.solve(unit - gamma * imagined, reward))
    ways = [np.linalg.matrix_power(imagined, j) for j in range(int(steps) + 1)]
    first = sum(gamma**t * start @ ways[t] @ reward for t in range(int(steps)))
    occupancy = np.linalg.solve((unit - gamma * real).T, start)
    return float(first + gamma**steps * occupancy @ ways[-1] @ reward)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99])
def test_returns_against_linear_algebra(seed: int, gamma: float) -> None:
    case = random_mdp(np.random.default_rng(seed))
    horizon = endless_horizon(gamma)
    for predicted in (False, True):
        exact = measure(case, gamma, KS, horizon, model_rewards=predicted)
        source = case.model if predicted else case.real
        reward = (case.policy * (source.chances * source.rewards).sum(-1)).sum(-1)
        expected = [endless_branched_return(case, gamma, k - predicted, reward) for k in KS]
        np.testing.assert_allclose(exact.branched_returns, expected, atol=1e-7)
    truth = replace(case, model=case.real)
    reward = (case.policy * case.real.expected_rewards()).sum(-1)
    full = endless_branched_return(truth, gamma, math.inf, reward)
    assert exact.real_return == pytest.approx(full, abs=1e-7)


def test_errors_by_hand() -> None:
    exact = measure(leaky_chain(0.2, 0.1), gamma=0.9, ks=[1], horizon=50)
    assert exact.eps_m == pytest.approx(0.2)
    # At first the policy is in the good state: 0.9 of the leak and 0.1 of the unmodelled slip.
    assert exact.eps_m_prime == pytest.approx(0.9 * 0.2 + 0.1)
    assert exact.eps_pi == pytest.approx(0.1)
    modelled = measure(leaky_chain(0.2, 0.1, slip="modelled"), gamma=0.9, ks=[1], horizon=50)
    assert modelled.eps_m_prime == pytest.approx(0.9 * 0.2)


def test_exact_model_on_its_own_data_has_no_gap() -> None:
    case = random_mdp(np.random.default_rng(1))
    case = replace(case, model=case.real, policy=case.data_policy)
    exact = measure(case, 0.9, KS, 80)
    assert (exact.eps_m, exact.eps_m_prime, exact.eps_pi) == (0, 0, 0)
    np.testing.assert_allclose(exact.gaps, 0, atol=1e-12)


def test_distributions_and_tail() -> None:
    case = random_mdp(np.random.default_rng(3))
    visited = state_distributions(case.real, case.policy, 5)
    expected = case.real.initial @ np.linalg.matrix_power(matrix(case.real, case.policy), 4)
    np.testing.assert_allclose(visited[4], expected)
    np.testing.assert_allclose(visited.sum(1), 1)
    assert total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == 0.75
    for gamma in (0.0, 0.5, 0.99):
        horizon = endless_horizon(gamma, 1e-6)
        assert tail_bound(gamma, 1.0, horizon) <= 1e-6
        assert horizon == 1 or tail_bound(gamma, 1.0, horizon - 1) > 1e-6


def test_process_refuses() -> None:
    good = leaky_chain(0.1).real
    with pytest.raises(ValueError, match="expected one shape"):
        replace(good, rewards=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="initial has shape"):
        replace(good, initial=np.ones(1))
    with pytest.raises(ValueError, match="chances does not hold distributions"):
        replace(good, chances=good.chances * 2)
    with pytest.raises(ValueError, match="initial does not hold distributions"):
        replace(good, initial=np.array([2.0, -1.0]))
