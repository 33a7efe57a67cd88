"""Walkers whose masses, inertias, frictions and dampings are not the same in every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from numpy.typing import NDArray

from m3po_bench.tasks import Task, UniformTasks
from m3po_envs.locomotion import LocomotionBase
from m3po_envs.physics import ModelFields

BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
"""Each entry of these fields is multiplied by base^u, u drawn for that entry alone."""
LIMIT, OOD_LIMIT = 3.0, 4.0
"""|u| goes up to the first in training, and from the first to the second in ``ood``."""

_LEG = ("thigh", "leg", "foot")
WALKER_BODIES = ("torso", *_LEG, *(f"{part}_left" for part in _LEG))
HOPPER_BODIES = ("torso", *_LEG)


def entries(bodies: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    """(field, body, column) of every entry that varies.

    Entries that are 0 in every body of the family (the world's mass, the damping of the root's
    joints) are left out. Each body has one geom; each but the torso has one joint that is damped.
    """
    return (
        *(("body_mass", body, 0) for body in bodies),
        *(("body_inertia", body, axis) for body in bodies for axis in range(3)),
        *(("geom_friction", body, kind) for body in ("floor", *bodies) for kind in range(3)),
        *(("dof_damping", body, 0) for body in bodies if body != "torso"),
    )


def distributions(bodies: tuple[str, ...]) -> Mapping[str, UniformTasks]:
    """Exponents: uniform in +-[0, 3] for training, in +-[3, 4] for ``ood``."""
    names = tuple(f"{field}_{body}_{column}" for field, body, column in entries(bodies))
    n = len(names)
    return {
        "train": UniformTasks(names, ((-LIMIT, LIMIT),) * n),
        "ood": UniformTasks(names, ((LIMIT, OOD_LIMIT),) * n, signs=names),
    }


class RandomParamsBase(LocomotionBase):
    """What both walkers share; see ``Walker2dRandomParamsEnv``."""

    bodies: ClassVar[tuple[str, ...]]
    velocity_columns = (8,)
    _healthy_angle_range: tuple[float, float]

    def _begin_simulation(self) -> None:
        self._fields = ModelFields(self.model, BASES)
        rows: dict[str, dict[str, int]] = {"body": {}, "geom": {}, "dof": {}}
        for body in self.bodies:
            of = self.model.body(body)
            rows["body"][body], rows["geom"][body] = of.id, int(of.geomadr[0])
            rows["dof"][body] = int(of.dofadr[0])
        rows["geom"]["floor"] = self.model.geom("floor").id
        self._entries = [
            (field, (rows[field.partition("_")[0]][body], column))
            for field, body, column in entries(self.bodies)
        ]

    def _apply(self, task: Task) -> None:
        values = {name: nominal.copy() for name, nominal in self._fields.nominal.items()}
        for (field, (row, column)), exponent in zip(self._entries, task.params, strict=True):
            place: Any = row if values[field].ndim == 1 else (row, column)
            values[field][place] *= BASES[field] ** exponent
        self._fields.write(values)

    def _healthy(self, obs: NDArray[Any]) -> NDArray[np.bool_]:
        (low, high), (least, most) = self._healthy_z_range, self._healthy_angle_range
        height, angle = obs[:, 0], obs[:, 1]
        upright = (low < height) & (height < high)
        healthy: NDArray[np.bool_] = upright & (least < angle) & (angle < most)
        return healthy


class Walker2dRandomParamsEnv(RandomParamsBase, Walker2dEnv):  # type: ignore[misc]
    """Gymnasium's Walker2d-v5 with 58 hidden physical parameters (``rand_param_envs``).

    ## Action
    Six joint torques in [-1, 1], as in Walker2d-v5.

    ## Observation
    | num   | observation                                        | unit       |
    |-------|----------------------------------------------------|------------|
    | 0-7   | height, pitch and six joint angles                 | m, rad     |
    | 8-16  | their velocities, x velocity first, cut at +-10    | m/s, rad/s |
    | 17    | mean x velocity of the step, 0 at the start        | m/s        |

    Column 17 is there with ``observation="planner"`` only; it is what the reward pays for.

    ## Reward
    mean x velocity of the step + 1 while healthy - 0.001 |action|^2, Walker2d-v5's own; its terms
    are ``reward_forward``, ``reward_survive`` and ``reward_ctrl`` in ``info``. ``reward()`` is
    exact with ``observation="planner"``; without, with 1,000 uniform random actions (seed 0), its
    error has mean 0 and root mean square 0.018, beside a deviation of 0.84 of the reward itself.

    ## Hidden
    The exponent u of a factor for each entry of four fields of the model, as in
    https://github.com/dennisl88/rand_param_envs:

    | field                                        | factor | train and test | ood        |
    |----------------------------------------------|--------|----------------|------------|
    | mass of each body                            | 1.5^u  | u in [-3, 3]   | +-[3, 4]   |
    | inertia of each body, three axes             | 1.5^u  | u in [-3, 3]   | +-[3, 4]   |
    | friction of floor and each body, three kinds | 1.5^u  | u in [-3, 3]   | +-[3, 4]   |
    | damping of each leg joint                    | 1.3^u  | u in [-3, 3]   | +-[3, 4]   |

    ## Start and end
    As Walker2d-v5. Terminates when the height leaves (0.8, 2) m or the pitch (-1, 1) rad; 200
    steps.

    ## Does it reward adaptation?
    Not at this budget (one seed each): 58 more inputs beside 17 observations cost SAC more than the
    knowledge gains.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 186  | 284        |
    | 100,000   | 185  | 323        |

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``visibility="hidden"``, see ``MetaEnvBase``;
    ``observation="standard"`` or ``"planner"``; ``render_mode`` as Walker2d-v5.

    ## Version history
    * v0: first version, on Walker2d-v5
    """

    env_id = "M3PO/Walker2dRandomParams-v0"
    bodies = WALKER_BODIES
    distributions: ClassVar[Mapping[str, UniformTasks]] = distributions(WALKER_BODIES)


class HopperRandomParamsEnv(RandomParamsBase, HopperEnv):  # type: ignore[misc]
    """Gymnasium's Hopper-v5 with 34 hidden physical parameters (``rand_param_envs``).

    ## Action
    Three joint torques in [-1, 1], as in Hopper-v5.

    ## Observation
    | num   | observation                                        | unit       |
    |-------|----------------------------------------------------|------------|
    | 0-4   | height, pitch and three joint angles               | m, rad     |
    | 5-10  | their velocities, x velocity first, cut at +-10    | m/s, rad/s |
    | 11    | mean x velocity of the step, 0 at the start        | m/s        |

    Column 11 is there with ``observation="planner"`` only; it is what the reward pays for.

    ## Reward
    mean x velocity of the step + 1 while healthy - 0.001 |action|^2, Hopper-v5's own; its terms
    are ``reward_forward``, ``reward_survive`` and ``reward_ctrl`` in ``info``. ``reward()`` is
    exact with ``observation="planner"``; without, with 1,000 uniform random actions (seed 0), its
    error has mean 0 and root mean square 0.0055, beside a deviation of 0.52 of the reward itself.

    ## Hidden
    As ``Walker2dRandomParamsEnv``.

    ## Start and end
    As Hopper-v5. Terminates when the height is 0.7 m or less, the pitch leaves (-0.2, 0.2) rad or
    another coordinate or velocity (-100, 100); 200 steps. ``terminated()`` sees velocities cut at
    +-10 and so cannot tell a velocity beyond 100.

    ## Does it reward adaptation?
    Not at this budget (one seed each): 34 more inputs beside 11 observations cost SAC more than the
    knowledge gains.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 186  | 277        |
    | 100,000   | 279  | 344        |

    ## Arguments
    As ``Walker2dRandomParamsEnv``.

    ## Version history
    * v0: first version, on Hopper-v5
    """

    env_id = "M3PO/HopperRandomParams-v0"
    bodies = HOPPER_BODIES
    velocity_columns = (5,)
    distributions: ClassVar[Mapping[str, UniformTasks]] = distributions(HOPPER_BODIES)

    def _healthy(self, obs: NDArray[Any]) -> NDArray[np.bool_]:
        low, high = self._healthy_state_range
        state = obs[:, 1:11]
        return super()._healthy(obs) & ((low < state) & (state < high)).all(axis=1)
