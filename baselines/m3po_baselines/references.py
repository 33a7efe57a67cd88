"""References: what no memory, one remembered reward, full knowledge and no learning are worth.

All but ``Random`` are SB3's own SAC (Haarnoja et al. 2018, arXiv 1812.05905) with SB3's defaults;
they differ in the columns of the observation that they see.
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv

from m3po_bench.common.meta_algorithm import MetaAlgorithm, VecStep
from m3po_bench.common.vec_wrappers import VecPreviousActionReward
from m3po_bench.wrappers import TASK, ObservationLayout, check_shows_task, layout_of, show_task

Array = NDArray[Any]


class ObservationColumns(BaseFeaturesExtractor):
    """Passes on some columns of a flat observation.

    Args:
        observation_space: The whole observation.
        columns: Indices of the columns to pass on.
    """

    columns: torch.Tensor

    def __init__(self, observation_space: spaces.Box, columns: list[int]) -> None:
        super().__init__(observation_space, features_dim=len(columns))
        self.register_buffer("columns", torch.as_tensor(columns, dtype=torch.int64))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(batch, width) to (batch, len(columns))."""
        return observations.index_select(-1, self.columns)


class ObservationAndTask(ObservationColumns):
    """An observation, and its task in a form that a network can use.

    One of a list of more than two tasks is shown as its place in the list (one-hot; the nearest's,
    should it not be in it), an angle as cosine and sine, any other parameter by its place in its
    range, from -1 to 1.

    Args:
        observation_space: The whole observation.
        columns: Indices of the observation's own columns.
        task_columns: Indices of the task's columns.
        values: The list of tasks; empty where they are drawn from ranges.
        angles: Which of the task's columns are angles in radians.
        low: Smallest value of each of the task's columns.
        high: Largest value of each.
    """

    task_columns: torch.Tensor
    values: torch.Tensor
    middle: torch.Tensor
    half_range: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Box,
        columns: list[int],
        task_columns: list[int],
        values: list[list[float]],
        angles: list[int],
        low: list[float],
        high: list[float],
    ) -> None:
        super().__init__(observation_space, columns)
        self._listed = len(values) > 2
        self._angles = angles
        self._scaled = [i for i in range(len(task_columns)) if i not in angles]
        width = len(values) if self._listed else len(self._scaled) + 2 * len(angles)
        self._features_dim = len(columns) + width
        ends = torch.tensor([low, high])
        spans = ends[1] - ends[0]
        for name, tensor in (
            ("task_columns", torch.as_tensor(task_columns, dtype=torch.int64)),
            ("values", torch.tensor(values)),
            ("middle", ends.mean(0)),
            ("half_range", torch.where(spans > 0.0, spans / 2.0, 1.0)),
        ):
            self.register_buffer(name, tensor)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(batch, width) to (batch, features_dim)."""
        task = observations.index_select(-1, self.task_columns)
        return torch.cat([super().forward(observations), self._shown(task)], -1)

    def _shown(self, task: torch.Tensor) -> torch.Tensor:
        if self._listed:
            place = (task[:, None] - self.values).square().sum(-1).argmin(-1)
            return torch.nn.functional.one_hot(place, len(self.values)).to(task.dtype)
        angle = task[:, self._angles]
        scaled = ((task - self.middle) / self.half_range)[:, self._scaled]
        return torch.cat([scaled, angle.cos(), angle.sin()], -1)


class MemorylessSAC(SAC):
    """SAC that sees neither previous action, previous reward nor first-step flag.

    One previous reward together with the velocity gives a direction away, so an agent that keeps
    those columns is not without memory. Accepts every argument of SB3's SAC.
    """

    def _setup_model(self) -> None:
        if self.env is not None:
            extractor, arguments = self._extractor(layout_of(self.env))
            # A loaded agent keeps the one that it has learnt with.
            if self.policy_kwargs.get("features_extractor_class") is not extractor:
                self.policy_kwargs = {
                    **self.policy_kwargs,
                    "features_extractor_class": extractor,
                    "features_extractor_kwargs": arguments,
                }
        super()._setup_model()

    def _extractor(
        self, layout: ObservationLayout
    ) -> tuple[type[BaseFeaturesExtractor], dict[str, Any]]:
        return ObservationColumns, {"columns": layout.memoryless_columns.tolist()}


class OracleSAC(MemorylessSAC):
    """Memoryless SAC that sees the task: the upper reference, with a privilege no other agent has.

    A scalar such as the number of a leg, an angle, or dozens of exponents of up to 3 would be
    hard to learn from as they are: ``ObservationAndTask`` recasts them.

    The task is in the observation of an env made with ``visibility="oracle"``; to a single
    Gymnasium env that was made without, ``ObserveTask`` is added.

    Raises:
        ValueError: If the observation does not show the task, and cannot be made to.
    """

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return MemorylessSAC._wrap_env(show_task(env), verbose, monitor_wrapper)

    def _extractor(
        self, layout: ObservationLayout
    ) -> tuple[type[BaseFeaturesExtractor], dict[str, Any]]:
        assert self.env is not None
        check_shows_task(self.env)
        tasks = self.env.get_attr("tasks")[0]
        task_columns = layout.columns(TASK).tolist()
        columns = layout.memoryless_columns.tolist()
        return ObservationAndTask, {
            "columns": [column for column in columns if column not in task_columns],
            "task_columns": task_columns,
            "values": [list(value) for value in getattr(tasks, "values", ())],
            "angles": [tasks.names.index(name) for name in getattr(tasks, "angles", ())],
            "low": tasks.low.tolist(),
            "high": tasks.high.tolist(),
        }


class PreviousRewardSAC(SAC):
    """SAC that sees previous action, previous reward and first-step flag: memory of one step.

    Accepts every argument of SB3's SAC.
    """

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        venv = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        return venv if layout_of(venv).has_history else VecPreviousActionReward(venv)


class RandomPolicy(BasePolicy):
    """Uniformly random actions.

    The draw is a function of seed, step and observation, not of a generator's position: it stays
    the same however many env copies are stepped together, and after saving and loading.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        draw_seed: int = 0,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.draw_seed = draw_seed

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "draw_seed": self.draw_seed,
        }

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        """See ``predict``."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return torch.as_tensor(self.predict(observation.numpy())[0])

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Random actions, also where ``deterministic`` is asked for; state: steps, shape (n,)."""
        obs = np.asarray(observation)
        rows = np.atleast_2d(obs)
        steps = np.zeros(len(rows), np.int64) if state is None else state[0] + 1
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        space = self.action_space
        assert isinstance(space, spaces.Box)
        action = np.empty((len(rows), *space.shape), dtype=np.float32)
        for i, (row, step) in enumerate(zip(rows, steps, strict=True)):
            rng = np.random.default_rng((self.draw_seed, int(step), zlib.crc32(row.tobytes())))
            action[i] = rng.uniform(space.low, space.high)
        return (action[0] if obs.ndim == 1 else action), (steps,)


class RandomAgent(MetaAlgorithm):
    """Acts at random and learns nothing: the lower reference.

    Args:
        policy: ``"MlpPolicy"``.
        env: See ``MetaAlgorithm``.
        seed: Seeds env and actions.
        **kwargs: See ``MetaAlgorithm``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": RandomPolicy}

    def __init__(
        self,
        policy: str | type[Any],
        env: GymEnv | str | None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate=0.0, seed=seed, **kwargs)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, draw_seed=self.seed or 0
        )

    def _store(self, step: VecStep) -> None:
        pass

    def train(self) -> None:
        """Nothing to learn."""

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []
