"""A pendulum whose actuator and body are not the same in every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, SupportsFloat

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from numpy.typing import NDArray

from m3po_bench.tasks import Task, UniformTasks
from m3po_envs.base import Array, MetaEnvBase, NeverTerminates

MAX_TORQUE = 4.0
"""Torque of action 1 at gain 1, N m; Gymnasium's Pendulum has 2."""
NAMES = ("gain", "mass", "length")


class PendulumRandomParamsEnv(NeverTerminates, MetaEnvBase, PendulumEnv):
    """Gymnasium's Pendulum-v1 with a hidden actuator gain and sign, mass and length.

    ## Action
    | num | action                                 | min | max |
    |-----|----------------------------------------|-----|-----|
    | 0   | torque / (4 N m), before the gain      | -1  | 1   |

    ## Observation
    As Pendulum-v1: cosine and sine of the angle (0 is upright), angular velocity in [-8, 8].

    ## Reward
    Pendulum-v1's own: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2), with angle and velocity
    before the step and the torque that was applied, 4 * gain * action. ``reward()`` is exact (to
    float32 rounding of the observation).

    ## Hidden
    | parameter | train and test                 | ood                    | unit |
    |-----------|--------------------------------|------------------------|------|
    | gain      | +-[1, 1.5], either sign        | +-[0.75, 1]            |      |
    | mass      | [0.8, 1.2]                     | [1.2, 1.4]             | kg   |
    | length    | [0.8, 1.2]                     | [1.2, 1.3]             | m    |

    A wrong belief about the sign pushes the wrong way, so an agent without memory can hardly do
    better than one that never acts. The actuator is stronger than Pendulum-v1's, so that a small
    agent learns the swing-up in about 3,000 steps.

    ## Start and end
    As Pendulum-v1: angle uniform, velocity uniform in [-1, 1]. Never terminates; 200 steps.

    ## Does it reward adaptation?
    Yes.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told           | memoryless        |
    |-----------|----------------|-------------------|
    | 10,000    | -100, -93, -93 | -665, -752, -1050 |

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``visibility="hidden"``, see ``MetaEnvBase``;
    ``render_mode`` as Pendulum-v1.

    ## Version history
    * v0: first version, on Pendulum-v1
    """

    env_id = "M3PO/PendulumRandomParams-v0"
    distributions: ClassVar[Mapping[str, UniformTasks]] = {
        "train": UniformTasks(NAMES, ((1.0, 1.5), (0.8, 1.2), (0.8, 1.2)), signs=("gain",)),
        "ood": UniformTasks(NAMES, ((0.75, 1.0), (1.2, 1.4), (1.2, 1.3)), signs=("gain",)),
    }

    def __init__(
        self,
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
        render_mode: str | None = None,
    ) -> None:
        PendulumEnv.__init__(self, render_mode=render_mode)
        self.action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)
        MetaEnvBase.__init__(self, schedule, split, visibility)

    def _apply(self, task: Task) -> None:
        self._gain, self.m, self.l = task.params
        # The body cuts the torque; so this cuts the action at 1, before the gain.
        self.max_torque = MAX_TORQUE * abs(self._gain)

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; see ``gymnasium.Env.step``."""
        return super().step(self._gain * action)

    def reward(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        next_obs: NDArray[Any],
        task: NDArray[Any],
    ) -> Array:
        """Exact rewards, shape (n,); see ``m3po_bench.tasks.MetaEnv``."""
        gain = np.asarray(task, dtype=np.float64)[..., 0]
        torque = MAX_TORQUE * gain * np.clip(np.asarray(action, np.float64)[:, 0], -1.0, 1.0)
        angle = np.arctan2(np.asarray(obs[:, 1], np.float64), obs[:, 0])
        rewards: Array = -(angle**2 + 0.1 * obs[:, 2] ** 2 + 0.001 * torque**2)
        return rewards
