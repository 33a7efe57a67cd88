"""D_model of a meta-policy with encoders of its own: windows of real histories, with branches.

An update goes back through windows of real histories. A window starts from the history state that
was stored with it, and its first steps only bring that state up to date (burn-in; Kapturowski et
al. 2019, R2D2), unless memory begins with the window. A branched meta-rollout hangs off each of the
other steps, so one pass of a GRU over a window serves as many histories as it has such steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from m3po_bench.common.encoders import HistoryEncoder
from m3po_bench.common.sequence_replay import RealTransitions
from m3po_bench.common.soft_actor_critic import Transitions
from m3po_bench.m3po.branched_rollouts import branch
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.recurrent import RecurrentActor, RecurrentCritics
from m3po_bench.m3po.termination import TerminationFunction


class Tails(NamedTuple):
    """What follows m histories: up to k steps, imagined or real.

    Attributes:
        action: In [-1, 1], shape (k, m, action_dim).
        reward: Shape (k, m).
        next_obs: Shape (k, m, obs_dim).
        not_terminated: 1 where the episode goes on, else 0; shape (k, m).
        taken: False behind the last step, shape (k, m), bool.
    """

    action: Tensor
    reward: Tensor
    next_obs: Tensor
    not_terminated: Tensor
    taken: Tensor


class BranchedWindows(NamedTuple):
    """Windows of real histories, and up to k imagined steps off each step that is learnt from.

    Attributes:
        obs: Shape (n, length, obs_dim).
        action: In [-1, 1], shape (n, length, action_dim).
        reward: Shape (n, length).
        next_obs: Shape (n, length, obs_dim).
        terminated: 1 where the episode ended in a terminal state, shape (n, length).
        learn: Which steps are learnt from, shape (n, length), bool.
        state: Stored history states at the first steps, shape (n, state_dim).
        imagined_action: Shape (n, length, k, action_dim).
        imagined_reward: Shape (n, length, k).
        imagined_obs: What each imagined step leads to, shape (n, length, k, obs_dim).
        goes_on: 1 where the rollout goes on behind a step, else 0; shape (n, length, k).
        taken: Whether there is such a step, shape (n, length, k), bool.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    learn: Tensor
    state: Tensor
    imagined_action: Tensor
    imagined_reward: Tensor
    imagined_obs: Tensor
    goes_on: Tensor
    taken: Tensor

    def tails(self, real_share: float) -> Tails:
        """What follows the steps that are learnt from, ordered as ``learn`` picks them out.

        Args:
            real_share: Share of the steps to return that are to be real ones: a branch, drawn at
                random, is replaced by what really came next.
        """
        learn = self.learn
        imagined = (
            self.imagined_action, self.imagined_reward, self.imagined_obs, self.goes_on, self.taken,
        )  # fmt: skip
        tails = Tails(*(x[learn].transpose(0, 1) for x in imagined))
        m, steps = tails.taken.shape[1], int(tails.taken.sum())
        # A real step takes the place of steps / m imagined ones, on average.
        n_real = round(real_share * steps * m / (m + real_share * (steps - m)))
        chosen = torch.randperm(m)[:n_real]
        real = (self.action, self.reward, self.next_obs, 1.0 - self.terminated)
        for tail, came in zip(tails, real, strict=False):
            tail[0, chosen] = came[learn][chosen]
        tails.taken[1:, chosen] = False
        return tails


@torch.no_grad()
def branch_windows(
    policy: MetaPolicy,
    window: RealTransitions,
    learn: Tensor,
    length: int,
    longest: int,
    termination: TerminationFunction | None = None,
    hindsight: bool = False,
    trust: float = 1.0,
) -> BranchedWindows:
    """Branch ``length`` steps off every step that is learnt from.

    Args:
        policy: See ``branch``.
        window: Real transitions, shape (window length, n, ...).
        learn: Shape (window length, n), bool.
        length: Steps k of each rollout.
        longest: The k there is to be room for.
        termination: See ``branch``.
        hindsight: See ``branch``.
        trust: See ``branch``.
    """
    starts = RealTransitions(*(x[learn] for x in window))
    m, room = len(starts.obs), (*learn.shape, longest)
    action = torch.zeros(m, longest, window.action.shape[-1])
    reward, goes_on = torch.zeros(m, longest), torch.zeros(m, longest)
    next_obs = torch.zeros(m, longest, window.obs.shape[-1])
    taken = torch.zeros(m, longest, dtype=torch.bool)
    for j, step in enumerate(branch(policy, starts, length, termination, hindsight, trust)):
        action[step.rows, j], reward[step.rows, j] = step.action, step.reward
        next_obs[step.rows, j], goes_on[step.rows, j] = step.next_obs, step.not_terminated
        taken[step.rows, j] = True
    branches = []
    for rows in (action, reward, next_obs, goes_on, taken):
        padded = rows.new_zeros(*room, *rows.shape[2:])
        padded[learn] = rows
        branches.append(padded)
    by_window = [x.transpose(0, 1) for x in branches]
    return BranchedWindows(
        window.obs.transpose(0, 1),
        window.action.transpose(0, 1),
        window.reward.T,
        window.next_obs.transpose(0, 1),
        window.terminated.T,
        learn.T,
        window.state[0][:, policy.seen_columns],
        *by_window,
    )


def states_along(encoder: HistoryEncoder, inputs: Tensor, start: Tensor) -> Tensor:
    """``start`` and the states after each input, shape (length + 1, n, state_dim).

    Args:
        encoder: Runs along the first axis.
        inputs: Encoded transitions, shape (length, n, encoded_dim); length may be 0.
        start: Shape (n, state_dim).
    """
    return torch.cat([start[None], encoder(inputs, start)])


def window_batch(
    policy: MetaPolicy, windows: BranchedWindows, real_share: float
) -> tuple[Transitions, Tensor]:
    """Transitions between features that the encoders can be trained through.

    Args:
        policy: One with encoders of its own; of its meta-model nothing is trained.
        windows: A sample of D_model.
        real_share: Share of real transitions.

    Returns:
        The batch, whose features lead back to the critics' encoder, and the same features leading
        back to the actor's.
    """
    model, actor = policy.meta_model, policy.actor
    critics, targets = policy.critics, policy.critic_targets
    assert isinstance(actor, RecurrentActor)
    assert isinstance(critics, RecurrentCritics)
    assert isinstance(targets, RecurrentCritics)
    learn, tail = windows.learn, windows.tails(real_share)
    real = (windows.obs, windows.action, windows.reward, windows.next_obs)
    inputs = model.encoded(*real).transpose(0, 1)[:-1]
    obs = torch.cat([windows.obs[learn][None], tail.next_obs])
    steps = model.encoded(obs[:-1], tail.action, tail.reward, tail.next_obs)

    def along(encoder: HistoryEncoder, start: Tensor, length: int) -> Tensor:
        histories = states_along(encoder, inputs, start).transpose(0, 1)[learn]
        return states_along(encoder, steps[:length], histories)

    k = len(steps)
    own, theirs = windows.state.chunk(2, -1)
    acting = along(actor.encoder, own, k)
    valued = along(critics.encoder, theirs, k - 1)
    with torch.no_grad():
        following = along(targets.encoder, theirs, k)[1:]
    seen, taken = model.obs_norm(obs), tail.taken

    def features(*columns: Tensor) -> Tensor:
        return torch.cat(columns, -1)[taken]

    batch = Transitions(
        features(seen[:-1], acting[:-1].detach(), valued),
        tail.action[taken],
        tail.reward[taken],
        features(seen[1:], acting[1:].detach(), following),
        tail.not_terminated[taken],
    )
    return batch, features(seen[:-1], acting[:-1], valued.detach())
