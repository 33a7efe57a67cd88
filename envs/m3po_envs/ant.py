"""Ants in which something hidden varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from numpy.typing import NDArray

from m3po_bench.tasks import FiniteTasks, Task
from m3po_envs.locomotion import Direction, ForwardBackward, LocomotionBase
from m3po_envs.physics import ModelFields

OBSERVATIONS: Mapping[str, Mapping[str, Any]] = {
    "standard": {"include_cfrc_ext_in_observation": False},
    "long": {"include_cfrc_ext_in_observation": True},
}
VELOCITY_COLUMNS = (13, 14)
LEGS = (
    ("left_leg_geom", "left_ankle_geom", (2, 3)),
    ("right_leg_geom", "right_ankle_geom", (4, 5)),
    ("back_leg_geom", "third_ankle_geom", (6, 7)),
    ("rightback_leg_geom", "fourth_ankle_geom", (0, 1)),
)
"""Upper and lower geom of each leg, and the two motors that move it."""


class AntBase(LocomotionBase):
    """What the ants share; see ``AntFwdBwdEnv``."""

    observations = OBSERVATIONS
    velocity_columns = VELOCITY_COLUMNS

    def _healthy(self, obs: NDArray[Any]) -> NDArray[np.bool_]:
        low, high = self._healthy_z_range
        upright = (obs[:, 0] >= low) & (obs[:, 0] <= high)
        healthy: NDArray[np.bool_] = upright & np.isfinite(obs).all(axis=1)
        return healthy


class AntFwdBwdEnv(ForwardBackward, AntBase, AntEnv):  # type: ignore[misc]
    """Gymnasium's Ant-v5, told by the reward alone to run forwards or backwards.

    ## Action
    Eight joint torques in [-1, 1], as in Ant-v5.

    ## Observation
    | num    | observation                                        | unit       |
    |--------|----------------------------------------------------|------------|
    | 0-12   | height, orientation (quaternion), eight joint angles | m, rad   |
    | 13-15  | velocity of the torso at the end of the step: x, y, z | m/s     |
    | 16-26  | its angular velocity, the joints' velocities       | rad/s      |
    | 27-104 | contact forces, with ``observation="long"`` only   | N, N m     |

    ``observation="planner"`` appends the mean x velocity of the step and its contact cost to the
    first 27, both 0 at the start.

    ## Reward
    direction * (mean x velocity of the step) + 1 while healthy - 0.5 |action|^2
    - 0.0005 |contact forces|^2, the latter clipped to [-1, 1] each: Ant-v5's own, with a sign. Its
    terms are ``reward_forward``, ``reward_survive``, ``reward_ctrl`` and ``reward_contact`` in
    ``info``. ``reward()`` is exact with ``observation="planner"``; without, with 1,000 uniform
    random actions (seed 0), its error has mean 0 and root mean square 0.095, beside a deviation of
    0.88 of the reward itself.

    ## Hidden
    direction, +1 or -1. The dynamics do not depend on it: only past rewards reveal it.

    ## Start and end
    As Ant-v5. Terminates when the torso's height leaves [0.2, 1] m; 200 steps.

    ## Does it reward adaptation?
    Not at this budget: standing still earns nearly 1 a step, and after 100,000 steps SAC earns no
    more than that, with or without the task (one seed each).

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told     | memoryless |
    |-----------|----------|------------|
    | 20,000    | 135, 127 | 184, 177   |
    | 100,000   | 192      | 191        |

    ## Arguments
    ``schedule="hazard"``, ``split="train"`` (or ``test``; there is no ``ood``: both directions
    are in training), ``visibility="hidden"``, see ``MetaEnvBase``; ``observation="standard"``
    (27 columns, as MBPO's), ``"long"`` (105, as Ant-v5) or ``"planner"``; ``render_mode`` as
    Ant-v5.

    ## Version history
    * v0: first version, on Ant-v5
    """

    env_id = "M3PO/AntFwdBwd-v0"
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("direction",), ((-1.0,), (1.0,)))
    }


class AntDirectionEnv(Direction, AntBase, AntEnv):  # type: ignore[misc]
    """Gymnasium's Ant-v5, told by the reward alone which way on the plane to run.

    ## Action
    Eight joint torques in [-1, 1], as in Ant-v5.

    ## Observation
    As ``AntFwdBwdEnv``; ``observation="planner"`` appends the mean x and y velocity and the
    contact cost.

    ## Reward
    As ``AntFwdBwdEnv``, with the mean velocity along the direction, which is
    ``directional_velocity`` in ``info``. ``reward()`` is exact with ``observation="planner"``;
    without, with 1,000 uniform random actions (seed 0), its error has mean 0.01 and root mean
    square 0.10, beside a deviation of 0.94 of the reward itself.

    ## Hidden
    | parameter | train and test | ood            | unit |
    |-----------|----------------|----------------|------|
    | direction | [0, 3 pi / 2]  | [3 pi/2, 2 pi] | rad  |

    The angle to the x axis. The dynamics do not depend on it: only past rewards reveal it.

    ## Start and end
    As Ant-v5. Terminates when the torso's height leaves [0.2, 1] m; 200 steps.

    ## Does it reward adaptation?
    Not at this budget, for the reason given at ``AntFwdBwdEnv``.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 128  | 175        |
    | 100,000   | 188  | 186        |

    ## Arguments
    As ``AntFwdBwdEnv``; ``split="ood"`` has the quarter of the circle that training leaves out.

    ## Version history
    * v0: first version, on Ant-v5
    """

    env_id = "M3PO/AntDirection-v0"


class AntCrippledLegEnv(AntBase, AntEnv):  # type: ignore[misc]
    """Gymnasium's Ant-v5 with one crippled leg (Nagabandi et al. 2019).

    The leg's two motors do nothing, and its two capsules are halved in radius and length about
    their middles; masses stay. The original also writes the upper capsule's position into the lower
    one's; here that stays where it is.

    ## Action
    Eight joint torques in [-1, 1], as in Ant-v5; two of them have no effect.

    ## Observation
    As ``AntFwdBwdEnv``.

    ## Reward
    mean x velocity of the step + 1 while healthy - 0.5 |action|^2 - 0.0005 |contact forces|^2:
    Ant-v5's own, for the action as given (the original pays 0.05 for each step and has no costs).
    Its terms are in ``info`` as Ant-v5's. ``reward()`` is exact with ``observation="planner"``;
    without, with 1,000 uniform random actions (seed 0), its error has mean 0 and root mean square
    0.078, beside a deviation of 0.84 of the reward itself.

    ## Hidden
    leg, the number of the crippled leg: 0 front left, 1 front right, 2 back left, 3 back right.
    Train and test: 0 to 2; ood: 3.

    ## Start and end
    As Ant-v5. Terminates when the torso's height leaves [0.2, 1] m; 200 steps.

    ## Does it reward adaptation?
    Not at this budget, for the reason given at ``AntFwdBwdEnv``: 204 is hardly more than standing
    still earns.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 151  | 169        |
    | 100,000   | 171  | 204        |

    ## Arguments
    As ``AntFwdBwdEnv``; ``split="ood"`` starts with leg 3 crippled.

    ## Version history
    * v0: first version, on Ant-v5
    """

    env_id = "M3PO/AntCrippledLeg-v0"
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("leg",), ((0.0,), (1.0,), (2.0,))),
        "ood": FiniteTasks(("leg",), ((3.0,),)),
    }

    def _begin_simulation(self) -> None:
        self._fields = ModelFields(self.model, ["geom_size"])

    def _apply(self, task: Task) -> None:
        *geoms, motors = LEGS[int(task.params[0])]
        size = self._fields.nominal["geom_size"].copy()
        size[[self.model.geom(name).id for name in geoms]] /= 2.0
        self._fields.write({"geom_size": size})
        self._dead_motors = list(motors)

    def do_simulation(self, ctrl: NDArray[Any], n_frames: int) -> None:
        """Simulate with the crippled leg's torques left out."""
        ctrl = np.array(ctrl)
        ctrl[self._dead_motors] = 0.0
        super().do_simulation(ctrl, n_frames)
