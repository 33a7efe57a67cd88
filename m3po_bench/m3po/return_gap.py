"""What the theory speaks of, estimated for a trained agent: its model error, and what it costs.

Notation is that of docs/theory.md, with predicted rewards. The data are held-out episodes that the
evaluated policy itself has played, so pi_D = pi, the policy shift is 0 and eps_m = eps_m'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from m3po_bench.m3po.meta_model import MetaModel
from m3po_bench.m3po.played import HORIZONS, Played
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.termination import TerminationFunction

_EPISODES = 10
_COPIES = 8


class _Prediction(NamedTuple):
    """Gaussian members beside what came, both standardised.

    Attributes:
        mean: Shape (members, n, width).
        log_var: Shape (members, n, width).
        outcome: Shape (n, width).
    """

    mean: Tensor
    log_var: Tensor
    outcome: Tensor


def return_gaps(
    policy: MetaPolicy,
    played: Played,
    gamma: float,
    termination: TerminationFunction | None = None,
    horizon: int = 0,
) -> dict[str, float]:
    """Branched minus real discounted returns of the deterministic policy, by rollout length.

    Args:
        policy: The one that has played.
        played: Its episodes; the first few are used.
        gamma: Discount.
        termination: As in ``branched_rollouts.branch``.
        horizon: Steps after which the env cuts episodes off; that of the longest one at least.
            Rollouts may live on where all real episodes have ended.

    Returns:
        ``gap/return``, the real discounted return; ``gap/kK``, eta_K minus it, for each K of
        ``HORIZONS`` that fits into an episode, and ``gap/full``; with ``_se`` behind the name the
        standard error over episodes. Rollouts of ``gap/full`` are repeated, the others start once
        from each real history. What the model drives to infinity is left out.
    """
    n, seen = min(_EPISODES, played.valid.shape[1]), len(played.valid)
    length = max(horizon, seen)
    valid, real = torch.zeros(length, n, dtype=torch.bool), torch.zeros(length, n)
    lived = valid[:seen] = played.valid[:, :n]
    real[valid] = played.reward[:, :n][lived]
    discount = gamma ** torch.arange(length)[:, None]
    obs, state = played.obs[:-1, :n], played.state[:-1, :n]
    ks = [k for k in HORIZONS if k <= length]
    ahead = torch.zeros(max(ks), length, n)
    ahead[:, valid] = _imagined_rewards(policy, obs[lived], state[lived], max(ks), termination)
    first = _imagined_rewards(
        policy,
        obs[0].expand(_COPIES, -1, -1),
        state[0].expand(_COPIES, -1, -1),
        length,
        termination,
    ).mean(1)
    found = {"gap/return": (discount * real).sum(0).mean().item()}
    for name, k in [*((f"gap/k{k}", k) for k in ks), ("gap/full", length)]:
        # r_t is the k-th prediction of a rollout from h_{t-k+1}; before t = k, from h_0.
        later = ahead[min(k, max(ks)) - 1, 1:][: length - k]
        gap = (discount * (torch.cat([first[:k], later]) - real)).sum(0)
        if gap.isfinite().all():
            found[name] = gap.mean().item()
            found[f"{name}_se"] = gap.std(correction=min(1, n - 1)).item() / n**0.5
    return found


@torch.no_grad()
def _imagined_rewards(
    policy: MetaPolicy,
    obs: Tensor,
    state: Tensor,
    length: int,
    termination: TerminationFunction | None,
) -> Tensor:
    """Rewards of the 1st to the last step of rollouts, 0 after an end; (length, *starts)."""
    starts = obs.shape[:-1]
    obs, state = obs.flatten(0, -2), state.flatten(0, -2)
    alive, rewards = torch.ones(len(obs)), []
    for _ in range(length):
        action = policy.actor.act(policy.features(obs, state), deterministic=True)
        step = policy.imagine(obs, state, action)
        rewards.append(torch.where(alive > 0, step.reward, 0.0))
        if termination is not None:
            alive = alive * ~termination(obs, action, step.next_obs)
        else:
            alive = alive * (1.0 - torch.bernoulli(step.terminated))
        obs, state = step.next_obs, step.next_state
    return torch.stack(rewards).reshape(length, *starts)


@torch.no_grad()
def model_error(model: MetaModel, played: Played, horizon: int = 0) -> dict[str, float]:
    """Estimates of eps_m, the expected total variation between real and predicted outcomes.

    Samples do not tell a density, so it is enclosed only:

    * ``gap/eps_low`` needs no assumption. Real outcomes and the model's own samples are told apart
      by their log density under the model, with a threshold chosen on one half of the episodes; the
      difference in the shares below it, on the other episodes, is in expectation at most eps_m
      (total variation does not grow under a map). Cut at 0, so chance lifts it a little where
      there is no error. It sees none that leaves the log density's distribution as it is.
    * ``gap/eps_high`` is ``sqrt(1 - exp(-KL))`` (Bretagnolle and Huber 1979) for independent
      Gaussian outcomes that vary no less than predicted or, where their errors are smaller, than
      these. A deterministic env breaks that: its true total variation from any density is 1, and
      the number then speaks of the resolution of the model's own spread.

    Both are averages over the steps of an episode, where the theory takes the worst step, and speak
    of observations and rewards only, not of ends.

    Args:
        model: The trained one.
        played: Episodes that it has not learnt from.
        horizon: As of ``return_gaps``.

    Returns:
        The two, ``gap/horizon``, and ``gap/reward_span``: of real and of predicted rewards after
        the same histories, and of the 0 that follows on an end where there are any.
    """
    valid = played.valid
    obs, state = played.obs[:-1][valid], played.state[:-1][valid]
    action, after, reward = played.action[valid], played.obs[1:][valid], played.reward[valid]
    step = model.imagine(obs, state, action)
    real = _predictions(model, obs, state, action, after, reward)
    own = _predictions(model, obs, state, action, step.next_obs, step.reward)
    ended = not valid.all() or horizon > len(valid)
    rewards = torch.cat([reward, step.reward, torch.zeros(int(ended))])
    spread, choose = rewards.max() - rewards.min(), (valid & played.half)[valid]
    return {
        "gap/eps_low": _told_apart(_log_density(real), _log_density(own), choose),
        "gap/eps_high": _gaussian_error(real),
        "gap/reward_span": spread.item(),
        "gap/horizon": float(max(horizon, len(valid))),
    }


def _predictions(
    model: MetaModel, obs: Tensor, state: Tensor, action: Tensor, after: Tensor, reward: Tensor
) -> tuple[_Prediction, _Prediction]:
    """Of o' - o given the history, and of r given o' as well."""
    mean, log_var = model.dynamics(model.dynamics_inputs(obs, state, action))
    dynamics = _Prediction(mean, log_var, model.delta_norm(after - obs))
    mean, log_var = model.reward(model.reward_inputs(obs, state, action, after))
    return dynamics, _Prediction(mean, log_var, model.reward_norm(reward[:, None]))


def _log_density(predictions: Sequence[_Prediction]) -> Tensor:
    """Of the outcomes under the mixtures of members, up to a constant; shape (n,)."""
    total = torch.zeros(())
    for mean, log_var, outcome in predictions:
        terms = (outcome - mean).square() * torch.exp(-log_var) + log_var
        total = total + torch.logsumexp(-0.5 * terms.sum(-1), 0)
    return total


def _told_apart(real: Tensor, own: Tensor, choose: Tensor) -> float:
    """How much more of one than of the other lies below a threshold found on ``choose``."""
    if choose.all():
        return 0.0
    scores = torch.cat([real[choose], own[choose]])
    signs = torch.cat([torch.ones(int(choose.sum())), -torch.ones(int(choose.sum()))])
    order = scores.argsort()
    excess = signs[order].cumsum(0)
    at = excess.abs().argmax()
    threshold, side = scores[order][at], excess[at].sign()
    shares = [(x[~choose] <= threshold).float().mean() for x in (real, own)]
    return max(0.0, (side * (shares[0] - shares[1])).item())


def _gaussian_error(predictions: Sequence[_Prediction]) -> float:
    divergence = torch.zeros(())
    for mean, log_var, outcome in predictions:
        variance = log_var.exp().mean(0) + mean.var(0, correction=0)
        squared = ((outcome - mean.mean(0)).square() / variance).mean(0)
        terms = squared - 1.0 - squared.clamp(min=1e-12).log().clamp(max=0.0)
        divergence = divergence + 0.5 * terms.sum()
    return (1.0 - torch.exp(-divergence)).sqrt().item()
