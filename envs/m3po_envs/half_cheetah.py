"""Half-cheetahs in which something hidden varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces, utils
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from numpy.typing import NDArray

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import FiniteTasks, Task
from m3po_envs.base import Array, MetaEnvBase

CONTROL_COST = 0.05
OBSERVATIONS = ("standard", "planner")
X_VELOCITY = 8
"""Column of the end-of-step x velocity."""
MEAN_X_VELOCITY = 17
"""Column that ``observation="planner"`` adds."""


class HalfCheetahFwdBwdEnv(MetaEnvBase, HalfCheetahEnv):  # type: ignore[misc]
    """Gymnasium's HalfCheetah-v5, told by the reward alone to run forwards or backwards.

    ## Action
    Six joint torques in [-1, 1], as in HalfCheetah-v5.

    ## Observation
    | num   | observation                                     | unit           |
    |-------|-------------------------------------------------|----------------|
    | 0-7   | height, pitch and six joint angles              | m, rad         |
    | 8     | x velocity at the end of the step               | m/s            |
    | 9-16  | their other velocities                          | m/s, rad/s     |
    | 17    | mean x velocity of the step, 0 at the start     | m/s            |

    Column 17 is there with ``observation="planner"`` only; it is what the reward pays for.

    ## Reward
    direction * (mean x velocity of the step) - 0.05 |action|^2; its terms are ``reward_forward``
    and ``reward_ctrl`` in ``info``. ``reward()`` is exact with ``observation="planner"``; else
    see there.

    ## Hidden
    direction, +1 or -1. The dynamics do not depend on it: nothing but past rewards tells it.

    ## Start and end
    As HalfCheetah-v5. Never terminates; 200 steps.

    ## Does it reward adaptation?
    Measured as the test return of SAC that sees the direction (``visibility="oracle"``) against
    memoryless SAC's under the default schedule at equal budgets; the frozen reference scores
    hold both, with their budgets. An agent without memory cannot know the direction.

    ## Arguments
    ``schedule="hazard"``, ``split="train"`` (or ``test``; there is no ``ood``: both directions
    are in training), ``visibility="hidden"``, see ``MetaEnvBase``; ``observation="standard"`` or
    ``"planner"``; ``render_mode`` as HalfCheetah-v5.

    ## Version history
    * v0: first version, on HalfCheetah-v5
    """

    env_id = "M3PO/HalfCheetahFwdBwd-v0"
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("direction",), ((-1.0,), (1.0,)))
    }

    def __init__(
        self,
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
        observation: str = "standard",
        render_mode: str | None = None,
    ) -> None:
        if observation not in OBSERVATIONS:
            raise unknown_name("observation", observation, OBSERVATIONS)
        self._planner = observation == "planner"
        self._mean_x_velocity = 0.0
        HalfCheetahEnv.__init__(self, ctrl_cost_weight=CONTROL_COST, render_mode=render_mode)
        # The body recorded its own arguments, with which a copy of this class cannot be made.
        utils.EzPickle.__init__(self, schedule, split, visibility, observation, render_mode)
        if self._planner:
            self.observation_space = spaces.Box(-np.inf, np.inf, (MEAN_X_VELOCITY + 1,), np.float64)
            self.observation_structure["mean_x_velocity"] = 1
        MetaEnvBase.__init__(self, schedule, split, visibility)

    def _apply(self, task: Task) -> None:
        self._forward_reward_weight = task.params[0]

    def do_simulation(self, ctrl: NDArray[Any], n_frames: int) -> None:
        """Simulate one step and keep its mean x velocity, computed as the body's reward does."""
        if not self._planner:
            super().do_simulation(ctrl, n_frames)
            return
        before = self.data.qpos[0]
        super().do_simulation(ctrl, n_frames)
        self._mean_x_velocity = (self.data.qpos[0] - before) / self.dt

    def reset_model(self) -> NDArray[np.float64]:
        """As the body's; no step has been made yet, so its mean velocity is 0."""
        self._mean_x_velocity = 0.0
        obs: NDArray[np.float64] = super().reset_model()  # type: ignore[no-untyped-call]
        return obs

    def _get_obs(self) -> NDArray[np.float64]:
        obs: NDArray[np.float64] = super()._get_obs()  # type: ignore[no-untyped-call]
        return np.append(obs, self._mean_x_velocity) if self._planner else obs

    def reward(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        next_obs: NDArray[Any],
        task: NDArray[Any],
    ) -> Array:
        """Rewards of transitions, shape (n,); see ``m3po_bench.tasks.MetaEnv``.

        Exact with ``observation="planner"``. Without, the mean x velocity, which the
        observation does not hold, is taken as the mean of those at the step's two ends: with
        uniform random actions the error has mean 0 and root mean square 0.18, beside a deviation
        of 0.69 of the velocity itself.
        """
        if self._planner:
            velocity = next_obs[:, MEAN_X_VELOCITY]
        else:
            velocity = (obs[:, X_VELOCITY] + next_obs[:, X_VELOCITY]) / 2
        direction = np.asarray(task, dtype=np.float64)[..., 0]
        cost = CONTROL_COST * np.sum(np.square(action), axis=1)
        rewards: Array = direction * velocity - cost
        return rewards
