"""A point with three thrusters, one of which pushes the wrong way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from m3po_bench.tasks import FiniteTasks, Task
from m3po_envs.base import Array
from m3po_envs.points import BLUE, GREY, ORANGE, Disc, PointBase

N_THRUSTERS = 3
ANGLES = tuple(2.0 * math.pi * i / N_THRUSTERS for i in range(N_THRUSTERS))
DIRECTIONS = np.array([[math.cos(angle), math.sin(angle)] for angle in ANGLES])
KEPT, GAIN, NOISE = 0.8, 0.2, 0.02
"""Share of the velocity kept per step, velocity per force, noise per step (its deviation)."""
DURATION = 0.2
"""Of a step: distance per velocity."""
MAX_DISTANCE = 3.0
"""Of each coordinate from the origin, where a wall stops the point."""
CONTROL_COST = 0.02


class ThrustedPoint(gym.Env[NDArray[Any], NDArray[Any]]):
    """The body of ``PointActuatorFaultEnv``, which describes it."""

    def __init__(self) -> None:
        bound = np.array([MAX_DISTANCE, MAX_DISTANCE, 2.0, 2.0], dtype=np.float32)
        self.observation_space = spaces.Box(-bound, bound, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (N_THRUSTERS,), np.float32)
        self.signs = np.ones(N_THRUSTERS)
        self.position, self.velocity = np.zeros(2), np.zeros(2)

    def _get_obs(self) -> NDArray[np.float32]:
        return np.concatenate([self.position, self.velocity]).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start at rest, one to one and a half from the origin."""
        super().reset(seed=seed)
        angle, distance = self.np_random.uniform((0.0, 1.0), (2.0 * math.pi, 1.5))
        self.position = distance * np.array([math.cos(angle), math.sin(angle)])
        self.velocity = np.zeros(2)
        return self._get_obs(), {}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Fire the thrusters."""
        force = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        push = GAIN * (self.signs * force) @ DIRECTIONS
        noise = NOISE * self.np_random.standard_normal(2)
        self.velocity = np.clip(KEPT * self.velocity + push + noise, -2.0, 2.0)
        moved = self.position + DURATION * self.velocity
        self.position = np.clip(moved, -MAX_DISTANCE, MAX_DISTANCE)
        self.velocity[moved != self.position] = 0.0
        away = -float(np.hypot(*self.position))
        control = -CONTROL_COST * float(force @ force)
        info = {"reward_distance": away, "reward_ctrl": control}
        return self._get_obs(), away + control, False, False, info


class PointActuatorFaultEnv(PointBase, ThrustedPoint):
    """Bring a point to the origin with three thrusters, one of which is reversed.

    ## Action
    | num | action                            | min | max |
    |-----|-----------------------------------|-----|-----|
    | 0-2 | thrust at 0, 120 and 240 degrees  | -1  | 1   |

    ## Observation
    | num | observation                       | min | max |
    |-----|-----------------------------------|-----|-----|
    | 0-1 | position, from the origin         | -3  | 3   |
    | 2-3 | velocity                          | -2  | 2   |

    The next velocity is 0.8 velocity + 0.2 times the sum of the thrusts + Gaussian noise of
    deviation 0.02 in each coordinate; the position then grows by 0.2 times it. Walls stop it.

    ## Reward
    -(distance from the origin after the step) - 0.02 |action|^2; its terms are
    ``reward_distance`` and ``reward_ctrl`` in ``info``. ``reward()`` is exact (to float32
    rounding of the observation).

    ## Hidden
    thruster, 0, 1 or 2: the one that pushes the wrong way. An agent that treats the three alike is
    driven away from the origin along the reversed one's axis.

    ## Start and end
    At rest, 1 to 1.5 from the origin in any direction. Never terminates; 100 steps.

    ## Does it reward adaptation?
    Yes.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told            | memoryless      |
    |-----------|-----------------|-----------------|
    | 10,000    | -11, -9.3, -7.8 | -168, -137, -89 |
    | 20,000    | -7.8            | -112, -48       |

    ## Arguments
    ``schedule="hazard"``, ``split="train"`` (or ``test``; there is no ``ood``: all three
    thrusters are in training), ``visibility="hidden"``; see ``MetaEnvBase``.
    ``render_mode="rgb_array"`` draws the plane from above; the reversed thruster is orange.

    ## Version history
    * v0: first version
    """

    env_id = "M3PO/PointActuatorFault-v0"
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("thruster",), tuple((float(i),) for i in range(N_THRUSTERS)))
    }

    reach = MAX_DISTANCE

    def _apply(self, task: Task) -> None:
        self.signs = np.ones(N_THRUSTERS)
        self.signs[int(task.params[0])] = -1.0

    def _scene(self) -> list[Disc]:
        """The goal, the point, and around it what thrusters push towards; the reversed one's."""
        x, y = self.position
        ends = [
            Disc(x + 0.3 * dx, y + 0.3 * dy, 0.09, GREY if sign > 0 else ORANGE)
            for (dx, dy), sign in zip(DIRECTIONS, self.signs, strict=True)
        ]
        return [Disc(0.0, 0.0, 0.12, (0, 0, 0)), *ends, Disc(x, y, 0.2, BLUE)]

    def reward(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        next_obs: NDArray[Any],
        task: NDArray[Any],
    ) -> Array:
        """Exact rewards, shape (n,); see ``m3po_bench.tasks.MetaEnv``."""
        force = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        away = np.hypot(*np.asarray(next_obs[:, :2], dtype=np.float64).T)
        rewards: Array = -away - CONTROL_COST * np.sum(force**2, axis=1)
        return rewards
