"""One adaptive model-predictive controller, for every rule of adaptation.

At each step the last transition enters the memory, the memory adapts the model, and a planner
searches the adapted model for the best sequence of actions, of which the first is taken.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from m3po_baselines.learning_to_adapt.adaptive_model import (
    AdaptiveModel,
    Observed,
    adaptation_errors,
    recall,
)
from m3po_baselines.learning_to_adapt.fitting import ModelFitter, running_sequences
from m3po_baselines.learning_to_adapt.given_reward import GivenReward
from m3po_bench.common.arguments import check_counts, check_room
from m3po_bench.common.history_policy import HistoryPolicy, Memory, Seen, keep_where
from m3po_bench.common.meta_algorithm import VecStep
from m3po_bench.common.planners import CrossEntropy, Planner, RandomShooting
from m3po_bench.common.replay_algorithm import ReplayAlgorithm
from m3po_bench.common.sequence_replay import SequenceReplay
from m3po_bench.registry import unknown_name
from m3po_bench.wrappers import HISTORY_BLOCKS, TASK, ObservationLayout

Array = NDArray[Any]

PLANNERS: dict[str, type[Any]] = {"random_shooting": RandomShooting, "cem": CrossEntropy}
REWARD_SOURCES = ("learnt", "env")


class MPCPolicy(HistoryPolicy):
    """Plans with the model as the memory adapts it.

    ``predict``'s ``state`` is (what the model remembers ..., previous observations, steps so far,
    action held, steps to hold it), arrays with one row per env.

    Args:
        observation_space: With the history columns.
        action_space: A flat Box; plans are made in [-1, 1].
        lr_schedule: Not used here, SB3 passes it.
        layout: Which columns of the observation are which.
        model: The adaptive model.
        planner: Searches for plans.
        obs_columns: The columns that the model predicts.
        draw_seed: Plans of deterministic predictions are a function of it and of the step.
        exploration: See ``AdaptiveMPC``.
        given_reward: The env's reward function, if it need not be predicted.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        layout: ObservationLayout,
        model: AdaptiveModel,
        planner: Planner,
        obs_columns: NDArray[np.int64],
        draw_seed: int,
        exploration: float = 0.0,
        given_reward: GivenReward | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, layout, obs_columns)
        self.model, self.planner, self.draw_seed = model, planner, draw_seed
        self.exploration, self.given_reward = exploration, given_reward

    def empty(self, n: int) -> Memory:
        """See ``HistoryPolicy.empty``."""
        zeros = torch.zeros(n, dtype=torch.int64)
        obs, action = torch.zeros(n, self.obs_dim), torch.zeros(n, self.action_dim)
        return *self.model.empty(n), obs, zeros, action, zeros

    def respond(self, seen: Seen, memory: Memory, deterministic: bool) -> tuple[Tensor, Memory]:
        """First actions of the best plans; see ``HistoryPolicy.respond``.

        Deterministic plans come from draws that are a function of seed and step; others from
        torch's global generator.
        """
        *before, previous, steps, held, hold = memory
        n = len(steps)
        last = Observed(
            previous, seen.action, seen.reward, seen.obs, torch.zeros(n), weight=torch.ones(n)
        )
        # Where an inner episode of a trial begins, no transition led here: memory stays as it is.
        known = keep_where(seen.first, tuple(before), self.model.remember(tuple(before), last))
        plan = self._plan(
            known, seen,
            [(self.draw_seed << 24) + step if deterministic else None for step in steps.tolist()],
        )  # fmt: skip
        if not deterministic and self.exploration > 0.0:
            begins = (hold == 0) & (torch.rand(n) < self.exploration)
            held = torch.where(begins[:, None], 2.0 * torch.rand_like(plan) - 1.0, held)
            hold = torch.where(begins, self.planner.horizon, hold)
            plan = torch.where((hold > 0)[:, None], held, plan)
        return plan, (*known, seen.obs, steps + 1, held, (hold - 1).clamp(min=0))

    def _plan(self, memory: Memory, seen: Seen, seeds: Sequence[int | None]) -> Tensor:
        if not self.model.fitted:  # imagined returns mean nothing yet
            return RandomShooting(1, 1).draws(self.action_dim, seeds)[:, 0, 0]
        heads = self.model.adapted(memory)
        given = None if self.given_reward is None else self.given_reward.of(seen.shown.numpy())
        return self.planner.plan(
            lambda plans: self.model.returns(heads, seen.obs, plans, given),
            self.planner.draws(self.action_dim, seeds),
        )


class AdaptiveMPC(ReplayAlgorithm):
    """Collects with its own plans and refits its model to all data; a rule adapts the model.

    Args:
        policy: ``"MlpPolicy"`` or a subclass of ``MPCPolicy``.
        env: See ``MetaAlgorithm``.
        learning_rate: Of the model.
        buffer_size: Env steps kept.
        learning_starts: Env steps with random actions before the first fit.
        fit_every: Env steps between two fits.
        batch_size: Pieces of sequences per gradient step.
        max_epochs: Most passes over the data in a fit.
        persistence: Of the rolling validation loss that ends a fit early; see ``ModelFitter``.
        planner: ``"random_shooting"`` or ``"cem"``.
        planner_kwargs: Its arguments; see ``common.planners``.
        exploration: Probability, in each collected step, that one random action is now held for
            the length of a plan. What is near where the plans lead is all that is seen otherwise.
        reward_source: ``"learnt"``: the model predicts the reward and adapts the prediction;
            ``"env"``: the planner is given the env's reward function (``GivenReward``).
        policy_kwargs: Passed to the model; see ``AdaptiveModel`` and its subclasses.
        **kwargs: See ``MetaAlgorithm``.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MPCPolicy}
    policy: MPCPolicy
    exact_resume = True

    def __init__(
        self,
        policy: str | type[MPCPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 5000,
        fit_every: int = 5000,
        batch_size: int = 10,
        max_epochs: int = 100,
        persistence: float = 0.99,
        planner: str = "random_shooting",
        planner_kwargs: Mapping[str, Any] | None = None,
        exploration: float = 0.0,
        reward_source: str = "learnt",
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.buffer_size, self.fit_every = buffer_size, fit_every
        self.batch_size, self.max_epochs, self.persistence = batch_size, max_epochs, persistence
        self.planner, self.planner_kwargs = planner, dict(planner_kwargs or {})
        self.exploration, self.reward_source = exploration, reward_source
        check_counts(
            buffer_size=buffer_size, fit_every=fit_every, batch_size=batch_size,
            max_epochs=max_epochs,
        )  # fmt: skip
        if not 0.0 <= persistence < 1.0:
            raise ValueError(f"persistence={persistence}: expected a share in [0, 1)")
        if not 0.0 <= exploration <= 1.0:
            raise ValueError(f"exploration={exploration}: expected a probability")
        if planner not in PLANNERS:
            raise unknown_name("planner", planner, PLANNERS)
        if reward_source not in REWARD_SOURCES:
            raise unknown_name("reward_source", reward_source, REWARD_SOURCES)
        super().__init__(policy, env, learning_rate, learning_starts, policy_kwargs, **kwargs)

    @abstractmethod
    def _make_model(self, obs_dim: int, action_dim: int, **kwargs: Any) -> AdaptiveModel:
        """The model, with its rule of adaptation."""

    def _setup_model(self) -> None:
        assert isinstance(self.action_space, spaces.Box)
        check_room(self.buffer_size, self.learning_starts, self.n_envs)
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        given: GivenReward | None = None
        hidden: tuple[str, ...] = HISTORY_BLOCKS
        if self.reward_source == "env":
            # The reward function is told the task; the dynamics are not.
            given, hidden = self._given_reward(), (*HISTORY_BLOCKS, TASK)
        names = [name for name in self.layout.names if name not in hidden]
        columns = self.layout.columns(*names)
        action_dim = int(self.action_space.shape[0])
        model = self._make_model(len(columns), action_dim, **self.policy_kwargs)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            layout=self.layout,
            model=model,
            planner=PLANNERS[self.planner](**self.planner_kwargs),
            obs_columns=columns,
            draw_seed=self.seed or 0,
            exploration=self.exploration,
            given_reward=given,
        )
        self.replay_buffer = SequenceReplay(
            self.n_envs, len(columns), action_dim, 0, self.buffer_size
        )
        self.fitter = ModelFitter(
            model, self.lr_schedule(1.0), self.batch_size, self.max_epochs, self.persistence
        )
        self._next_fit = 0

    def _given_reward(self) -> GivenReward:
        if self.env is not None:
            self.reward_env = GivenReward.locate(self.env)
        return GivenReward(*self.reward_env, self.layout)

    def _store(self, step: VecStep) -> None:
        self.replay_buffer.add(*step.tensors(self.policy.obs_columns))

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        found = super()._setup_learn(*args, **kwargs)
        if self.num_timesteps == 0:  # steps are counted anew
            self._next_fit = 0
        return found

    def train(self) -> None:
        """Refit the model where that is due; after every env step."""
        if self.num_timesteps < self._next_fit:
            return
        if len(self.replay_buffer) < self.learning_starts:  # a loaded agent without its data
            return
        self._update_learning_rate(self.fitter.optimizer)
        n_steps, logs = self.fitter.fit(self.replay_buffer)
        self._n_updates += n_steps
        self._next_fit = self.num_timesteps + self.fit_every
        self._refresh_memory()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in logs.items():
            self.logger.record(f"train/{key}", value)

    def _refresh_memory(self) -> None:
        """Remember the running episodes with the model as it is now, not as it was."""
        assert self._agent_state is not None
        memory = recall(self.policy.model, running_sequences(self.replay_buffer))
        rest = self._agent_state[len(memory) :]
        self._agent_state = (*(x.numpy() for x in memory), *rest)

    def _stored(self) -> dict[str, Any]:
        return dict(self.replay_buffer.state_dict())

    def _take_over(self, stored: dict[str, Any]) -> None:
        self.replay_buffer.load_state_dict(stored)
        self._next_fit = 0

    def _training_state(self) -> dict[str, Any]:
        return {"replay_buffer": self._stored(), "next_fit": self._next_fit}

    def _restore(self, state: dict[str, Any]) -> None:
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self._next_fit = state["next_fit"]

    def diagnostics(self, episodes: Sequence[Any]) -> dict[str, float]:
        """Errors with and without what the model remembers, on held-out episodes.

        Args:
            episodes: With the attributes of ``leaderboard.evaluation.Episode``.

        Returns:
            The entries of ``adaptation_errors``, under ``model/``; queries end with their task.
        """
        longest = max(len(episode.rewards) for episode in episodes)

        def padded(rows: list[Array]) -> Tensor:
            filled = [np.concatenate([r, np.repeat(r[-1:], longest - len(r), 0)]) for r in rows]
            return torch.as_tensor(np.stack(filled, 1), dtype=torch.float32)

        columns = self.policy.obs_columns
        played = Observed(
            obs=padded([e.observations[:-1, columns] for e in episodes]),
            action=padded([self.policy.scale_action(e.actions) for e in episodes]),
            reward=padded([e.rewards for e in episodes]),
            next_obs=padded([e.observations[1:, columns] for e in episodes]),
            terminated=torch.zeros(longest, len(episodes)),
            weight=torch.stack(
                [(torch.arange(longest) < len(e.rewards)).float() for e in episodes], 1
            ),
        )
        age = padded([e.steps_since_change for e in episodes])
        errors = adaptation_errors(self.policy.model, played, age)
        return {f"model/{key}": value for key, value in errors.items()}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "replay_buffer", "fitter"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "fitter.optimizer"], []
