"""PEARL's parts: the belief, the buffers of tasks, the plan of a collection."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Normal, kl_divergence

from m3po_baselines.pearl.belief import Belief, ContextEncoder
from m3po_baselines.pearl.collection import CollectionPlan
from m3po_baselines.pearl.task_replay import TaskReplay

ENV = "M3PO/PointFwdBwd-v0"
CHANGING = {"name": "hazard", "rate": 0.2}
Array = NDArray[Any]


class TestBelief:
    def test_is_the_normalised_product_of_its_factors(self) -> None:
        means, variances = torch.randn(3, 1), torch.rand(3, 1) + 0.2
        belief = Belief(means / variances, 1.0 / variances).product()
        grid = torch.linspace(-12.0, 12.0, 20_001)
        log_density = Normal(means, variances.sqrt()).log_prob(grid).sum(0)  # type: ignore[no-untyped-call]
        weights = torch.softmax(log_density, 0)
        mean = (weights * grid).sum()
        variance = (weights * (grid - mean).square()).sum()
        torch.testing.assert_close(belief.mean, mean[None], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(belief.variance, variance[None], rtol=1e-3, atol=1e-4)

    def test_neither_order_nor_portions_matter(self) -> None:
        encoder, context = ContextEncoder(4, (8,), 3), torch.randn(2, 10, 4)
        at_once = encoder(context).product()
        belief = Belief.prior(2, 3)
        for transition in context.flip(1).unbind(1):
            belief = belief.times(encoder(transition))
        torch.testing.assert_close(belief.mean, at_once.mean)
        torch.testing.assert_close(belief.variance, at_once.variance)

    def test_of_no_factors_is_the_prior(self) -> None:
        belief = Belief.prior(2, 3)
        assert not belief.mean.any()
        assert (belief.variance == 1.0).all()
        assert not belief.kl_from_prior().any()
        torch.manual_seed(0)
        draws = Belief.prior(20_000, 1).sample()
        assert abs(float(draws.mean())) < 0.03
        assert abs(float(draws.std()) - 1.0) < 0.03

    def test_kl_is_torchs(self) -> None:
        belief = Belief(torch.randn(4, 3), torch.rand(4, 3) + 0.1)
        expected = kl_divergence(Normal(belief.mean, belief.variance.sqrt()), Normal(0.0, 1.0))
        torch.testing.assert_close(belief.kl_from_prior(), expected.sum(-1))


def stored(task: float, time: float) -> dict[str, Any]:
    """A transition that says of itself whose it is, and from when."""
    return {
        "obs": torch.tensor([task, time]),
        "action": torch.tensor([task + 0.5]),
        "reward": 10.0 * task + time,
        "next_obs": torch.tensor([task, time + 1.0]),
        "terminated": time % 2 == 1,
    }


class TestTaskReplay:
    def test_a_sample_is_of_the_tasks_that_are_asked_for(self) -> None:
        replay = TaskReplay(3, 2, 1, 5000)
        for step in range(600):  # beyond what is first allocated
            replay.add(2, **stored(2, step))
        replay.add(0, **stored(0, 7.0))
        assert replay.sizes.tolist() == [1, 0, 600]
        data = replay.sample(torch.tensor([2, 0, 2]), 4000)
        assert (data.obs[..., 0] == torch.tensor([2.0, 0.0, 2.0])[:, None]).all()
        times = data.obs[..., 1]
        assert len(set(times[0].tolist())) > 590
        assert (data.reward == 10.0 * data.obs[..., 0] + times).all()
        assert (data.next_obs[..., 1] == times + 1.0).all()
        assert (data.not_terminated == 1.0 - times % 2).all()
        parts = [data.obs, data.action, data.reward[..., None], data.next_obs]
        assert torch.equal(data.context, torch.cat(parts, -1))

    def test_the_oldest_go_first(self) -> None:
        replay = TaskReplay(2, 2, 1, 10)
        for time in range(25):
            replay.add(1, **stored(1, time))
        assert replay.sizes.tolist() == [0, 10]
        times = replay.sample(torch.tensor([1]), 2000).obs[0, :, 1]
        assert set(times.tolist()) == set(range(15, 25))


class TestCollectionPlan:
    def test_collects_from_every_task_and_then_iteration_by_iteration(self) -> None:
        plan = CollectionPlan(3, 50, 4, 30, 20, np.random.default_rng(0))
        seen, ends = [], []
        for _ in range(9 + 2 * 12):  # episodes of 20 steps
            segment = plan.begin_episode()
            for _ in range(20):
                plan.count(segment)
            seen.append(segment)
            ends.append(plan.iteration_ended)
            if plan.iteration_ended:
                plan.begin_iteration()
        first = [(s.task, s.steps, s.from_prior) for s in seen[:9]]
        assert first == [(task, 50, True) for task in (0, 1, 2) for _ in range(3)]
        for begin in (9, 21):
            iteration = seen[begin : begin + 12]
            assert [s.from_prior for s in iteration] == [True, True, False] * 4
            assert all(len({s.task for s in iteration[i : i + 3]}) == 1 for i in (0, 3, 6, 9))
        assert {s.task for s in seen[9:]} == {0, 1, 2}
        assert [i for i, end in enumerate(ends) if end] == [20, 32]

    def test_steps_of_a_past_segment_count_for_nothing(self) -> None:
        plan = CollectionPlan(1, 0, 1, 2, 2, np.random.default_rng(0))
        first = plan.begin_episode()
        plan.count(first)
        plan.count(first)
        second = plan.begin_episode()
        assert second is not first
        plan.count(first)
        plan.count(second)
        assert plan.begin_episode() is second
