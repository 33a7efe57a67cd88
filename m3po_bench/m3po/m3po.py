"""M3PO: Meta-Model-Based Meta-Policy Optimization.

Hiraoka, Imagawa, Tangkaratt, Osa, Onishi, Tsuruoka, ACML 2021 (PMLR 157), arXiv 2006.02608. Its
code was never released and its hyperparameters are not public to us: the defaults are ours.

=====================================  =========================================================
the method                             here
=====================================  =========================================================
history h_t = (o_0, a_0, r_0, .., o_t) (o_t, state of two GRUs), ``common.encoders``
meta-model p(o', r | a, h)             ``meta_model.MetaModel``: p(o' | a, h) p(r | o, a, o', h)
fit by maximum likelihood on D_env     ``meta_model.MetaModelTrainer``, without a bootstrap
meta-policy pi(a | h)                  ``policies.MetaPolicy``
k-step branched meta-rollouts          ``branched_rollouts.branch``, from histories of D_env
full meta-model rollouts               the same, from first observations (``rollout_length="full"``)
D_model                                ``branched_rollouts.ImaginedReplay``
G policy updates on D_model            ``common.soft_actor_critic``
encoders of policy and critics         the meta-model's; ``encoder="separate"``: ``recurrent``
=====================================  =========================================================

Known deviations. Unless ``encoder="separate"``, the policy does not have a recurrent network of its
own: it sees the meta-model's history states, detached, so that an update is a plain feed-forward
one; D_model therefore is emptied at each refit of the model. Rewards are imagined in hindsight, by
the history state of one real step later (``hindsight``), not by what the rollout itself knows, lest
what pays comes to be believed. Steps in which that tells of a change of task are left out
(``surprise_limit``). Rollouts branch off late histories more often than off early ones
(``start_recency``), not off all alike; they end where the ensemble's members disagree
(``rollout_trust``), not only after k steps. The reward is predicted from the sampled next
observation, with an encoder and a likelihood of its own, and likelihoods are weighted by powers of
the predicted variance (``common.dynamics``). Critics normalise their hidden layers and the actor is
updated at every second of their updates, to spend less time on an update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from m3po_bench.common.arguments import check_counts, check_positive, check_room, check_shares
from m3po_bench.common.meta_algorithm import VecStep
from m3po_bench.common.replay_algorithm import ReplayAlgorithm
from m3po_bench.common.sequence_replay import RealTransitions, SequenceReplay
from m3po_bench.common.soft_actor_critic import SoftActorCritic, Transitions, entropy_setting
from m3po_bench.m3po.branched_rollouts import ImaginedReplay, branch, deal_out, real_transitions
from m3po_bench.m3po.branched_windows import BranchedWindows, branch_windows, window_batch
from m3po_bench.m3po.changes import windows_without_changes, without_changes
from m3po_bench.m3po.diagnostics import diagnose
from m3po_bench.m3po.meta_model import MetaModelTrainer
from m3po_bench.m3po.policies import MetaPolicy
from m3po_bench.m3po.ramp import Ramp
from m3po_bench.m3po.recurrent import check_encoder
from m3po_bench.m3po.termination import check_termination, offers_termination, termination_of
from m3po_bench.m3po.turns import turns_due

_COUNTS = (
    "buffer_size", "batch_size", "actor_every", "rollouts_per_step", "rollout_every",
    "model_fit_every", "model_first_fit", "model_fit_steps", "model_windows",
    "model_window_length", "model_rows", "policy_window_length",
)  # fmt: skip


class M3PO(ReplayAlgorithm):
    """Branched meta-rollouts and soft actor-critic over histories; see the module's docstring.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of ``MetaPolicy``.
        env: See ``MetaAlgorithm``.
        learning_rate: Of actor, critics and temperature.
        buffer_size: Env steps kept in D_env.
        learning_starts: Env steps with random actions before the first fit.
        batch_size: Transitions per policy update.
        tau: Rate of the target critics' moving average.
        gamma: Discount factor.
        gradient_steps: Policy updates G per env step.
        actor_every: Critic updates per actor update.
        bfloat16: Whether policy updates multiply matrices in bfloat16: faster where the processor
            has instructions for it, many times slower elsewhere.
        torch_compile: Whether policy updates are fused by ``torch.compile``, which takes a C++
            compiler and some ten seconds first; the same numbers but for rounding.
        ent_coef: Entropy temperature; ``"auto"`` tunes it from 1, ``"auto_0.1"`` from 0.1.
        target_entropy: ``"auto"`` is minus the number of action dimensions, as in SB3's SAC.
        real_ratio: Share of each policy batch that is real, or a ramp of it (``ramp.Ramp``):
            (start_epoch, end_epoch, first, last), in epochs of 1,000 env steps.
        rollout_length: Steps k of a branched meta-rollout, a ramp of k, or ``"full"``: rollouts of
            whole episodes from the first observations of real ones, without branching.
        rollout_trust: Below 1, branched rollouts end before steps in which the meta-model's members
            are further apart (``MetaModel.spread``) than in this share of their first steps.
        hindsight: Whether rewards of branched rollouts are imagined with the history state that the
            real history has one step later, or with what the rollout itself knows.
        surprise_limit: Where hindsight changes the reward by more than so many deviations
            (``MetaModel.surprise``) the task changed: not learnt from. ``math.inf``: all are.
        rollouts_per_step: Branched meta-rollouts M per env step, in whole rounds between two fits;
            of full ones, so many that they make M imagined transitions.
        rollout_every: Env steps between two rounds of rollouts.
        start_recency: Above 1, rollouts branch more often off late histories than off early ones
            (``SequenceReplay.sample``); 1 chooses uniformly.
        history: False for a policy and a model without memory: MBPO (Janner et al. 2019).
        encoder: ``"shared"``: policy and critics see the meta-model's history states.
            ``"separate"``: each has a GRU of its own, trained by its own loss through windows of
            histories, and D_model is kept over refits; several times slower. See ``recurrent``.
        policy_window_length: Env steps of such a window.
        policy_burn_in: Of these, steps that only bring the stored history state up to date.
        model_learning_rate: Of the meta-model.
        model_weight_decay: Of the meta-model.
        model_fit_every: Env steps between two fits of the meta-model.
        model_first_fit: Gradient steps of the first fit.
        model_fit_steps: Gradient steps of each later fit.
        model_windows: Windows per gradient step of a fit.
        model_window_length: Env steps of a window.
        model_rows: Transitions each member learns from in a gradient step.
        warm_start_correlation: Of one random action with the next, 0 for independent ones.
        policy_kwargs: See ``MetaPolicy`` and ``MetaModel``.
        stats_window_size: See ``MetaAlgorithm``.
        tensorboard_log: See ``MetaAlgorithm``.
        verbose: See ``MetaAlgorithm``.
        seed: See ``MetaAlgorithm``.
        device: See ``MetaAlgorithm``.
        _init_setup_model: See ``MetaAlgorithm``.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MetaPolicy}
    policy: MetaPolicy
    exact_resume = True

    def __init__(
        self,
        policy: str | type[MetaPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 128,
        tau: float = 0.005,
        gamma: float = 0.97,
        gradient_steps: int = 16,
        actor_every: int = 2,
        bfloat16: bool = False,
        torch_compile: bool = False,
        ent_coef: float | str = "auto",
        target_entropy: float | str = "auto",
        real_ratio: float | Sequence[float] = 0.05,
        rollout_length: int | Sequence[float] | str = 25,
        rollout_trust: float = 0.95,
        hindsight: bool = True,
        surprise_limit: float = 1.0,
        rollouts_per_step: int = 16,
        rollout_every: int = 50,
        start_recency: float = 5.0,
        history: bool = True,
        encoder: str = "shared",
        policy_window_length: int = 12,
        policy_burn_in: int = 4,
        model_learning_rate: float = 2e-3,
        model_weight_decay: float = 1e-4,
        model_fit_every: int = 250,
        model_first_fit: int = 1500,
        model_fit_steps: int = 250,
        model_windows: int = 16,
        model_window_length: int = 40,
        model_rows: int = 192,
        warm_start_correlation: float = 0.0,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str = "cpu",
        _init_setup_model: bool = True,
    ) -> None:
        self.buffer_size, self.gradient_steps, self.tau = buffer_size, gradient_steps, tau
        self.actor_every, self.encoder, self.start_recency = actor_every, encoder, start_recency
        self.bfloat16, self.torch_compile, self.batch_size = bfloat16, torch_compile, batch_size
        self.ent_coef, self.target_entropy, self.real_ratio = ent_coef, target_entropy, real_ratio
        self.rollout_length, self.rollout_trust, self.gamma = rollout_length, rollout_trust, gamma
        self.rollouts_per_step, self.rollout_every = rollouts_per_step, rollout_every
        self.hindsight, self.surprise_limit, self.history = hindsight, surprise_limit, history
        self.policy_window_length, self.policy_burn_in = policy_window_length, policy_burn_in
        self.model_learning_rate, self.model_weight_decay = model_learning_rate, model_weight_decay
        self.model_fit_every, self.model_first_fit = model_fit_every, model_first_fit
        self.model_fit_steps, self.model_windows = model_fit_steps, model_windows
        self.model_window_length, self.model_rows = model_window_length, model_rows
        learns = (policy, env, learning_rate, learning_starts, policy_kwargs, stats_window_size)
        rest = (tensorboard_log, verbose, seed, device, _init_setup_model, warm_start_correlation)
        super().__init__(*learns, *rest)

    def _check_arguments(self) -> None:
        check_counts(**{name: getattr(self, name) for name in _COUNTS})
        check_counts(0, gradient_steps=self.gradient_steps)
        check_room(self.buffer_size, self.learning_starts, self.n_envs)
        check_shares(rollout_trust=self.rollout_trust, gamma=self.gamma, tau=self.tau)
        self._real_ramp = Ramp.parse("real_ratio", self.real_ratio, 0.0, 1.0)
        self._full_rollouts = self.rollout_length == "full"
        length = 1 if self._full_rollouts else self.rollout_length
        self._length_ramp = Ramp.parse("rollout_length", length, 1.0)  # type: ignore[arg-type]
        self._trust = 1.0 if self._full_rollouts else self.rollout_trust
        # Where nothing is known yet, a step later hardly more is.
        self._sees_later = self.hindsight and not self._full_rollouts
        self._limit = self.surprise_limit if self._sees_later and self.history else math.inf
        check_positive(
            start_recency=self.start_recency, surprise_limit=self.surprise_limit,
            model_learning_rate=self.model_learning_rate,
        )  # fmt: skip
        self._separate = self.encoder == "separate"
        window, burn_in = self.policy_window_length, self.policy_burn_in
        check_encoder(self.encoder, self.history, self._full_rollouts, window, burn_in)

    def _setup_model(self) -> None:
        assert isinstance(self.action_space, spaces.Box)
        self._check_arguments()  # here, because ``load`` may have replaced some
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if not hasattr(self, "termination_from_env"):  # a loaded agent knows already
            self.termination_from_env = offers_termination(self.env)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, layout=self.layout,
            history=self.history, learn_termination=not self.termination_from_env,
            encoder=self.encoder, **self.policy_kwargs,
        )  # fmt: skip
        policy, model = self.policy, self.policy.meta_model
        self.replay_buffer = SequenceReplay(
            self.n_envs, model.obs_dim, model.action_dim, policy.state_dim, self.buffer_size
        )
        # Each fit begins anew with a round; D_model has room for all rounds until the next.
        self._round = min(self.rollout_every, self.model_fit_every)
        longest = -(-self.model_fit_every // self.n_envs) * self.n_envs
        n_rollouts = self.rollouts_per_step * self._round * -(-longest // self._round)
        self.imagined = ImaginedReplay(Transitions, n_rollouts * int(self._length_ramp.largest))
        self.windows = ImaginedReplay(BranchedWindows, self._n_windows(n_rollouts))
        self.trainer = MetaModelTrainer(
            model, self.model_learning_rate, self.model_weight_decay,
            self.model_windows, self.model_window_length, self.model_rows, policy,
        )  # fmt: skip
        temperature, entropy = entropy_setting(self.ent_coef, self.target_entropy, model.action_dim)
        policy.log_alpha.data.fill_(math.log(temperature))
        self.soft_actor_critic = SoftActorCritic(
            policy.actor, policy.critics, policy.critic_targets, policy.log_alpha,
            self.lr_schedule(1.0), self.gamma, self.tau, entropy, self.actor_every, (),
            self.bfloat16, self.torch_compile,
        )  # fmt: skip
        self._next_fit = self._next_rollouts = 0
        self._fitted = self._n_updates > 0
        self._logs: dict[str, Tensor] = {}

    def _store(self, step: VecStep) -> None:
        self.replay_buffer.add(*step.tensors(self.policy.obs_columns))
        self.policy.carry_states(self.replay_buffer)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        check_termination(self.env, self.termination_from_env)
        found = super()._setup_learn(*args, **kwargs)
        if self.num_timesteps == 0:  # steps are counted anew
            self._next_fit = self._next_rollouts = 0
        return found

    def train(self) -> None:
        """One turn of the algorithm box after an env step: fit, branch, update."""
        if len(self.replay_buffer) < self.learning_starts:  # a loaded agent without its data
            return
        self._update_learning_rate(self.soft_actor_critic.optimizers)
        if self.num_timesteps >= self._next_fit:
            self._fit_meta_model()
        if self.num_timesteps >= self._next_rollouts:
            self._branch_meta_rollouts()
        self._update_policy(self.gradient_steps * self.n_envs)
        if self._n_updates % 100 < self.gradient_steps * self.n_envs:
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
            for key, value in self._logs.items():
                self.logger.record(f"train/{key}", value.item())

    def _turns_due(self, planned: int, every: int) -> tuple[int, int]:
        return turns_due(planned, every, self.num_timesteps, self.n_envs)

    def _fit_meta_model(self) -> None:
        self._next_rollouts = min(self._next_rollouts, self._next_fit)
        turns, self._next_fit = self._turns_due(self._next_fit, self.model_fit_every)
        n_steps = turns * self.model_fit_steps if self._fitted else self.model_first_fit
        for key, value in self.trainer.fit(self.replay_buffer, n_steps).items():
            self.logger.record(f"model/{key}", value)
        self._fitted = True
        self.imagined.clear()  # windows stay: they are encoded anew at each use
        last = self.replay_buffer.last
        self._agent_state = (last.state.numpy(), last.obs.numpy())  # of the encoder as it is now

    def _branch_meta_rollouts(self) -> None:
        policy, replay = self.policy, self.replay_buffer
        ends = termination_of(self.env, self.termination_from_env)
        turns, self._next_rollouts = self._turns_due(self._next_rollouts, self._round)
        n = turns * self.rollouts_per_step * self._round
        length = int(self._length_ramp.at(self.num_timesteps))
        if self._separate:
            sizes = self._n_windows(n), self.policy_window_length, self.policy_burn_in
            drawn = replay.windows_to_learn_from(*sizes, self.start_recency)
            window, learn = windows_without_changes(policy, *drawn, self._limit)
            rest = (int(self._length_ramp.largest), ends, self.hindsight, self._trust)
            windows = branch_windows(policy, window, learn, length, *rest)
            self.windows.add(windows)
            n, n_steps = int(learn.sum()), int(windows.taken.sum())
        else:
            if self._full_rollouts:
                length = replay.longest_sequence
                starts = replay.sample_first(max(1, n // length))
            else:
                starts = self._histories(n, self.start_recency)
            n, n_steps = len(starts.obs), 0
            for step in branch(policy, starts, length, ends, self._sees_later, self._trust):
                self.imagined.add(step.transitions(policy))
                n_steps += len(step.rows)
        self._mean_length = max(n_steps, 1) / max(n, 1)
        self.logger.record("train/rollout_length", self._mean_length)

    def _histories(self, n: int, recency: float = 1.0) -> RealTransitions:
        """``n`` real transitions to learn from."""
        return without_changes(self.policy, self.replay_buffer.sample(n, recency), self._limit)

    def _n_windows(self, n_histories: float) -> int:
        """So many windows that about ``n_histories`` of their steps are learnt from."""
        return max(1, round(n_histories / (self.policy_window_length - self.policy_burn_in)))

    def _update_policy(self, n: int) -> None:
        """``n`` updates; what the latest of critics and actor have to log is kept."""
        self._n_updates += n
        if self._separate:
            logs = [self._update_from_windows() for _ in range(n)]
        else:
            logs = [self.soft_actor_critic.update(batch) for batch in self._policy_batches(n)]
        for latest in logs:
            self._logs |= latest

    def _update_from_windows(self) -> dict[str, Tensor]:
        windows = self.windows.sample(self._n_windows(self.batch_size / self._mean_length))
        batch, features = window_batch(self.policy, windows, self._real_ramp.at(self.num_timesteps))
        return self.soft_actor_critic.update(batch, actor_features=features)

    def _policy_batches(self, n: int) -> list[Transitions]:
        """``n`` batches, drawn at once: a call costs more than the rows that it draws."""
        n_real = round(self._real_ramp.at(self.num_timesteps) * self.batch_size)
        imagined = self.imagined.sample(n * (self.batch_size - n_real))
        real = real_transitions(self.policy, self._histories(n * n_real))
        return deal_out(n, imagined, real)

    def _stored(self) -> dict[str, Any]:
        return dict(self.replay_buffer.state_dict())

    def _take_over(self, stored: dict[str, Any]) -> None:
        self.replay_buffer.load_state_dict(stored)
        self.policy.refresh_states(self.replay_buffer)
        self._next_fit = self._next_rollouts = 0  # the meta-model is refitted before anything else

    def _training_state(self) -> dict[str, Any]:
        return {
            "replay_buffer": self.replay_buffer.state_dict(),
            "policy_updates": self.soft_actor_critic.n_updates,
            "next_fit": self._next_fit,
            "fitted": self._fitted,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self.soft_actor_critic.n_updates = state["policy_updates"]
        self._next_fit = state["next_fit"]
        self._fitted = state["fitted"]

    def _begin_anew(self, seed: int, kept_tasks: list[list[float] | None]) -> None:
        super()._begin_anew(seed, kept_tasks)
        # All are functions of networks and D_env, but were made step by step and at another time.
        self.policy.refresh_states(self.replay_buffer)
        self.imagined.clear()
        self.windows.clear()
        self._next_rollouts = self.num_timesteps + 1  # before the next update

    def diagnostics(self, episodes: Sequence[Any]) -> dict[str, float]:
        """What the meta-model knows on held-out episodes; see ``diagnostics.diagnose``."""
        found = diagnose(self.policy, episodes, self.gamma, self.env, self.termination_from_env)
        length = float(int(self._length_ramp.at(self.num_timesteps)))
        trained = found["gap/horizon"] if self._full_rollouts else length
        return found | {"gap/rollout_length": trained}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "replay_buffer", "imagined", "windows", "_logs"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = [f"soft_actor_critic.{n}_optimizer" for n in ("actor", "critic", "alpha")]
        return ["policy", *optimizers, "trainer.optimizer"], []
