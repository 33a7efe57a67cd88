"""A humanoid that must find out which way to walk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from numpy.typing import NDArray

from m3po_bench.wrappers import check_flat
from m3po_envs.base import Array, Step
from m3po_envs.locomotion import Direction

_LONG = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
_ARRAYS_IN_INFO = ("tendon_length", "tendon_velocity")


class HumanoidDirectionEnv(Direction, HumanoidEnv):  # type: ignore[misc]
    """Gymnasium's Humanoid-v5, told by the reward alone which way on the plane to walk.

    ## Action
    17 joint torques in [-1, 1], which is Humanoid-v5's range of +-0.4.

    ## Observation
    | num    | observation                                           | unit     |
    |--------|-------------------------------------------------------|----------|
    | 0-21   | height, orientation (quaternion), 17 joint angles     | m, rad   |
    | 22-24  | velocity of the torso at the end of the step: x, y, z | m/s      |
    | 25-44  | its angular velocity, the joints' velocities          | rad/s    |
    | 45-347 | the rest of Humanoid-v5's, ``observation="long"`` only |         |

    ``observation="planner"`` appends the mean x and y velocity of the centre of mass in the step
    and the contact cost to the first 45, all 0 at the start.

    ## Reward
    1.25 * (mean velocity of the centre of mass along the direction) + 5 while healthy
    - 0.1 |torques|^2 - contact cost: Humanoid-v5's own, along another direction. Its terms are
    ``reward_forward``, ``reward_survive``, ``reward_ctrl`` and ``reward_contact`` in ``info``,
    and ``directional_velocity``, because the 5 hide how fast it walks. ``reward()`` is exact
    with ``observation="planner"``; without, with 1,000 uniform random actions (seed 0), its error
    has mean 0.23 and root mean square 0.61, beside a deviation of 1.1 of the reward itself.

    ## Hidden
    | parameter | train and test | ood            | unit |
    |-----------|----------------|----------------|------|
    | direction | [0, 3 pi / 2]  | [3 pi/2, 2 pi] | rad  |

    The angle to the x axis. The dynamics do not depend on it: only past rewards reveal it.

    ## Start and end
    As Humanoid-v5. Terminates when the torso's height leaves (1, 2) m; 1000 steps of 0.015 s, as
    Humanoid-v5, and not the 200 of the other bodies: 3 s are over before it walks. ``"hazard"``
    has a rate of 0.002 by default (two changes an episode) and ``"periodic"`` a period of 250.

    ## Does it reward adaptation?
    Not at this budget: episodes end with a fall long before the direction matters. With 200 steps
    an episode adaptation would hardly pay at all: SAC without any context reaches about 1,000
    there, which is what standing earns (single runs, read off the curves of
    github.com/ZiyiLiubird/CRL).

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick`` at 20,000 steps, ``default`` at
    100,000):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 211  | 225        |
    | 100,000   | 381  |            |

    SAC that is told the direction does not walk after 100,000 steps, nor does M3PO after 20,000
    (``results/README.md``).

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``"test"`` or ``"ood"`` (the quarter of the circle
    that training leaves out), ``visibility="hidden"``, see ``MetaEnvBase``;
    ``observation="standard"`` (45 columns, as MBPO's), ``"long"`` (348, as Humanoid-v5) or
    ``"planner"``; ``render_mode`` as Humanoid-v5.

    ## Version history
    * v0: first version, on Humanoid-v5
    """

    env_id = "M3PO/HumanoidDirection-v0"
    observations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "standard": {f"include_{name}_in_observation": False for name in _LONG},
        "long": {f"include_{name}_in_observation": True for name in _LONG},
    }
    velocity_columns = (22, 23)
    schedule_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hazard": {"rate": 0.002},
        "periodic": {"period": 250},
    }

    def _begin_simulation(self) -> None:
        self._strength = float(check_flat(self.action_space).high[0])

    def _control_costs(self, action: Array) -> Array:
        return super()._control_costs(self._strength * action)

    def _healthy(self, obs: NDArray[Any]) -> NDArray[np.bool_]:
        low, high = self._healthy_z_range
        healthy: NDArray[np.bool_] = (low < obs[:, 0]) & (obs[:, 0] < high)
        return healthy

    def _step_body(self, action: NDArray[Any]) -> Step:
        obs, reward, terminated, truncated, info = super()._step_body(action)
        return obs, reward, terminated, truncated, _flat(info)

    def _reset_body(self) -> tuple[NDArray[Any], dict[str, Any]]:
        obs, info = super()._reset_body()
        return obs, _flat(info)


def _flat(info: dict[str, Any]) -> dict[str, Any]:
    """Without the body's arrays: ``info`` is flat, so that vectorised envs can stack it."""
    return {key: value for key, value in info.items() if key not in _ARRAYS_IN_INFO}
