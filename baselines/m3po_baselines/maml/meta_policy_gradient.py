"""What MAML and ProMP share: tasks, trajectories before and after the inner step, arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from m3po_baselines.maml.collection import Collection
from m3po_baselines.maml.held_out import returns_around_inner_step
from m3po_baselines.maml.inner_step import Batch, Gaussian
from m3po_baselines.maml.policy import AdaptivePolicy
from m3po_baselines.parallel_envs import TrainsInCopies, parallel_copies
from m3po_bench.common.arguments import check_counts, check_positive, check_shares
from m3po_bench.common.meta_algorithm import MetaAlgorithm, VecStep
from m3po_bench.common.vec_wrappers import reset_one
from m3po_bench.tasks import Task
from m3po_bench.wrappers import TrialWrapper

Array = NDArray[Any]


class MetaBatch(NamedTuple):
    """Transitions of a meta-batch of n tasks.

    Attributes:
        before: Drawn from the meta-policy.
        after: Drawn from the policies that an inner step on ``before`` made.
    """

    before: Batch
    after: Batch


class MetaPolicyGradient(TrainsInCopies, MetaAlgorithm):
    """A meta-policy trained so that one inner step makes it good at a task.

    An iteration takes ``n_tasks`` tasks. In each, the meta-policy takes ``n_steps`` env steps, an
    inner step adapts it to them, and the adapted policy takes ``n_steps`` more. Every env step
    counts and is learnt from; none is cut off or thrown away: where the steps of a phase are not
    whole episodes, the running one goes on in the next phase, and in the next iteration with the
    same task, if no episode in that task has ended by then. While a task is trained in, it is
    forced, without a schedule; afterwards ``learn`` frees the env again. A continued ``learn`` goes
    on with the same iteration and in the same tasks, but with new episodes.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of ``AdaptivePolicy``.
        env: A meta-environment (``m3po_bench.tasks.MetaEnv``), or a VecEnv of several.
        learning_rate: Of the outer step, where it has one.
        n_tasks: Tasks of an iteration; a multiple of the parallel envs.
        n_steps: Env steps in each task before the inner step, and as many after it.
        n_envs: Envs that are stepped side by side. To a single env further copies are added; a
            VecEnv keeps its own number.
        inner_learning_rate: Of the inner step.
        gamma: Discount factor.
        gae_lambda: Of the generalised advantages.
        baseline_ridge: Of the linear feature baseline.
        adapt_every: In ``predict``, steps of an episode between two inner steps; None to adapt
            only between the inner episodes of a trial.
        adapt_window: In ``predict``, latest transitions that an inner step learns from.
        policy_kwargs: ``net_arch``, ``activation``, ``init_std``, ``min_std``, ``action_scale``;
            see ``AdaptivePolicy``.
        _init_setup_model: See ``MetaAlgorithm``.
        **kwargs: See ``MetaAlgorithm``.

    Raises:
        ValueError: If an argument is out of its range or the env cannot be given a task.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": AdaptivePolicy}
    policy: AdaptivePolicy
    inner_loss: ClassVar[str]
    exact_resume = True

    def __init__(
        self,
        policy: str | type[AdaptivePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        n_tasks: int = 40,
        n_steps: int = 4000,
        n_envs: int = 40,
        inner_learning_rate: float = 0.1,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        baseline_ridge: float = 1e-5,
        adapt_every: int | None = 50,
        adapt_window: int = 400,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        self.n_tasks, self.n_steps = n_tasks, n_steps
        self.inner_learning_rate = inner_learning_rate
        self.gamma, self.gae_lambda, self.baseline_ridge = gamma, gae_lambda, baseline_ridge
        self.adapt_every, self.adapt_window = adapt_every, adapt_window
        check_counts(
            n_tasks=n_tasks, n_steps=n_steps, n_envs=n_envs, adapt_every=adapt_every,
            adapt_window=adapt_window,
        )  # fmt: skip
        check_positive(inner_learning_rate=inner_learning_rate, baseline_ridge=baseline_ridge)
        check_shares(gamma=gamma, gae_lambda=gae_lambda)
        if env is not None:
            env = parallel_copies(env, n_envs)
        # No learning_starts: an action that the policy did not draw cannot be learnt from.
        super().__init__(
            policy, env, learning_rate, 0, policy_kwargs, _init_setup_model=_init_setup_model,
            **kwargs,
        )  # fmt: skip
        if self.env is not None and _init_setup_model:
            self._check_env()

    def _check_env(self) -> None:
        """Refuse an env whose task this agent cannot choose and keep."""
        assert self.env is not None
        name = type(self).__name__
        if not self.env.has_attr("tasks"):
            raise ValueError(
                f"{name} chooses the task it trains in, but {self.env} has no 'tasks': expected "
                "a meta-environment such as M3PO/PointFwdBwd-v0"
            )
        if any(self.env.env_is_wrapped(TrialWrapper)):
            raise ValueError(
                f"{name} makes trials itself; train it in the env without TrialWrapper"
            )
        if self.n_tasks % self.n_envs:
            raise ValueError(
                f"n_tasks={self.n_tasks}: expected a multiple of the {self.n_envs} parallel envs"
            )

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """See ``TrainsInCopies.set_env``."""
        super().set_env(env, force_reset)
        self._begun &= not force_reset

    def _setup_model(self) -> None:
        self._begun = False  # a collection, which needs the env
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._task_rng = np.random.default_rng(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            layout=self.layout,
            inner_learning_rate=self.inner_learning_rate,
            inner_loss=self.inner_loss,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            baseline_ridge=self.baseline_ridge,
            adapt_every=self.adapt_every,
            adapt_window=self.adapt_window,
            noise_seed=self.seed or 0,
            **self.policy_kwargs,
        )

    @abstractmethod
    def _outer_step(self, meta_batch: MetaBatch) -> dict[str, float]:
        """Change the meta-policy; returns what to log, among it ``policy_loss``."""

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or not self._begun:
            self._collection, self._begun = self._begin_collection(), True
        else:
            self.train()  # a callback may have stopped the last call at the very end of a phase
            self._collection.time = np.zeros_like(self._collection.time)
        if reset_num_timesteps or self._last_obs is None:  # then the base resets the envs
            self._force_tasks()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def learn(self, *args: Any, **kwargs: Any) -> Self:
        """See ``MetaAlgorithm.learn``; afterwards the envs draw their own tasks again."""
        self._check_env()
        assert self.env is not None
        try:
            return super().learn(*args, **kwargs)
        finally:
            self._free_tasks()
            self._last_obs = None

    def _free_tasks(self) -> None:
        assert self.env is not None
        for i in range(self.n_envs):
            reset_one(self.env, i, {"task": None, "schedule": None})

    def _draw_tasks(self) -> list[Task]:
        """A task for each env."""
        assert self.env is not None
        tasks = self.env.get_attr("tasks", indices=0)[0]
        return [tasks.sample(self._task_rng) for _ in range(self.n_envs)]

    def _force_tasks(self) -> None:
        """Put the envs in their tasks, from the next reset of all of them."""
        assert self.env is not None
        self.env.set_options(
            [{"task": task, "schedule": "episodic"} for task in self._collection.tasks]
        )

    def _begin_collection(self) -> Collection:
        n = self.n_envs
        return Collection(
            tasks=self._draw_tasks(),
            parameters=self.policy.network.flat().detach(),
            time=np.zeros(n, np.int64),
            ended=np.zeros(n, np.bool_),
            action=np.zeros((n, self.policy.action_dim)),
        )

    def _act(self, obs: Array, starts: Array) -> Array:
        drawn_from = self._acting(self._collection, obs[:, self.policy.obs_columns])
        action = drawn_from.sample(torch.randn_like(drawn_from.mean))
        self._collection.action = action.numpy()
        return self.policy.unscale_action(self.policy.bounded(action).numpy())

    def _acting(self, collection: Collection, obs: Array) -> Gaussian:
        """What the acting policies draw from, each at its own env's observations (n, ...)."""
        parameters = collection.parameters.expand(len(obs), -1)
        with torch.no_grad():
            return self.policy.network.at_each(
                parameters, torch.as_tensor(obs, dtype=torch.float32)
            )

    def _store(self, step: VecStep) -> None:
        collection = self._collection
        collection.time = np.where(step.starts, 0, collection.time)
        collection.recorder.add(
            step.obs[:, self.policy.obs_columns], collection.action, step.reward, collection.time
        )
        collection.time = collection.time + 1

    def train(self) -> None:
        """At the end of a phase: adapt to it, or finish its tasks; then change the meta-policy."""
        collection = self._collection
        assert self._last_episode_starts is not None
        # Where the envs were reset all episodes start, but none has ended.
        collection.ended |= self._last_episode_starts & (collection.time > 0)
        if len(collection.recorder) < self.n_steps:
            return
        trajectories = collection.recorder.take()
        batch = self.policy.batch(trajectories, self._acting(collection, trajectories.obs))
        theta = self.policy.network.flat().detach()
        adapting = len(collection.before) == len(collection.after)
        phase, batches = ("before", collection.before) if adapting else ("after", collection.after)
        batches.append(batch)
        collection.rewards[phase].append(float(trajectories.reward.mean()))
        if adapting:
            collection.parameters = self.policy.inner_step.adapt(theta, batch).detach()
            return
        collection.parameters = theta
        if len(batches) * self.n_envs == self.n_tasks:
            self._finish_meta_batch()
        if collection.ended.all():
            self._next_tasks()

    def _finish_meta_batch(self) -> None:
        collection = self._collection
        logs = self._outer_step(
            MetaBatch(Batch.cat(collection.before), Batch.cat(collection.after))
        )
        collection.parameters = self.policy.network.flat().detach()
        collection.before, collection.after = [], []
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in logs.items():
            self.logger.record(f"train/{key}", value)
        self.logger.record("train/std", self.policy.network.log_std.exp().mean().item())
        for phase, rewards in collection.rewards.items():
            self.logger.record(f"rollout/reward_{phase}", float(np.mean(rewards)))
            rewards.clear()

    def _next_tasks(self) -> None:
        assert self.env is not None
        collection = self._collection
        collection.tasks = self._draw_tasks()
        self._force_tasks()
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, np.bool_)
        collection.ended = np.zeros_like(collection.ended)
        collection.time = np.zeros_like(collection.time)

    def _adapted(self, theta: Tensor, meta_batch: MetaBatch) -> Gaussian:
        """Distributions of the actions after the inner step, differentiable in ``theta``."""
        phi = self.policy.inner_step.adapt(theta, meta_batch.before)
        return self.policy.network.at_each(phi, meta_batch.after.obs)

    def _training_state(self) -> dict[str, Any]:
        return self._collection.state_dict()

    def _restore(self, state: dict[str, Any]) -> None:
        assert self.env is not None
        self._collection, self._begun = self._begin_collection(), True
        parse = self.env.get_attr("tasks", indices=0)[0].parse
        self._collection.load_state_dict(state, parse)

    def _kept_tasks(self) -> list[list[float] | None]:
        return [None] * self.n_envs  # the collection knows

    def _begin_anew(self, seed: int, kept_tasks: list[list[float] | None]) -> None:
        self._force_tasks()
        super()._begin_anew(seed, kept_tasks)
        self._task_rng = np.random.default_rng(seed)

    def diagnostics(self, episodes: Sequence[Any]) -> dict[str, float]:
        """What an inner step is worth in held-out tasks.

        Args:
            episodes: Of the test split, with the attribute ``index`` of
                ``leaderboard.evaluation.Episode``. Their tasks are played again: an episode by
                the meta-policy, then as many as ``adapt_window`` holds, each after an inner step
                on those before it, and none within an episode.

        Returns:
            ``adaptation/return_before`` and ``adaptation/return_after``, the mean returns of a
            task's first and last episode; nothing where the env is not registered, so that its test
            split cannot be made.
        """
        spec = None if self.env is None else self.env.get_attr("spec", indices=0)[0]
        if spec is None:
            return {}
        before, after = returns_around_inner_step(
            self.policy, spec.id, dict(spec.kwargs), [episode.index for episode in episodes]
        )
        return {"adaptation/return_before": before, "adaptation/return_after": after}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_collection", "_begun", "_last_obs"]
