"""Inner steps, advantages and the trust region against answers that are known."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from m3po_baselines.maml.inner_step import Batch, Gaussian, GaussianMLP, InnerStep
from m3po_baselines.maml.trajectories import (
    EMPTY,
    Trajectories,
    discounted_sums,
    linear_baseline,
    normalized_advantages,
)
from m3po_baselines.maml.trust_region import trust_region_step

TASKS, STEPS, OBS, ACTIONS = 3, 6, 2, 2


@pytest.fixture
def network() -> GaussianMLP:
    torch.manual_seed(0)
    return GaussianMLP(OBS, ACTIONS, [4], "tanh", init_std=0.7, min_std=1e-3).double()


def batch_of(network: GaussianMLP, seed: int) -> Batch:
    """Actions that the network drew in several tasks, with random advantages."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(TASKS, STEPS, *shape, generator=generator, dtype=torch.float64)

    obs = normal(OBS)
    with torch.no_grad():
        drawn_from = network(obs)
        action = drawn_from.sample(normal(ACTIONS))
    weight = torch.full((TASKS, STEPS), 1.0 / STEPS, dtype=torch.float64)
    return Batch(obs, action, normal(), weight, drawn_from)


def test_densities_and_divergences_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, other = (Gaussian(torch.randn(5, 3), torch.randn(5, 3)) for _ in range(2))
    action = torch.randn(5, 3)
    normal, of_other = (Normal(g.mean, g.log_std.exp()) for g in (ours, other))
    log_prob = normal.log_prob(action)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours.log_prob(action), log_prob.sum(-1))
    torch.testing.assert_close(ours.kl_to(other), kl_divergence(normal, of_other).sum(-1))


@pytest.mark.parametrize("loss", ["log_likelihood", "likelihood_ratio"])
def test_inner_step_is_the_gradient_by_hand(network: GaussianMLP, loss: str) -> None:
    """Task by task, by autograd on a copy of the network: no vmap, no functional call."""
    batch = batch_of(network, 1)
    adapted = InnerStep(network, 0.3, loss).adapt(network.flat(), batch)
    for i in range(TASKS):
        copy = deepcopy(network)
        now = copy(batch.obs[i])
        deviation = (batch.action[i] - now.mean) / now.log_std.exp()
        density = (-0.5 * deviation**2 - now.log_std).sum(-1)  # up to a constant
        mean = -(density * batch.advantage[i]).mean()
        gradients = torch.autograd.grad(mean, list(copy.parameters()))
        by_hand = [p - 0.3 * g for p, g in zip(copy.parameters(), gradients, strict=True)]
        torch.testing.assert_close(adapted[i], parameters_to_vector(by_hand))


def test_adapted_parameters_act_as_a_network_that_has_them(network: GaussianMLP) -> None:
    flat = torch.randn(TASKS, network.flat().numel(), dtype=torch.float64)
    obs = torch.randn(TASKS, STEPS, OBS, dtype=torch.float64)
    together = network.at_each(flat, obs)
    for i in range(TASKS):
        copy = deepcopy(network)
        vector_to_parameters(flat[i], copy.parameters())
        torch.testing.assert_close(together.mean[i], copy(obs[i]).mean)
        torch.testing.assert_close(together.log_std[i], copy(obs[i]).log_std)


@pytest.mark.parametrize("loss", ["log_likelihood", "likelihood_ratio"])
def test_gradient_through_the_inner_step_against_finite_differences(
    network: GaussianMLP, loss: str
) -> None:
    before, after = batch_of(network, 1), batch_of(network, 2)
    step = InnerStep(network, 0.5, loss)

    def outer(theta: Tensor) -> Tensor:
        now = network.at_each(step.adapt(theta, before), after.obs)
        return after.mean(after.advantage * after.ratio(now))

    theta = network.flat().detach().requires_grad_()
    assert torch.autograd.gradcheck(outer, (theta,))
    # The derivative of the step itself must be in it, not only that of its result.
    (exact,) = torch.autograd.grad(outer(theta), theta)
    phi = step.adapt(theta, before).detach().requires_grad_()
    value = after.mean(after.advantage * after.ratio(network.at_each(phi, after.obs)))
    (first_order,) = torch.autograd.grad(value, phi)
    assert (exact - first_order.sum(0)).abs().max() > 1e-3


def test_likelihood_ratio_has_the_curvature_that_log_likelihood_lacks(network: GaussianMLP) -> None:
    """Same gradient; the Hessians differ by the products of scores (Rothfuss et al. 2019)."""
    several = batch_of(network, 1)
    drawn_from = Gaussian(several.drawn_from.mean[:1], several.drawn_from.log_std[:1])
    batch = Batch(
        several.obs[:1], several.action[:1], several.advantage[:1], several.weight[:1], drawn_from
    )
    theta = network.flat().detach()
    losses = [InnerStep(network, 1.0, n)._loss for n in ("log_likelihood", "likelihood_ratio")]

    def at(flat: Tensor, i: int) -> Tensor:
        return losses[i](network.at(flat, batch.obs), batch)

    gradients = [torch.func.grad(at)(theta, i) for i in (0, 1)]
    torch.testing.assert_close(*gradients)
    hessians = [torch.func.hessian(at)(theta, i) for i in (0, 1)]

    def log_probs(flat: Tensor) -> Tensor:
        return network.at(flat, batch.obs).log_prob(batch.action)[0]

    scores = torch.func.jacrev(log_probs)(theta)
    products = -(scores.T * batch.advantage[0] * batch.weight[0]) @ scores
    torch.testing.assert_close(hessians[1] - hessians[0], products)


def test_scores_are_the_gradient_by_hand_of_who_drew(network: GaussianMLP) -> None:
    """At the drawing policy the policy gradient; elsewhere linear in mean and log deviation."""
    batch, theta = batch_of(network, 1), network.flat().detach()
    expected = InnerStep(network, 0.3, "log_likelihood").adapt(theta, batch)
    step = InnerStep(network, 0.3, "score")
    torch.testing.assert_close(step.adapt(theta, batch), expected)
    # All means and actions moved together by ten: still the same noise, and the same step.
    far = Gaussian(batch.drawn_from.mean + 10.0, batch.drawn_from.log_std)
    moved = batch._replace(action=batch.action + 10.0, drawn_from=far)
    torch.testing.assert_close(step.adapt(theta, moved), expected)


def test_trust_region_step_of_a_quadratic_is_the_closed_form() -> None:
    """min g.x within x'Ax/2 <= d has the solution -sqrt(2d / g'A^-1 g) A^-1 g."""
    torch.manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64)
    curvature = root @ root.T + torch.eye(5, dtype=torch.float64)
    gradient = torch.randn(5, dtype=torch.float64)
    start = torch.randn(5, dtype=torch.float64)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return gradient @ x, 0.5 * (x - start) @ curvature @ (x - start) * (1.0 - 1e-9)

    step = trust_region_step(objective, start, max_kl=0.02, damping=1e-12)
    natural = torch.linalg.solve(curvature, gradient)
    expected = start - (2 * 0.02 / (gradient @ natural)).sqrt() * natural
    assert step.accepted
    torch.testing.assert_close(step.parameters, expected, rtol=1e-4, atol=1e-6)
    assert step.kl <= 0.02
    assert step.loss < step.loss_before


def test_trust_region_keeps_its_limit_where_the_quadratic_is_wrong() -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sum(), 0.5 * (x**2).sum() + 300.0 * (x**4).sum()

    step = trust_region_step(objective, torch.zeros(3, dtype=torch.float64), max_kl=0.05)
    assert step.accepted
    assert 0.01 < step.kl <= 0.05


def test_trust_region_without_a_better_point_stays() -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return -(x**2).sum() * 0.0 + x.detach().abs().sum() + 0.0 * x.sum(), 0.5 * (x**2).sum()

    step = trust_region_step(objective, torch.zeros(3), max_kl=0.05)
    assert not step.accepted
    assert not step.parameters.any()


def test_sums_stop_where_an_episode_does() -> None:
    time = np.array([[0, 1, 2, 0, 1], [EMPTY, EMPTY, 7, 8, 0]])
    zeros = np.zeros((2, 5, 1))
    trajectories = Trajectories(zeros, zeros, np.ones((2, 5)), time)
    expected = [[1, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(trajectories.continues, np.array(expected, bool))
    sums = discounted_sums(trajectories.reward * trajectories.filled, trajectories.continues, 0.5)
    np.testing.assert_allclose(sums, [[1.75, 1.5, 1.0, 1.5, 1.0], [0, 0, 1.5, 1.0, 1.0]])


def random_trajectories(n_steps: int = 40, empty: int = 0) -> Trajectories:
    rng = np.random.default_rng(0)
    time = np.arange(n_steps) % 20
    time = np.tile(time, (2, 1))
    time[1, :empty] = EMPTY
    obs = rng.normal(size=(2, n_steps, 3))
    return Trajectories(obs, obs[..., :1], rng.normal(size=(2, n_steps)), time)


def test_baseline_finds_what_is_linear_in_its_features() -> None:
    found = random_trajectories()
    returns = 3.0 - 2.0 * found.obs[..., 1] + found.obs[..., 2] ** 2 + 0.1 * found.time
    np.testing.assert_allclose(linear_baseline(found, returns, 1e-8), returns, atol=1e-4)
    assert np.abs(linear_baseline(found, returns, 1e4)).max() < 0.5 * np.abs(returns).max()


def test_advantages_are_gae_by_its_definition() -> None:
    found = random_trajectories(empty=5)
    gamma, lam, ridge = 0.9, 0.8, 1.0
    ours = normalized_advantages(found, gamma, lam, ridge)
    rewards = found.reward * found.filled
    values = linear_baseline(found, discounted_sums(rewards, found.continues, gamma), ridge)
    for i in range(2):
        rows = [t for t in range(40) if found.time[i, t] >= 0]
        raw = []
        for t in rows:
            end = t + (20 - found.time[i, t])
            later = range(t, end)
            errors = [
                found.reward[i, k] + (gamma * values[i, k + 1] if k + 1 < end else 0) - values[i, k]
                for k in later
            ]
            raw.append(sum((gamma * lam) ** j * error for j, error in enumerate(errors)))
        expected = (np.array(raw) - np.mean(raw)) / np.std(raw)
        np.testing.assert_allclose(ours[i, rows], expected, rtol=1e-4, atol=1e-4)
    assert not ours[1, :5].any()
