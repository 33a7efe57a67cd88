"""What a trained M3PO's meta-model knows, measured on episodes that it did not learn from.

Errors are root mean squares in deviations of the training data, so 1 is what a model scores that
always answers with the mean. Histories are those that the agent itself remembers while it plays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from m3po_bench.m3po.meta_model import MetaModel
from m3po_bench.m3po.played import HORIZONS, Played, recall
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.return_gap import model_error, return_gaps
from m3po_bench.m3po.termination import termination_of, time_limit_of

AGES = ((0, 0), (1, 2), (3, 5), (6, 11), (12, 24), (25, 10**9))
"""Transitions seen since a change of the task; first and last of each bin."""

_START_EVERY = 10
_KNOWN_AGE = 12
_FEW_TASKS = 8
_RIDGE = 1e-3


def diagnose(
    policy: MetaPolicy,
    episodes: Sequence[Any],
    gamma: float,
    env: VecEnv | None = None,
    termination_from_env: bool = False,
) -> dict[str, float]:
    """All measures, as one flat dict.

    Args:
        policy: A trained agent's.
        episodes: Held-out ones, with the attributes of ``leaderboard.evaluation.Episode``.
        gamma: The agent's discount.
        env: The agent's, which says when episodes are cut off.
        termination_from_env: Whether it also says when they terminate.

    Returns:
        ``model/obs_error_hH`` and ``model/reward_error_hH``: after H open-loop steps within one
        task; ``model/obs_error_ageA`` and ``model/reward_error_ageA``: of one step, by the age of
        the task, after changes if there are any, else after the start; ``model/obs_coverage`` and
        ``model/reward_coverage``: share of outcomes within one predicted deviation (0.683 if the
        spread is right); ``model/disagreement``: deviation of the members' means; ``probe/...``:
        see ``task_probe``; ``belief/...``: see ``imagined_beliefs``; ``gap/...``: what the theory
        speaks of, see ``return_gap``. What the episodes are too short or too few for is left out.
    """
    played = recall(policy, episodes)
    model, horizon = policy.meta_model, time_limit_of(env)
    found = open_loop_errors(model, played)
    found |= one_step_errors(model, played)
    if model.state_dim and played.task.shape[-1]:
        own = played.state[..., : model.state_dim]  # the meta-model's, not the policy's
        found |= task_probe(played._replace(state=own))
    found |= model_error(model, played, horizon) | {"gap/gamma": gamma}
    ends = termination_of(env, termination_from_env)
    found |= return_gaps(policy, played, gamma, ends, horizon)
    if model.state_dim and played.task.shape[-1]:
        found |= imagined_beliefs(policy, played)
    return found


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
    adapting = played.adapting[valid]
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
            inside = adapting & (age >= first) & (age <= last)
            if inside.any():
                found[f"model/{name}_error_age{first}"] = _rms((miss * unit)[inside])
    return found


def task_probe(played: Played) -> dict[str, float]:
    """What a linear map of the history state tells of the task; fitted on ``played.half``.

    Returns:
        ``probe/accuracy_ageA``, the share of right answers by the task's age, and
        ``probe/right_within_3``, the share of changes after which an answer within three
        transitions of the new task is right, where there are few tasks to name; otherwise
        ``probe/r2_ageA``, averaged over the task's parameters.
    """
    probe = _fit_probe(played)
    if probe is None:
        return {}
    age, test, few, label = played.age, probe.test, probe.few, probe.label
    fit = played.valid & ~test
    target = torch.eye(len(probe.tasks))[label].double() if few else played.task.double()
    answer = probe.answer(played.state[:-1])
    found: dict[str, float] = {}
    right = answer.argmax(-1) == label
    for first, last in AGES:
        inside = test & played.adapting & (age >= first) & (age <= last)
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


@torch.no_grad()
def imagined_beliefs(policy: MetaPolicy, played: Played) -> dict[str, float]:
    """Whether rollouts come to believe in another task than the history that they branch off.

    They are the policy's, sampled, with all memory carried, off every tenth step of a task of 12
    steps or more that a probe (see ``task_probe``) names rightly; there are as many as real pieces.

    Returns:
        Where there are few tasks to name, ``belief/other_hH``: share of the rollouts in whose state
        the probe finds another task after H steps; ``belief/real_other_hH``: share of the real
        histories in which it does; ``belief/excess_hH``: how much larger the first is for the task
        that is most forsaken. A model that believes in what pays forsakes what does not.
    """
    width = policy.meta_model.state_dim
    probe = _fit_probe(played._replace(state=played.state[..., :width]))
    if probe is None or not probe.few:
        return {}
    said = probe.answer(played.state[:-1, :, :width]).argmax(-1)
    length = len(played.valid)
    known = probe.test & (played.age >= _KNOWN_AGE) & (said == probe.label)
    known &= (torch.arange(length) % _START_EVERY == 0)[:, None]
    if not known.any():
        return {}
    starts, column = torch.nonzero(known, as_tuple=True)
    obs, state = played.obs[starts, column], played.state[starts, column]
    found: dict[str, float] = {}
    for h in range(1, max(HORIZONS) + 1):
        step = policy.imagine(obs, state, policy.actor.act(policy.features(obs, state)))
        obs, state = step.next_obs, step.next_state
        later = (starts + h).clamp(max=length - 1)
        inside = played.valid[later, column] & (starts + h < length)
        if h not in HORIZONS or not inside.any():
            continue
        before = said[starts, column][inside]
        imagined = (probe.answer(state[inside, :width]).argmax(-1) != before).float()
        real = (said[later, column][inside] != before).float()
        excess = [(imagined - real)[before == task].mean().item() for task in torch.unique(before)]
        found[f"belief/other_h{h}"] = imagined.mean().item()
        found[f"belief/real_other_h{h}"] = real.mean().item()
        found[f"belief/excess_h{h}"] = max(excess)
    return found


class _Probe(NamedTuple):
    """A linear map from history states to tasks.

    Attributes:
        test: Steps of the episodes that it was not fitted on, shape (T, n).
        tasks: The different ones it was fitted on, shape (n_tasks, n_params).
        few: Whether it names tasks, one score for each, rather than their parameters.
        label: Which task is in force, shape (T, n).
        answer: States of shape (..., state_dim) to scores or parameters.
    """

    test: Tensor
    tasks: Tensor
    few: bool
    label: Tensor
    answer: Callable[[Tensor], Tensor]


def _fit_probe(played: Played) -> _Probe | None:
    """On ``played.half``; None if there is but one episode."""
    fit, test = played.valid & played.half, played.valid & ~played.half
    if not test.any():
        return None
    tasks = torch.unique(played.task[fit], dim=0)
    few, label = 2 <= len(tasks) <= _FEW_TASKS, torch.zeros_like(fit, dtype=torch.int64)
    if few:  # of many tasks the comparison would be huge
        which = (played.task[:, :, None] == tasks).all(-1)
        few, label = bool(which.any(-1)[test].all()), which.int().argmax(-1)
    target = torch.eye(len(tasks))[label].double() if few else played.task.double()
    answer = _ridge(played.state[:-1].double()[fit], target[fit])
    return _Probe(test, tasks, few, label, answer)


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


def _ridge(inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """A linear map with intercept, fitted by least squares with a small penalty."""
    centre, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    design = torch.cat([(inputs - centre) / scale, torch.ones(len(inputs), 1)], 1)
    penalty = _RIDGE * len(inputs) * torch.eye(design.shape[1], dtype=design.dtype)
    weights: Tensor = torch.linalg.solve(design.T @ design + penalty, design.T @ targets)

    def answer(queries: Tensor) -> Tensor:
        return ((queries.double() - centre) / scale) @ weights[:-1] + weights[-1]

    return answer


def _rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()
