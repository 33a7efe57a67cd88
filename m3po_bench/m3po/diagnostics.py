"""What a trained M3PO's meta-model knows, measured on episodes that it did not learn from.

Errors are root mean squares in deviations of the training data, so 1 is what a model scores that
always answers with the mean. Histories are those that the agent itself remembers while it plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from m3po_bench.m3po.meta_model import MetaModel
from m3po_bench.m3po.played import HORIZONS, Played, recall
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.return_gap import model_error, return_gaps
from m3po_bench.m3po.termination import TerminationFunction

AGES = ((0, 0), (1, 2), (3, 5), (6, 11), (12, 24), (25, 10**9))
"""Transitions seen since a change of the task, or since the start; first and last of each bin."""

_START_EVERY = 10
_FEW_TASKS = 8
_RIDGE = 1e-3


def diagnose(
    policy: MetaPolicy,
    episodes: Sequence[Any],
    gamma: float,
    termination: TerminationFunction | None = None,
) -> dict[str, float]:
    """All measures, as one flat dict.

    Args:
        policy: A trained agent's.
        episodes: Held-out ones, with the attributes of ``leaderboard.evaluation.Episode``.
        gamma: The agent's discount.
        termination: As in ``branched_rollouts.branch``.

    Returns:
        ``model/obs_error_hH`` and ``model/reward_error_hH``: after H open-loop steps within one
        task; ``model/obs_error_ageA`` and ``model/reward_error_ageA``: of one step, by the age of
        the task; ``model/obs_coverage`` and ``model/reward_coverage``: share of outcomes within
        one predicted deviation (0.683 if the spread is right); ``model/disagreement``: deviation
        of the members' means; ``probe/...``: see ``task_probe``; ``gap/...``: what the theory
        speaks of, see ``return_gap``. What the episodes are too short or too few for is left out.
    """
    played = recall(policy, episodes)
    model = policy.meta_model
    found = open_loop_errors(model, played)
    found |= one_step_errors(model, played)
    if model.state_dim and played.task.shape[-1]:
        own = played.state[..., : model.state_dim]  # the meta-model's, not the policy's
        found |= task_probe(played._replace(state=own))
    found |= model_error(model, played) | {"gap/gamma": gamma}
    return found | return_gaps(policy, played, gamma, termination)


def open_loop_errors(model: MetaModel, played: Played) -> dict[str, float]:
    """Errors after H steps of a sampled rollout under the actions that were really taken."""
    length, n = played.valid.shape
    starts = torch.arange(0, length, _START_EVERY).repeat_interleave(n)
    column = torch.arange(n).repeat(-(-length // _START_EVERY))
    obs, state = played.obs[starts, column], played.state[starts, column]
    found: dict[str, float] = {}
    for h in range(1, min(max(HORIZONS), length) + 1):
        now = (starts + h - 1).clamp(max=length - 1)
        step = model.imagine(obs, state, played.action[now, column])
        obs, state = step.next_obs, step.next_state
        if h not in HORIZONS:
            continue
        same_task = played.age[now, column] - played.age[starts, column] == h - 1
        inside = same_task & played.valid[now, column] & (starts + h <= length)
        if inside.any():
            real = played.obs[now + 1, column]
            error = ((obs - real) / model.obs_norm.std)[inside]
            miss = ((step.reward - played.reward[now, column]) / model.reward_norm.std)[inside]
            found[f"model/obs_error_h{h}"] = _rms(error)
            found[f"model/reward_error_h{h}"] = _rms(miss)
    return found


@torch.no_grad()
def one_step_errors(model: MetaModel, played: Played) -> dict[str, float]:
    """Errors of the ensemble's mean by the task's age, coverage and disagreement."""
    valid = played.valid
    obs, after = played.obs[:-1][valid], played.obs[1:][valid]
    state, action, age = played.state[:-1][valid], played.action[valid], played.age[valid]
    heads = {
        "obs": (
            model.dynamics(model.dynamics_inputs(obs, state, action)),
            model.delta_norm(after - obs),
            model.delta_norm.std / model.obs_norm.std,
        ),
        "reward": (
            model.reward(model.reward_inputs(obs, state, action, after)),
            model.reward_norm(played.reward[valid][:, None]),
            torch.ones(1),
        ),
    }
    found: dict[str, float] = {}
    for name, ((means, log_vars), target, unit) in heads.items():
        miss = means.mean(0) - target
        # The mixture's variance: the members' own, and that of their means.
        spread = (log_vars.exp().mean(0) + means.var(0, correction=0)).sqrt()
        found[f"model/{name}_coverage"] = (miss.abs() < spread).float().mean().item()
        if name == "obs":
            found["model/disagreement"] = _rms(means.std(0, correction=0) * unit)
        for first, last in AGES:
            inside = (age >= first) & (age <= last)
            if inside.any():
                found[f"model/{name}_error_age{first}"] = _rms((miss * unit)[inside])
    return found


def task_probe(played: Played) -> dict[str, float]:
    """What a linear map of the history state tells of the task; fitted on every second episode.

    Returns:
        ``probe/accuracy_ageA``, the share of right answers by the task's age, and
        ``probe/right_within_3``, the share of changes after which an answer within three
        transitions of the new task is right, where there are few tasks to name; otherwise
        ``probe/r2_ageA``, averaged over the task's parameters.
    """
    learn = torch.zeros_like(played.valid)
    learn[:, ::2] = True
    state, age = played.state[:-1].double(), played.age
    fit, test = played.valid & learn, played.valid & ~learn
    if not test.any():
        return {}
    tasks = torch.unique(played.task[fit], dim=0)
    which = (played.task[:, :, None] == tasks).all(-1)
    few = 2 <= len(tasks) <= _FEW_TASKS and bool(which.any(-1)[test].all())
    label = which.int().argmax(-1)
    target = torch.eye(len(tasks))[label].double() if few else played.task.double()
    answer = _ridge(state[fit], target[fit], state)
    found: dict[str, float] = {}
    right = answer.argmax(-1) == label
    for first, last in AGES:
        inside = test & (age >= first) & (age <= last)
        if not inside.any():
            continue
        if few:
            found[f"probe/accuracy_age{first}"] = right[inside].float().mean().item()
        else:
            residual = (answer - target)[inside].square().sum(0)
            total = (target - target[fit].mean(0))[inside].square().sum(0)
            found[f"probe/r2_age{first}"] = (1.0 - residual / total).mean().item()
    if few:
        found |= _right_within(3, right, age, test)
    return found


def _right_within(n: int, right: Tensor, age: Tensor, valid: Tensor) -> dict[str, float]:
    """Of the changes that are followed by ``n`` more transitions of the task, inside an episode."""
    changes = (age[1:] == 0) & valid[1:]
    times, columns = torch.nonzero(changes, as_tuple=True)
    times = times + 1
    steps = times[:, None] + torch.arange(1, n + 1)
    inside = steps[:, -1] < len(age)
    steps, columns = steps[inside], columns[inside][:, None]
    stays = (age[steps, columns] == torch.arange(1, n + 1)).all(1) & valid[steps, columns].all(1)
    if not stays.any():
        return {}
    hits = right[steps, columns][stays].any(1).float().mean().item()
    return {f"probe/right_within_{n}": hits}


def _ridge(inputs: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """Answers of a linear map with intercept, fitted by least squares with a small penalty."""
    centre, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    design = torch.cat([(inputs - centre) / scale, torch.ones(len(inputs), 1)], 1)
    penalty = _RIDGE * len(inputs) * torch.eye(design.shape[1], dtype=design.dtype)
    weights: Tensor = torch.linalg.solve(design.T @ design + penalty, design.T @ targets)
    scaled = (queries - centre) / scale
    return scaled @ weights[:-1] + weights[-1]


def _rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()
