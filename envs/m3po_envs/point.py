"""A point on a ring that must run in a hidden direction: the smallest meta-environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from m3po_bench.tasks import FiniteTasks, Task
from m3po_envs.base import Array
from m3po_envs.points import BLUE, GREY, ORANGE, Disc, PointBase

KEPT, GAIN, NOISE = 0.8, 0.2, 0.02
"""Share of the velocity kept per step, velocity per force, noise per step (its deviation)."""
MAX_SPEED = 1.5
TURN = 0.1
"""Angle per step at unit velocity."""
CONTROL_COST = 0.05


class Point(gym.Env[NDArray[Any], NDArray[Any]]):
    """The body of ``PointFwdBwdEnv``, which describes it."""

    def __init__(self) -> None:
        bound = np.array([MAX_SPEED, 1.0, 1.0], dtype=np.float32)
        self.observation_space = spaces.Box(-bound, bound, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.direction = 1.0
        self.velocity = self.angle = 0.0

    def _get_obs(self) -> NDArray[np.float32]:
        seen = (self.velocity, math.cos(self.angle), math.sin(self.angle))
        return np.array(seen, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start anywhere on the ring, slowly."""
        super().reset(seed=seed)
        self.velocity = float(self.np_random.uniform(-0.5, 0.5))
        self.angle = float(self.np_random.uniform(-math.pi, math.pi))
        return self._get_obs(), {}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Push the point."""
        force = min(1.0, max(-1.0, float(action[0])))
        noise = NOISE * float(self.np_random.standard_normal())
        velocity = KEPT * self.velocity + GAIN * force + noise
        self.velocity = min(MAX_SPEED, max(-MAX_SPEED, velocity))
        self.angle += TURN * self.velocity
        forward, control = self.direction * self.velocity, -CONTROL_COST * force * force
        info = {"reward_forward": forward, "reward_ctrl": control}
        return self._get_obs(), forward + control, False, False, info


class PointFwdBwdEnv(PointBase, Point):
    """Run around a ring in a direction that the observation does not show.

    ## Action
    | num | action | min | max |
    |-----|--------|-----|-----|
    | 0   | force  | -1  | 1   |

    ## Observation
    | num | observation          | min  | max |
    |-----|----------------------|------|-----|
    | 0   | velocity             | -1.5 | 1.5 |
    | 1   | cosine of the angle  | -1   | 1   |
    | 2   | sine of the angle    | -1   | 1   |

    The next velocity is 0.8 velocity + 0.2 force + Gaussian noise of deviation 0.02, cut at
    +-1.5; the angle then grows by 0.1 times it.

    ## Reward
    direction * (next velocity) - 0.05 force^2; its terms are ``reward_forward`` and
    ``reward_ctrl`` in ``info``. ``reward()`` is exact (to float32 rounding of the observation).

    ## Hidden
    direction, +1 or -1: the sign of what is rewarded. The dynamics do not depend on it, so only
    past rewards reveal it, and the best an agent without memory can do is stand still.

    ## Start and end
    Velocity uniform in [-0.5, 0.5], angle uniform. Never terminates; 100 steps.

    ## Does it reward adaptation?
    Yes. Full force in the rewarded direction, which is optimal for every change rate below one
    half, earns 85.0; no agent without memory can earn more than the start's coasting, near 0.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told       | memoryless       |
    |-----------|------------|------------------|
    | 10,000    | 78, 78, 78 | -0.8, -1.4, -0.5 |

    ## Arguments
    ``schedule="hazard"``, ``split="train"`` (or ``test``; there is no ``ood``: both directions
    are in training), ``visibility="hidden"``; see ``MetaEnvBase``. ``render_mode="rgb_array"``
    draws ring and point from above, with a mark on the rewarded side.

    ## Version history
    * v0: first version
    """

    env_id = "M3PO/PointFwdBwd-v0"
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("direction",), ((-1.0,), (1.0,)))
    }

    reach = 1.4

    def _apply(self, task: Task) -> None:
        self.direction = task.params[0]

    def _scene(self) -> list[Disc]:
        """The ring, the point, and before it a mark on the rewarded side."""
        mark = self.angle + 0.3 * self.direction
        return [
            Disc(0.0, 0.0, 1.03, GREY),
            Disc(0.0, 0.0, 0.97, (255, 255, 255)),
            Disc(math.cos(mark), math.sin(mark), 0.05, ORANGE),
            Disc(math.cos(self.angle), math.sin(self.angle), 0.1, BLUE),
        ]

    def reward(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        next_obs: NDArray[Any],
        task: NDArray[Any],
    ) -> Array:
        """Exact rewards, shape (n,); see ``m3po_bench.tasks.MetaEnv``."""
        force = np.clip(np.asarray(action, dtype=np.float64)[:, 0], -1.0, 1.0)
        direction = np.asarray(task, dtype=np.float64)[..., 0]
        rewards: Array = direction * next_obs[:, 0] - CONTROL_COST * force**2
        return rewards

    def optimal_action(self) -> NDArray[np.float32]:
        """The best action for who knows the task: full force, whatever the state."""
        return np.array([self.task.params[0]], dtype=np.float32)


def oracle_return(directions: Sequence[float], velocity: float = 0.0) -> float:
    """Expected return of ``optimal_action``; the noise has mean zero and reaches no limit.

    Args:
        directions: The direction in force at each step of the episode.
        velocity: The velocity at its start.

    Returns:
        The undiscounted return.
    """
    total = 0.0
    for direction in directions:
        velocity = KEPT * velocity + GAIN * direction
        total += direction * velocity - CONTROL_COST
    return total
