"""GHP-MDP: the posterior, the bound, and that latents are worth something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from m3po_baselines import GHPMDP
from m3po_baselines.ghp_mdp.ghp_mdp import Gaussian, LatentModel
from m3po_baselines.learning_to_adapt.adaptive_model import Observed
from m3po_baselines.learning_to_adapt.fitting import ModelFitter
from m3po_bench import make_agent
from m3po_bench.common.sequence_replay import SequenceReplay

POINT = "M3PO/PointFwdBwd-v0"


def latent_model(**kwargs: Any) -> LatentModel:
    settings: dict[str, Any] = {
        "latent_dim": 2, "ensemble_size": 2, "hidden": [32], "reward_hidden": [32],
        "encoder_hidden": [32],
    }  # fmt: skip
    return LatentModel(1, 1, 8, 8, **{**settings, **kwargs})


def test_posterior_is_the_product_of_prior_and_factors() -> None:
    """Two measurements of one unknown, of variances 1/2 and 1/3, with a prior of variance 1."""
    model = latent_model()
    factors = Gaussian(torch.tensor([[[1.0], [4.0]]]), torch.tensor([[[2.0], [3.0]]]))
    found = model.posterior(factors)
    assert found.precision.item() == pytest.approx(6.0)
    assert found.mean.item() == pytest.approx((2.0 * 1.0 + 3.0 * 4.0) / 6.0)
    swapped = model.posterior(Gaussian(*(x.flip(1) for x in factors)))
    torch.testing.assert_close(swapped, found)
    nothing = model.posterior(Gaussian(*model.empty(2)))
    assert nothing.mean.abs().max() == 0.0
    assert (nothing.precision == 1.0).all()


def test_divergence_is_that_of_two_normals() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (
        Gaussian(torch.randn(5, generator=g), 0.1 + torch.rand(5, generator=g)) for _ in range(2)
    )
    expected = kl_divergence(
        Normal(p.mean, p.precision.rsqrt()), Normal(q.mean, q.precision.rsqrt())
    )
    torch.testing.assert_close(p.kl(q), expected)


def test_acting_infers_what_training_infers_and_forgets_the_oldest(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model, data = latent_model(), random_observed(3, 11)
    memory = model.empty(3)
    for t in range(11):
        memory = model.remember(memory, Observed(*(x[:, t] for x in data)))
    last = Observed(*(x[:, 3:] for x in data))
    torch.testing.assert_close(
        model.posterior(Gaussian(*memory)), model.posterior(model.factors(last))
    )


def test_loss_is_the_negative_bound_per_transition_and_output(
    random_observed: Callable[..., Observed],
) -> None:
    torch.manual_seed(0)
    model, batch = latent_model(beta=0.0, ensemble_size=1), random_observed(4, 16)
    batch.weight[0, 12:] = 0.0  # a window that ends early
    batch.weight[1, :8] = 0.0  # a window that begins with its episode
    torch.manual_seed(7)
    found = model.loss(batch)
    torch.manual_seed(7)
    factors = model.factors(batch)
    past = model.posterior(Gaussian(*(x[:, :8] for x in factors)))
    assert (past.precision[1] == 1.0).all()
    both = model.posterior(factors)
    z = both.sample()
    total = torch.zeros(2)
    for i in range(4):
        for t in range(8, 16):
            if batch.weight[i, t] == 0:
                continue
            o, a, after = batch.obs[i, t], batch.action[i, t], batch.next_obs[i, t]
            for k, (net, inputs, target) in enumerate((
                (model.dynamics, [o, a, z[i, :2]], after - o),
                (model.reward, [o, a, after, z[i, 2:]], batch.reward[i, t : t + 1]),
            )):  # fmt: skip
                mean, log_var = net(torch.cat(inputs)[None])
                normal = Normal(mean[0, 0], (0.5 * log_var[0, 0]).exp())
                total[k] -= normal.log_prob(target).sum()  # type: ignore[no-untyped-call]
    normals = [Normal(g.mean, g.precision.rsqrt()) for g in (both, past)]
    divergence = kl_divergence(*normals).sum(0)
    bound = total + torch.stack([divergence[:2].sum(), divergence[2:].sum()])
    count = batch.weight[:, 8:].sum()
    constant = 2 * 0.5 * np.log(2 * np.pi)  # of two log densities, which the loss leaves out
    assert found.item() == pytest.approx(2 * (bound.sum() / count - constant).item(), rel=1e-4)


def test_latents_lower_the_error_on_held_out_sequences(
    hidden_signs: Callable[..., SequenceReplay],
) -> None:
    torch.manual_seed(0)
    errors = ModelFitter(latent_model(), 1e-2, 10, 60, 0.99).fit(hidden_signs(30))[1]
    assert errors["query_obs_error_after"] < 0.3 * errors["query_obs_error_before"]
    assert errors["query_reward_error_after"] < 0.6 * errors["query_reward_error_before"]


def test_a_return_is_the_mean_of_the_members(random_observed: Callable[..., Observed]) -> None:
    torch.manual_seed(0)
    model = latent_model(ensemble_size=3)
    obs, plans = torch.randn(2, 1), 2 * torch.rand(2, 5, 4, 1) - 1
    memory = model.empty(2)
    memory = model.remember(memory, Observed(*(x[:, 0] for x in random_observed(2, 1))))
    with torch.no_grad():
        found = model.returns(model.adapted(memory), obs, plans)
        z = model.posterior(Gaussian(*memory)).mean
        for i in range(2):
            for j in range(5):
                total = 0.0
                for member in range(3):
                    o = obs[i]
                    for a in plans[i, j]:
                        change = model.dynamics(torch.cat([o, a, z[i, :2]])[None])[0][member, 0]
                        after = o + change
                        r = model.reward(torch.cat([o, a, after, z[i, 2:]])[None])[0][member, 0]
                        total, o = total + r.item(), after
                assert found[i, j].item() == pytest.approx(total / 3, abs=1e-5)


def test_plans_with_the_given_reward_too() -> None:
    env = gym.make(POINT, visibility="oracle")
    model = make_agent("GHP-MDP", env, preset="tiny", seed=0, reward_source="env").learn(60)
    seen = np.stack([env.reset(seed=seed)[0] for seed in range(3)])
    together, _ = model.predict(seen, deterministic=True)
    for row, action in zip(seen, together, strict=True):
        np.testing.assert_allclose(
            model.predict(row, deterministic=True)[0], action, rtol=1e-5, atol=1e-6
        )


def test_errors_name_what_was_given() -> None:
    with pytest.raises(ValueError, match="support=0: expected at least 1"):
        GHPMDP("MlpPolicy", POINT, support=0)


@pytest.mark.slow
def test_learns_to_follow_a_hidden_direction(online_return: Callable[[Any], float]) -> None:
    """No agent without memory can expect more than about 1; full force always, 85."""
    env = gym.make(POINT, schedule="hazard")
    model = make_agent("GHP-MDP", env, preset="quick", seed=0).learn(3000)
    assert online_return(model) > 30.0
