"""Losses against autograd and closed forms, and one update against SB3's arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from m3po_bench.common.soft_actor_critic import (
    Actor,
    Critics,
    SoftActorCritic,
    Transitions,
    cpp_compiler,
    critic_loss,
)


def parts(seed: int = 0) -> tuple[Actor, Critics, Critics]:
    torch.manual_seed(seed)
    return (
        Actor(4, 2, (8,)),
        Critics(4, 2, (8,), n=2, layer_norm=False),
        Critics(4, 2, (8,), n=2, layer_norm=False),
    )


def batch(n: int = 16) -> Transitions:
    return Transitions(
        torch.randn(n, 4), torch.rand(n, 2) * 2 - 1, torch.randn(n), torch.randn(n, 4),
        (torch.rand(n) > 0.3).float(),
    )  # fmt: skip


def learner(rate: float, **settings: bool) -> SoftActorCritic:
    """A new one, always the same; updates draw the same noise."""
    log_alpha = torch.zeros((), requires_grad=True)
    sac = SoftActorCritic(*parts(), log_alpha, rate, 0.99, 0.1, -2.0, **settings)  # type: ignore[arg-type]
    torch.manual_seed(1)
    return sac


def test_log_density_of_a_squashed_gaussian() -> None:
    actor, _, _ = parts()
    features = torch.randn(32, 4)
    action, log_prob = actor.act_with_log_prob(features)
    mean, log_std = actor(features)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    expected = reference.log_prob(  # type: ignore[no-untyped-call]
        action.clamp(-0.999999, 0.999999)
    ).sum(-1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(actor.act(features, deterministic=True), torch.tanh(mean))


def test_target_stops_where_the_episode_does() -> None:
    actor, critics, targets = parts()
    data = batch()._replace(not_terminated=torch.zeros(16))
    loss = critic_loss(critics, targets, actor, data, 0.99, torch.tensor(0.5))
    values = critics(data.features, data.action)
    expected = 0.5 * ((values - data.reward) ** 2).mean(1).sum()
    torch.testing.assert_close(loss, expected)


def test_an_update_moves_each_part_as_it_should() -> None:
    actor, critics, targets = parts()
    log_alpha = torch.zeros((), requires_grad=True)
    sac = SoftActorCritic(actor, critics, targets, log_alpha, 1e-2, 0.99, 0.1, -2.0, actor_every=2)
    before = [p.detach().clone() for p in targets.parameters()]
    actor_before = [p.detach().clone() for p in actor.parameters()]
    sac.update(batch())
    for old, new, online in zip(before, targets.parameters(), critics.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), 0.9 * old + 0.1 * online.detach())
    moved = [not torch.equal(a, b) for a, b in zip(actor_before, actor.parameters(), strict=True)]
    assert all(moved)
    actor_now = [p.detach().clone() for p in actor.parameters()]
    sac.update(batch())  # the second critic update leaves the actor alone
    assert all(torch.equal(a, b) for a, b in zip(actor_now, actor.parameters(), strict=True))
    assert all(p.requires_grad for p in critics.parameters())


def test_temperature_falls_where_entropy_is_above_its_target() -> None:
    for target, direction in ((-20.0, -1), (20.0, 1)):
        actor, critics, targets = parts()
        log_alpha = torch.zeros((), requires_grad=True)
        sac = SoftActorCritic(actor, critics, targets, log_alpha, 1e-2, 0.99, 0.1, target)
        sac.update(batch())
        assert math.copysign(1, float(log_alpha.detach())) == direction


def test_solves_a_bandit_whose_answer_is_known() -> None:
    """Reward -(a - 0.5)^2, one step: the actor must end up near 0.5, the value near the reward."""
    torch.manual_seed(0)
    actor, critics = Actor(1, 1, (32,)), Critics(1, 1, (32,), 2, False)
    targets = Critics(1, 1, (32,), 2, False)
    log_alpha = torch.tensor(-5.0, requires_grad=True)
    sac = SoftActorCritic(actor, critics, targets, log_alpha, 3e-3, 0.9, 0.05, None)
    for _ in range(800):
        action = torch.rand(64, 1) * 2 - 1
        reward = -((action[:, 0] - 0.5) ** 2)
        sac.update(
            Transitions(torch.zeros(64, 1), action, reward, torch.zeros(64, 1), torch.zeros(64))
        )
    best = actor.act(torch.zeros(1, 1), deterministic=True)
    assert abs(float(best) - 0.5) < 0.1
    values = critics(torch.zeros(2, 1), torch.tensor([[0.5], [-0.5]])).mean(0)
    assert abs(float(values[0].detach())) < 0.1
    assert abs(float(values[1].detach()) + 1.0) < 0.15


def test_an_update_in_bfloat16_is_nearly_the_same_and_keeps_parameters_in_float32() -> None:
    moved = {}
    for bfloat16 in (False, True):
        sac = learner(1e-2, bfloat16=bfloat16)
        logs = sac.update(batch())
        learnt = (*sac.actor.parameters(), *sac.critics.parameters())
        assert all(value.dtype == torch.float32 for value in (*logs.values(), *learnt))
        moved[bfloat16] = logs["critic_loss"]
    torch.testing.assert_close(moved[True], moved[False], rtol=0.02, atol=0.0)
    assert moved[True] != moved[False]


@pytest.mark.skipif(cpp_compiler() is None, reason="without a C++ compiler")
def test_a_compiled_update_differs_by_rounding_only() -> None:
    after = []
    for torch_compile in (False, True):
        sac = learner(1e-3, torch_compile=torch_compile)
        losses = [sac.update(batch())["critic_loss"] for _ in range(3)]
        learnt = (*sac.actor.parameters(), *sac.targets.parameters())
        after.append((torch.stack(losses), torch.cat([p.detach().flatten() for p in learnt])))
    torch.testing.assert_close(after[1], after[0], rtol=1e-4, atol=1e-5)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="C\\+\\+ compiler, but 'no-such-compiler'"):
        SoftActorCritic(*parts(), torch.zeros(()), 1e-3, 0.99, 0.1, None, torch_compile=True)
