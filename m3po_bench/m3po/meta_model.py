"""The meta-model p(o', r | a, h): a GRU encodes the history, Gaussian ensembles predict.

Three choices decide whether it learns the task at all:

* The reward has an encoder, a head and hence a gradient of its own. Under one joint likelihood
  the many observation terms swamp the one reward term, and the reward is never learnt.
* The reward head sees o' as well (in a rollout: the o' just sampled), p(r | o, a, o', h): what a
  step was worth is mostly a matter of where it led.
* The reward's likelihood is weighted by the root of the variance (``common.dynamics``): unweighted,
  a hidden task's effect may pass for noise; weighted by the variance itself, the few rewards that
  no history foretells, those right at a change of task, are most of what its encoder learns from.
  The dynamics' is not weighted by default, lest their smallest errors, which a policy finds and
  exploits, be neglected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from m3po_bench.common.arguments import check_shares
from m3po_bench.common.dynamics import GaussianEnsemble
from m3po_bench.common.encoders import HistoryEncoder
from m3po_bench.common.networks import Normalizer, StackedMLP
from m3po_bench.common.sequence_replay import RealTransitions, SequenceReplay
from m3po_bench.m3po.history_states import HistoryStates


class Imagined(NamedTuple):
    """One imagined step.

    Attributes:
        next_obs: Shape (n, obs_dim).
        reward: Shape (n,).
        terminated: Probability of the episode's end, shape (n,); zeros without a termination head.
        next_state: History state at ``next_obs``, shape (n, state_dim).
    """

    next_obs: Tensor
    reward: Tensor
    terminated: Tensor
    next_state: Tensor


class MetaModel(nn.Module, HistoryStates):
    """An adaptive model of dynamics, reward and, where asked, termination.

    The history state is the concatenation of the dynamics branch's and the reward branch's GRU
    states; with ``history=False`` it has no columns, and this is MBPO's model. Columns behind these
    belong to others (``policies.MetaPolicy``) and are not looked at.

    Args:
        obs_dim: Width of observations, without the history columns.
        action_dim: Width of actions.
        state_dim: GRU units of each of the two branches.
        embedding: Width of the MLP in front of each GRU.
        ensemble_size: Members B of each ensemble.
        hidden: Hidden widths of the dynamics heads.
        reward_hidden: Hidden widths of the reward heads.
        history: Whether the model is adaptive.
        learn_termination: Whether to learn when episodes end.
        dynamics_beta: Power of the variance that weighs the dynamics' likelihood, from 0 (plain
            likelihood) to 1; see ``GaussianEnsemble.loss``.
        encoder_dropout: Share of the encoder's MLP units silenced while the model is fitted.
        memory_dropout: Share of the windows of a fit that begin with an empty memory instead of the
            stored one, so that the task has to be told from few steps.

    Raises:
        ValueError: If one of the last three is not from 0 to 1.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        state_dim: int = 32,
        embedding: int = 64,
        ensemble_size: int = 5,
        hidden: Sequence[int] = (200, 200),
        reward_hidden: Sequence[int] = (128, 128),
        history: bool = True,
        learn_termination: bool = False,
        dynamics_beta: float = 0.0,
        encoder_dropout: float = 0.3,
        memory_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_shares(
            dynamics_beta=dynamics_beta,
            encoder_dropout=encoder_dropout,
            memory_dropout=memory_dropout,
        )
        self.encoder_dropout, self.memory_dropout = encoder_dropout, memory_dropout
        self.obs_dim, self.action_dim = obs_dim, action_dim
        branch = state_dim if history else 0
        self.branch_dim, self.state_dim = branch, 2 * branch
        self.obs_norm, self.delta_norm = Normalizer(obs_dim), Normalizer(obs_dim)
        self.reward_norm = Normalizer(1)
        self.encoded_dim, self.embedding = 2 * obs_dim + action_dim + 1, embedding
        self.encoder = HistoryEncoder(2, self.encoded_dim, embedding, branch) if history else None
        self.dynamics = GaussianEnsemble(
            ensemble_size, obs_dim + action_dim + branch, obs_dim, hidden, dynamics_beta
        )
        self.reward = GaussianEnsemble(
            ensemble_size, 2 * obs_dim + action_dim + branch, 1, reward_hidden, beta=0.5
        )
        self.termination = (
            StackedMLP(1, 2 * obs_dim + action_dim, reward_hidden, 1) if learn_termination else None
        )

    def features(self, obs: Tensor, state: Tensor) -> Tensor:
        """What policy and critics see of a history: standardised observation and state."""
        return torch.cat([self.obs_norm(obs), state], -1)

    def encoded(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """What encoders see of transitions, shape (..., 2 * obs_dim + action_dim + 1)."""
        reward = self.reward_norm(reward[..., None])
        delta = self.delta_norm(next_obs - obs)
        return torch.cat([self.obs_norm(obs), action, reward, delta], -1)

    def _termination_logits(self, reward_inputs: Tensor) -> Tensor:
        """From (o, a, o'), the reward's inputs without the history, shape (n,)."""
        assert self.termination is not None
        width = 2 * self.obs_dim + self.action_dim
        return cast(Tensor, self.termination(reward_inputs[:, :width])[0, :, 0])

    def step_state(
        self, state: Tensor, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor
    ) -> Tensor:
        """See ``HistoryStates.step_state``."""
        state = state[:, : self.state_dim]
        if self.encoder is None:
            return state
        return self.encoder.step(self.encoded(obs, action, reward, next_obs), state)

    def window_states(self, window: RealTransitions) -> Tensor:
        """History states at each step of windows, shape (length, n, state_dim), with gradient.

        The first is the stored one, or empty in ``memory_dropout`` of them; the others follow.
        """
        if self.encoder is None:
            return window.state
        inputs = self.encoded(window.obs, window.action, window.reward, window.next_obs)[:-1]
        start = window.state[0, :, : self.state_dim]
        if self.memory_dropout > 0.0:
            start = start * (torch.rand(len(start), 1) >= self.memory_dropout)
        return torch.cat([start[None], self.encoder(inputs, start, self.encoder_dropout)])

    def dynamics_inputs(self, obs: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """What the dynamics heads see; their targets are ``delta_norm`` of o' - o."""
        return torch.cat([self.obs_norm(obs), action, state[..., : self.branch_dim]], -1)

    def reward_inputs(self, obs: Tensor, state: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """What the reward heads see; their targets are ``reward_norm`` of r."""
        pair = [self.obs_norm(obs), action, self.obs_norm(next_obs)]
        return torch.cat([*pair, state[..., self.branch_dim : self.state_dim]], -1)

    def loss(self, data: RealTransitions, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of dynamics, reward and termination on each member's own rows.

        Args:
            data: Transitions of shape (ensemble_size, rows, ...).
            state: Their history states, shape (ensemble_size, rows, state_dim).
        """
        dynamics = self.dynamics.loss(
            self.dynamics_inputs(data.obs, state, data.action),
            self.delta_norm(data.next_obs - data.obs),
        )
        inputs = self.reward_inputs(data.obs, state, data.action, data.next_obs)
        reward = self.reward.loss(inputs, self.reward_norm(data.reward[..., None]))
        termination = torch.zeros(())
        if self.termination is not None:
            logits = self._termination_logits(inputs.flatten(0, 1))
            termination = F.binary_cross_entropy_with_logits(logits, data.terminated.flatten())
        return dynamics, reward, termination

    @torch.no_grad()
    def imagine(
        self, obs: Tensor, state: Tensor, action: Tensor, later: Tensor | None = None
    ) -> Imagined:
        """Sample o' and then r, each row from members of its own choosing, and carry the state on.

        Args:
            obs: Shape (n, obs_dim).
            state: History states, shape (n, state_dim).
            action: In [-1, 1], shape (n, action_dim).
            later: History states to predict the reward with, if not ``state``; same shape.
        """
        delta = self.dynamics.sample(self.dynamics_inputs(obs, state, action))
        next_obs = obs + self.delta_norm.inverse(delta)
        inputs = self.reward_inputs(obs, state if later is None else later, action, next_obs)
        reward = self.reward_norm.inverse(self.reward.sample(inputs))[:, 0]
        terminated = torch.zeros_like(reward)
        if self.termination is not None:
            terminated = torch.sigmoid(self._termination_logits(inputs))
        next_state = self.step_state(state, obs, action, reward, next_obs)
        return Imagined(next_obs, reward, terminated, next_state)

    def spread(self, obs: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """How far the members' mean changes of the observation are apart, shape (n,).

        Root mean square over its columns, in deviations of each.

        Args:
            obs: Shape (n, obs_dim).
            state: History states, shape (n, state_dim).
            action: In [-1, 1], shape (n, action_dim).
        """
        mean: Tensor = self.dynamics(self.dynamics_inputs(obs, state, action))[0]
        return mean.var(0, correction=0).mean(-1).sqrt()

    @torch.no_grad()
    def surprise(self, obs: Tensor, state: Tensor, action: Tensor, later: Tensor) -> Tensor:
        """By how much ``later`` changes the reward of an imagined step, shape (n,).

        In standard deviations: of all rewards and of the predicted one, added in squares. So it is
        large where one task was believed in and ``later`` believes in another, but not where
        ``later`` settles what was open.

        Args:
            obs: Shape (n, obs_dim).
            state: History states, shape (n, state_dim).
            action: In [-1, 1], shape (n, action_dim).
            later: History states of one real step later, shape (n, state_dim).
        """
        delta = self.dynamics.sample(self.dynamics_inputs(obs, state, action))
        next_obs = obs + self.delta_norm.inverse(delta)
        means, log_var = self.reward(self.reward_inputs(obs, state, action, next_obs))
        variance = log_var.exp().mean(0) + means.var(0, correction=0)
        then, _ = self.reward(self.reward_inputs(obs, later, action, next_obs))
        surprise: Tensor = (then.mean(0) - means.mean(0)).abs() / (1.0 + variance).sqrt()
        return surprise[:, 0]


class MetaModelTrainer:
    """Maximum likelihood on windows of real histories.

    The encoder runs over whole windows; each member then learns from rows of its own drawn out of
    them, which costs a fraction of showing every row to every member. Members differ by these rows
    and by their initial weights, not by a bootstrap: a member that misses a third of a few
    episodes is twice as far off (docs/m3po_findings.md).

    Args:
        model: The meta-model.
        learning_rate: Of Adam.
        weight_decay: Decoupled weight decay.
        windows: Windows per gradient step.
        length: Steps of a window.
        rows: Rows that each member learns from in a gradient step.
        memory: Whose history states D_env stores, the model's being the first columns; the model's
            alone by default.
    """

    def __init__(
        self,
        model: MetaModel,
        learning_rate: float,
        weight_decay: float,
        windows: int,
        length: int,
        rows: int,
        memory: HistoryStates | None = None,
    ) -> None:
        self.model, self.windows, self.length, self.rows = model, windows, length, rows
        self.memory = memory or model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), learning_rate, weight_decay=weight_decay, fused=True
        )

    def fit(
        self, replay: SequenceReplay, n_steps: int, refresh_every: int = 250
    ) -> dict[str, float]:
        """``n_steps`` gradient steps, then fresh history states; returns the mean last losses.

        Args:
            replay: Real histories.
            n_steps: Gradient steps.
            refresh_every: Gradient steps between two recomputations of the stored states, so
                that windows do not start from states of an encoder long gone.
        """
        self._fit_normalizers(replay)
        losses = []
        for step in range(n_steps):
            if step % refresh_every == 0:
                self.memory.refresh_states(replay)
            losses.append(self._gradient_step(replay))
        self.memory.refresh_states(replay)
        dynamics, reward, termination = torch.stack(losses[-50:]).mean(0).tolist()
        n = self.model.dynamics.n
        return {
            "dynamics_loss": dynamics / n,
            "reward_loss": reward / n,
            "termination_loss": termination,
        }

    def _gradient_step(self, replay: SequenceReplay) -> Tensor:
        window, valid = replay.windows(self.windows, self.length)
        states = self.model.window_states(window)
        each = valid.flatten().float().expand(self.model.dynamics.n, -1)
        rows = torch.multinomial(each, self.rows, replacement=True)
        data = RealTransitions(*(x.flatten(0, 1)[rows] for x in window))
        losses = self.model.loss(data, states.flatten(0, 1)[rows])
        self.optimizer.zero_grad()
        sum(losses, torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return torch.stack(losses).detach()

    def _fit_normalizers(self, replay: SequenceReplay) -> None:
        data = replay.all
        self.model.obs_norm.fit(data.obs)
        self.model.delta_norm.fit(data.next_obs - data.obs)
        self.model.reward_norm.fit(data.reward[:, None])
