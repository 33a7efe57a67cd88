"""PEARL: off-policy meta-reinforcement learning with probabilistic context variables.

Rakelly, Zhou, Quillen, Finn, Levine, ICML 2019, arXiv 1903.08254; hyperparameters and order of
collection are those of the authors' code (github.com/katerakelly/oyster, ``cheetah-dir.json``).

=====================================  =========================================================
the method                             here
=====================================  =========================================================
q(z | c), product of Gaussian factors  ``belief.ContextEncoder``, ``belief.Belief``; equation 2
context without order and terminals    ``task_replay.TaskTransitions.context``
RL buffer and encoder buffer per task  ``PEARL.replay_buffer``, ``PEARL.encoder_buffer``
data collection, algorithm 1           ``collection.CollectionPlan``
meta-training, algorithm 1             ``PEARL.train``, ``PEARL._update``
policy and critics over (o, z)         ``policies.BeliefPolicy``, ``common.soft_actor_critic``
meta-testing, algorithm 2              ``BeliefPolicy.respond`` with ``belief_update="episode"``
=====================================  =========================================================

As published: the encoder learns from the critics' loss and from the KL to N(0, I); the actor sees
z detached; the encoder's context is a task's latest data under z from the prior; a task is held
fixed while training collects (also in an env whose tasks change within the episode).

Known deviations.

- Soft actor-critic has target critics instead of a value network, and its temperature is tuned
  (``ent_coef="auto"``); published is a fixed one, ``ent_coef=1.0`` with ``reward_scale=5``. The
  penalties of 1e-3 on the policy's mean and log deviation are left out.
- The next observation is part of the context in every family, so that one setting serves all;
  published only for random parameters of the dynamics.
- Contexts are standardised, by the RL buffer's transitions before each iteration's updates.
  Without it an encoder of small rewards hardly learns within a short budget.
- z is inferred after every transition (``belief_update="step"``): the published agent infers it
  between episodes only, and cannot adapt within one. So that few transitions are enough, the
  presets ``lite`` and ``quick`` train the encoder on contexts of all sizes
  (``context_size=(1, n)``), instead of one; and on all of a task's data under the prior
  (``encoder_buffer_size``), because a short budget has little. With the published settings
  (``default``) a context of training mixes several runs under z of the prior, and what an agent
  sees that acts on its belief lies outside of them: one of three runs came to run one way
  whatever was wanted. ``posterior_context`` shows the encoder such runs too
  (``results/README.md``).
- The encoder's buffer is a ring as long as a collection, instead of emptied before each.
- Each episode of the posterior phase draws z from the posterior; in the authors' code its first
  episode still draws from the prior.
- With ``belief_update="episode"`` z is drawn anew after each episode, as in algorithm 2; the
  authors' code evaluates with z from the prior for two episodes, and from the posterior after.
- The last transition of an inner episode of a trial is not taken in by ``predict``: its reward is
  not shown.
- With continuous tasks, 40 are drawn for training (published: 100 for cheetah-vel and
  humanoid-dir, 40 for walker and hopper). The settings are cheetah-dir's in every family;
  published for most others are smaller collections (400 and 600 steps) with twice the updates, and
  meta-batches of 10 or 16 where there are many tasks.

What it cannot do: a product of factors never forgets. Where the task changes within an episode,
old transitions outvote the new ones for about as long as the old task lasted; ``forgetting``, ours
and off by default, makes them fade.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from reprlib import repr as shortened
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from m3po_baselines.pearl.collection import CollectionPlan, Segment
from m3po_baselines.pearl.policies import BELIEF_UPDATES, BeliefPolicy
from m3po_baselines.pearl.task_replay import TaskReplay
from m3po_bench.common.arguments import check_counts, check_shares
from m3po_bench.common.meta_algorithm import Array, VecStep
from m3po_bench.common.replay_algorithm import ReplayAlgorithm
from m3po_bench.common.soft_actor_critic import SoftActorCritic, Transitions, entropy_setting
from m3po_bench.common.vec_wrappers import reset_one
from m3po_bench.registry import unknown_name
from m3po_bench.tasks import FiniteTasks, Task, task_parameters

_NORMALIZER_ROWS = 10_000
_COUNTS = (
    "n_train_tasks", "tasks_per_iteration", "prior_steps", "updates_per_iteration", "meta_batch",
    "batch_size", "buffer_size", "encoder_buffer_size",
)  # fmt: skip


class PEARL(ReplayAlgorithm):
    """Soft actor-critic given a belief about the task; see the module's docstring.

    Training chooses its tasks, which most agents cannot: an env that has ``tasks`` must accept
    them in ``reset(options={"task": ..., "schedule": "static"})``. An env without is one task.
    After ``learn`` the env draws its own tasks again.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of ``BeliefPolicy``.
        env: See ``MetaAlgorithm``.
        learning_rate: Of actor, critics, encoder and temperature.
        n_train_tasks: Tasks drawn for training where they are continuous; of finite ones, all
            are used.
        initial_steps: Env steps in each training task before the first iteration. Of parallel envs,
            here and in iterations, each plays an episode at least in every task drawn, so many of
            them make iterations longer without more updates.
        tasks_per_iteration: Tasks drawn for an iteration, with replacement.
        prior_steps: Env steps in each of them with z from the prior, for both buffers.
        posterior_steps: Env steps in each of them with z from the posterior, for the RL buffer.
        updates_per_iteration: Gradient steps at the end of an iteration.
        meta_batch: Tasks per gradient step, drawn with replacement.
        batch_size: Transitions per task and gradient step.
        context_size: Transitions per task and gradient step from which z is inferred; or the
            smallest and the largest number, between which it is drawn, uniformly in the logarithm.
        buffer_size: Transitions kept per task in the RL buffer.
        encoder_buffer_size: Transitions kept per task in the encoder's: its latest ones with z from
            the prior.
        posterior_context: Whether the encoder's buffer also keeps those with z from the posterior,
            as what an agent sees that acts on its belief (``num_steps_posterior`` in the authors'
            code, unused in the published settings of this family).
        kl_lambda: Weight of KL(q(z | c) || N(0, I)), which is summed over tasks and dimensions.
        reward_scale: What the critics' rewards are multiplied by; the context's are not.
        tau: Rate of the target critics' moving average.
        gamma: Discount factor.
        ent_coef: Entropy temperature; ``"auto"`` tunes it from 1, ``"auto_0.1"`` from 0.1.
        target_entropy: ``"auto"`` is minus the number of action dimensions, as in SB3's SAC.
        forgetting: Share of the belief's precision that ``predict`` loses with each transition;
            published is none.
        belief_update: When ``predict`` infers z, ``"step"`` or ``"episode"``; see
            ``BeliefPolicy``.
        policy_kwargs: See ``BeliefPolicy``.
        **kwargs: See ``MetaAlgorithm``; ``seed`` also draws the training tasks.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": BeliefPolicy}
    policy: BeliefPolicy
    train_tasks: tuple[Task | None, ...]
    exact_resume = True

    def __init__(
        self,
        policy: str | type[BeliefPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_train_tasks: int = 40,
        initial_steps: int = 2000,
        tasks_per_iteration: int = 5,
        prior_steps: int = 1000,
        posterior_steps: int = 1000,
        updates_per_iteration: int = 2000,
        meta_batch: int = 4,
        batch_size: int = 256,
        context_size: int | Sequence[int] = 256,
        buffer_size: int = 1_000_000,
        encoder_buffer_size: int = 1000,
        posterior_context: bool = False,
        kl_lambda: float = 0.1,
        reward_scale: float = 5.0,
        tau: float = 0.005,
        gamma: float = 0.99,
        ent_coef: float | str = "auto",
        target_entropy: float | str = "auto",
        forgetting: float = 0.0,
        belief_update: str = "step",
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.n_train_tasks, self.initial_steps = n_train_tasks, initial_steps
        self.tasks_per_iteration = tasks_per_iteration
        self.prior_steps, self.posterior_steps = prior_steps, posterior_steps
        self.updates_per_iteration = updates_per_iteration
        self.meta_batch, self.batch_size = meta_batch, batch_size
        self.context_size, self.buffer_size = context_size, buffer_size
        self.encoder_buffer_size = encoder_buffer_size
        self.posterior_context = posterior_context
        self.kl_lambda, self.reward_scale = kl_lambda, reward_scale
        self.tau, self.gamma = tau, gamma
        self.ent_coef, self.target_entropy = ent_coef, target_entropy
        self.forgetting, self.belief_update = forgetting, belief_update
        self._check_arguments()
        super().__init__(policy, env, learning_rate, 0, policy_kwargs, **kwargs)

    def _check_arguments(self) -> None:
        check_counts(**{name: getattr(self, name) for name in _COUNTS})
        check_shares(gamma=self.gamma, tau=self.tau)
        for name in ("initial_steps", "posterior_steps", "kl_lambda"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected at least 0")
        sizes = self.context_size
        one = isinstance(sizes, (int, np.integer))
        ends = (int(sizes), int(sizes)) if one else tuple(map(int, sizes))  # type: ignore[arg-type]
        self._context_sizes = ends
        if len(ends) != 2 or not 1 <= ends[0] <= ends[1]:
            raise ValueError(
                f"context_size={sizes!r}: expected a number, at least 1, or the smallest and the "
                "largest number"
            )
        if not 0.0 <= self.forgetting < 1.0:
            raise ValueError(
                f"forgetting={self.forgetting!r}: expected a share, 0 or more, below 1"
            )
        if self.belief_update not in BELIEF_UPDATES:
            raise unknown_name("belief_update", self.belief_update, BELIEF_UPDATES)

    def _setup_model(self) -> None:
        assert isinstance(self.action_space, spaces.Box)
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if not hasattr(self, "train_tasks"):  # a loaded agent knows already
            self.train_tasks = self._draw_train_tasks()
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, layout=self.layout,
            forgetting=self.forgetting, belief_update=self.belief_update, **self.policy_kwargs,
        )  # fmt: skip
        policy = self.policy
        widths = (len(self.train_tasks), policy.obs_dim, policy.action_dim)
        self.replay_buffer = TaskReplay(*widths, self.buffer_size)
        self.encoder_buffer = TaskReplay(*widths, self.encoder_buffer_size)
        self.plan = self._new_plan(self.initial_steps)
        self._segments: list[Segment | None] = [None] * self.n_envs
        self._z = torch.zeros(self.n_envs, policy.latent_dim)
        first, entropy = entropy_setting(self.ent_coef, self.target_entropy, policy.action_dim)
        policy.log_alpha.data.fill_(math.log(first))
        self.soft_actor_critic = SoftActorCritic(
            policy.actor, policy.critics, policy.critic_targets, policy.log_alpha,
            self.lr_schedule(1.0), self.gamma, self.tau, entropy,
            feature_parameters=policy.encoder.parameters(),
        )  # fmt: skip

    def _new_plan(self, initial_steps: int) -> CollectionPlan:
        return CollectionPlan(
            len(self.train_tasks), initial_steps, self.tasks_per_iteration,
            self.prior_steps, self.posterior_steps, np.random.default_rng(self.seed),
        )  # fmt: skip

    def _draw_train_tasks(self) -> tuple[Task | None, ...]:
        """The training tasks; None stands for the only one of an env that has no ``tasks``."""
        if self.env is None or not self.env.has_attr("tasks"):
            return (None,)
        tasks = self.env.get_attr("tasks", 0)[0]
        if isinstance(tasks, FiniteTasks):
            return tuple(tasks.parse(index) for index in range(len(tasks)))
        rng = np.random.default_rng(self.seed)
        return tuple(tasks.sample(rng) for _ in range(self.n_train_tasks))

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """See ``MetaAlgorithm.learn``; every call begins new episodes."""
        try:
            return super().learn(*args, **kwargs)
        finally:
            self._free_tasks()
            self._last_obs = None

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        found = super()._setup_learn(*args, **kwargs)
        self.train()  # the last call may have stopped before it learnt from its iteration
        return found

    def _free_tasks(self) -> None:
        for i, segment in enumerate(self._segments):
            if segment is not None and self.train_tasks[segment.task] is not None:
                assert self.env is not None
                reset_one(self.env, i, {"task": None, "schedule": None})
        self._segments = [None] * self.n_envs

    def _collect_step(self, callback: BaseCallback, log_interval: int | None) -> bool:
        assert self._last_episode_starts is not None
        for i in np.flatnonzero(self._last_episode_starts):
            self._begin_episode(int(i))
        return super()._collect_step(callback, log_interval)

    def _begin_episode(self, i: int) -> None:
        """Put the i-th env in the task that is due, and choose z for its episode."""
        segment = self.plan.begin_episode()
        # Each time, although an env keeps a forced task: a TrialWrapper forgets it after a trial.
        self._force_task(i, self.train_tasks[segment.task])
        self._segments[i] = segment
        if segment.from_prior or self.encoder_buffer.sizes[segment.task] == 0:
            self._z[i] = torch.randn(self.policy.latent_dim)
            return
        task = torch.tensor([segment.task])
        with torch.no_grad():
            context = self.encoder_buffer.sample(task, self._context_sizes[1]).context
            self._z[i] = self.policy.infer(context).sample()[0]

    def _force_task(self, i: int, task: Task | None) -> None:
        if task is None:
            return
        assert self.env is not None
        assert isinstance(self._last_obs, np.ndarray)
        try:
            self._last_obs[i] = reset_one(self.env, i, {"task": task, "schedule": "static"})
            in_force = self.env.get_attr("task", i)[0].params
        except (AttributeError, TypeError) as error:
            in_force = error
        if in_force != task.params:
            raise ValueError(
                f"PEARL trains in tasks of its choice, but this env does not play {task.params} "
                f"after reset(options={{'task': ..., 'schedule': 'static'}}): {in_force!r}; "
                "expected an env as m3po_bench.tasks.MetaEnv, or one without 'tasks'"
            )

    def _act(self, obs: Array, starts: Array) -> Array:
        bare = torch.as_tensor(obs[:, self.policy.obs_columns], dtype=torch.float32)
        with torch.no_grad():
            scaled = self.policy.actor.act(torch.cat([bare, self._z], -1))
        return self.policy.unscale_action(scaled.numpy())

    def _store(self, step: VecStep) -> None:
        obs, action, _, next_obs, *_ = step.tensors(self.policy.obs_columns)
        for i, segment in enumerate(self._segments):
            assert segment is not None
            self.plan.count(segment)
            if step.cut[i]:  # leads to another inner episode of a trial
                continue
            to_encoder = segment.from_prior or self.posterior_context
            for buffer in (self.replay_buffer, *[self.encoder_buffer] * to_encoder):
                buffer.add(
                    segment.task, obs[i], action[i], step.reward[i], next_obs[i],
                    step.terminated[i],
                )  # fmt: skip

    def train(self) -> None:
        """Meta-training: the updates at the end of an iteration."""
        assert self._last_episode_starts is not None
        if not (self._last_episode_starts.any() and self.plan.iteration_ended):
            return
        self._update_learning_rate(self.soft_actor_critic.optimizers)
        known = torch.nonzero((self.replay_buffer.sizes > 0) & (self.encoder_buffer.sizes > 0))
        known = known.squeeze(-1)
        shown = self.replay_buffer.sample(known, -(-_NORMALIZER_ROWS // len(known)))
        self.policy.fit_normalizer(shown.context.flatten(0, 1))
        for _ in range(self.updates_per_iteration):
            tasks = known[torch.randint(len(known), (self.meta_batch,))]
            logs = self._update(tasks)
        self.plan.begin_iteration()
        self._n_updates += self.updates_per_iteration
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in logs.items():
            self.logger.record(f"train/{key}", value.item())

    def _update(self, tasks: Tensor) -> dict[str, Tensor]:
        """One gradient step on a meta-batch of tasks, shape (meta_batch,)."""
        smallest, largest = self._context_sizes
        size = round(smallest * (largest / smallest) ** torch.rand(()).item())
        belief = self.policy.infer(self.encoder_buffer.sample(tasks, size).context)
        z = belief.sample()[:, None].expand(-1, self.batch_size, -1)
        data = self.replay_buffer.sample(tasks, self.batch_size)
        batch = Transitions(
            torch.cat([data.obs, z], -1).flatten(0, 1),
            data.action.flatten(0, 1),
            self.reward_scale * data.reward.flatten(),
            torch.cat([data.next_obs, z.detach()], -1).flatten(0, 1),
            data.not_terminated.flatten(),
        )
        kl = belief.kl_from_prior().sum()
        # The critics' loss is half of the published one, so this is too.
        logs = self.soft_actor_critic.update(batch, penalty=0.5 * self.kl_lambda * kl)
        return logs | {"kl_loss": self.kl_lambda * kl.detach()}

    def _stored(self) -> dict[str, Any]:
        return {
            "tasks": task_parameters(self.train_tasks),
            "replay_buffer": self.replay_buffer.state_dict(),
            "encoder_buffer": self.encoder_buffer.state_dict(),
        }

    def _take_over(self, stored: dict[str, Any]) -> None:
        if (tasks := stored.get("tasks")) != (mine := task_parameters(self.train_tasks)):
            raise ValueError(
                f"replay buffer of the training tasks {shortened(tasks)}, expected "
                f"{shortened(mine)}: load it into the agent that it was saved with, or one of the "
                "same env and seed"
            )
        self.replay_buffer.load_state_dict(stored["replay_buffer"])
        self.encoder_buffer.load_state_dict(stored["encoder_buffer"])
        known = bool((self.encoder_buffer.sizes > 0).all())
        self.plan = self._new_plan(0 if known else self.initial_steps)

    def _training_state(self) -> dict[str, Any]:
        return self._stored() | {"plan": self.plan.state_dict()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._take_over(state)
        self.plan.load_state_dict(state["plan"])

    def _begin_anew(self, seed: int, kept_tasks: list[list[float] | None]) -> None:
        self._free_tasks()  # as those of envs that have just been made
        super()._begin_anew(seed, kept_tasks)
        self.plan.rng = np.random.default_rng(seed)

    def _excluded_save_params(self) -> list[str]:
        own = ["replay_buffer", "encoder_buffer", "plan", "_segments", "_z"]
        return [*super()._excluded_save_params(), *own]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = [f"soft_actor_critic.{n}_optimizer" for n in ("actor", "critic", "alpha")]
        return ["policy", *optimizers], []
