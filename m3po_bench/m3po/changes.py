"""Steps in which the task changed, as hindsight tells them, and why nothing is learnt from them.

That a task changes just now is what nobody could know who acts. Hindsight tells it: the rewards of
a rollout off that step turn, and values with them, by far more than any action is worth. Few as
such steps are, most of the critics' squared error in a rollout's first step is theirs, and part of
what a fast gait earns is taken back. So they are left out, and values are those of a task that
stays; what follows a change is learnt from. (QMDP leaves changes to come out of account in the same
way: Littman, Cassandra and Kaelbling 1995.) Figures are in docs/m3po.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from m3po_bench.common.sequence_replay import RealTransitions
from m3po_bench.m3po.policies import MetaPolicy


@torch.no_grad()
def foreseen(policy: MetaPolicy, real: RealTransitions, limit: float) -> Tensor:
    """Which real transitions brought no change of task; of the shape of their rewards, bool.

    Args:
        policy: Acts in the imagined step by which this is judged: what really followed is what the
            meta-model was fitted to, by heart if it could not be foreseen.
        real: Transitions with any leading axes.
        limit: Most by which the next history state may surprise (``MetaModel.surprise``).
    """
    if limit == math.inf or len(real.obs) == 0:
        return torch.ones_like(real.reward, dtype=torch.bool)
    obs, state, later = (x.flatten(0, -2) for x in (real.obs, real.state, real.next_state))
    action = policy.actor.act(policy.features(obs, state))
    surprise = policy.meta_model.surprise(obs, state, action, later)
    kept = (surprise <= limit).view(real.reward.shape)
    return kept if kept.any() else torch.ones_like(kept)  # a limit that leaves nothing is none


def without_changes(policy: MetaPolicy, real: RealTransitions, limit: float) -> RealTransitions:
    """As many transitions, others of them in the place of those that were not ``foreseen``."""
    kept = foreseen(policy, real, limit)
    changes, others = torch.nonzero(~kept).flatten(), torch.nonzero(kept).flatten()
    if len(changes) == 0:
        return real
    rows = torch.arange(len(kept))
    rows[changes] = others[torch.randint(len(others), (len(changes),))]
    return RealTransitions(*(x[rows] for x in real))


def windows_without_changes(
    policy: MetaPolicy, window: RealTransitions, learn: Tensor, limit: float
) -> tuple[RealTransitions, Tensor]:
    """Windows with a step to learn from, and which of their steps to learn from.

    Args:
        policy: See ``foreseen``.
        window: Transitions of shape (length, n, ...).
        learn: Which of them might be learnt from, shape (length, n), bool; one at least.
        limit: See ``foreseen``.
    """
    known = learn & foreseen(policy, window, limit)
    learn = known if known.any() else learn
    some = learn.any(0)
    return RealTransitions(*(x[:, some] for x in window)), learn[:, some]
