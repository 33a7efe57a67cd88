"""Half-cheetahs in which something hidden varies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from numpy.typing import NDArray

from m3po_bench.tasks import FiniteTasks, Task, UniformTasks
from m3po_envs.base import Array
from m3po_envs.locomotion import ForwardBackward, LocomotionBase
from m3po_envs.physics import ModelFields

ARGUMENTS = {"ctrl_cost_weight": 0.05}
VELOCITY_COLUMNS = (8,)
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")


class HalfCheetahFwdBwdEnv(ForwardBackward, HalfCheetahEnv):  # type: ignore[misc]
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
    and ``reward_ctrl`` in ``info``. ``reward()`` is exact with ``observation="planner"``; without,
    with 1,000 uniform random actions (seed 0), its error has mean 0 and root mean square 0.18,
    beside a deviation of 0.68 of the reward itself.

    ## Hidden
    direction, +1 or -1. The dynamics do not depend on it: only past rewards reveal it.

    ## Start and end
    As HalfCheetah-v5. Never terminates; 200 steps.

    ## Does it reward adaptation?
    Yes. SAC that is told the direction still improves at 100,000 steps. Without memory its return
    falls below 0, which standing still earns.

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``default``):

    | env steps | told     | memoryless    |
    |-----------|----------|---------------|
    | 20,000    |          | -25, -35, -30 |
    | 100,000   | 238, 254 |               |

    ## Arguments
    ``schedule="hazard"``, ``split="train"`` (or ``test``; there is no ``ood``: both directions
    are in training), ``visibility="hidden"``, see ``MetaEnvBase``; ``observation="standard"`` or
    ``"planner"``; ``render_mode`` as HalfCheetah-v5.

    ## Version history
    * v0: first version, on HalfCheetah-v5
    """

    env_id = "M3PO/HalfCheetahFwdBwd-v0"
    body_arguments = ARGUMENTS
    velocity_columns = VELOCITY_COLUMNS
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("direction",), ((-1.0,), (1.0,)))
    }


class HalfCheetahVelocityEnv(LocomotionBase, HalfCheetahEnv):  # type: ignore[misc]
    """Gymnasium's HalfCheetah-v5, told by the reward alone how fast to run.

    ## Action
    Six joint torques in [-1, 1], as in HalfCheetah-v5.

    ## Observation
    As ``HalfCheetahFwdBwdEnv``.

    ## Reward
    -|mean x velocity of the step - target| - 0.05 |action|^2 (Rakelly et al. 2019); its terms are
    ``reward_forward`` and ``reward_ctrl`` in ``info``. ``reward()`` is exact with
    ``observation="planner"``; without, with 1,000 uniform random actions (seed 0), its error has
    mean 0.01 and root mean square 0.18, beside a deviation of 1.1 of the reward itself.

    ## Hidden
    | parameter | train and test | ood      | unit |
    |-----------|----------------|----------|------|
    | target    | [0, 3]         | [3, 3.5] | m/s  |

    The dynamics do not depend on it: only past rewards reveal it.

    ## Start and end
    As HalfCheetah-v5. Never terminates; 200 steps.

    ## Does it reward adaptation?
    In principle: no single speed earns more than about -150 (targets of 0 to 3 m/s, 200 steps),
    while following the target would earn nearly 0. But not at this budget: after 100,000 steps
    memoryless SAC runs at 1.6 m/s whatever the target, and SAC that is told the target creeps at up
    to 0.35 m/s (one seed each).

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | -285 | -204, -221 |
    | 100,000   | -252 | -182       |

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``visibility="hidden"``, see ``MetaEnvBase``;
    ``observation="standard"`` or ``"planner"``; ``render_mode`` as HalfCheetah-v5.

    ## Version history
    * v0: first version, on HalfCheetah-v5
    """

    env_id = "M3PO/HalfCheetahVelocity-v0"
    body_arguments = ARGUMENTS
    velocity_columns = VELOCITY_COLUMNS
    distributions: ClassVar[Mapping[str, UniformTasks]] = {
        "train": UniformTasks(("target",), ((0.0, 3.0),)),
        "ood": UniformTasks(("target",), ((3.0, 3.5),)),
    }

    def _apply(self, task: Task) -> None:
        self._target = task.params[0]

    def paid_velocity(self, velocity: Array, task: NDArray[Any]) -> Array:
        """Minus the distance of the x velocity from the task's."""
        paid: Array = -np.abs(velocity[..., 0] - task[..., 0])
        return paid

    def _paid_now(self, x: float, y: float) -> float:
        return -abs(x - self._target)


class HalfCheetahDisabledJointEnv(LocomotionBase, HalfCheetahEnv):  # type: ignore[misc]
    """Gymnasium's HalfCheetah-v5 with one motor that does nothing (Nagabandi et al. 2019).

    ## Action
    Six joint torques in [-1, 1], as in HalfCheetah-v5; one of them has no effect.

    ## Observation
    As ``HalfCheetahFwdBwdEnv``.

    ## Reward
    mean x velocity of the step - 0.05 |action|^2, for the action as given; its terms are
    ``reward_forward`` and ``reward_ctrl`` in ``info``. ``reward()`` is exact with
    ``observation="planner"``; without, with 1,000 uniform random actions (seed 0), its error has
    mean 0 and root mean square 0.18, beside a deviation of 0.65 of the reward itself.

    ## Hidden
    joint, the number of the disabled motor: 0 back thigh, 1 back shin, 2 back foot, 3 front thigh,
    4 front shin, 5 front foot. Train and test: 1 to 5; ood: 0.

    ## Start and end
    As HalfCheetah-v5. Never terminates; 200 steps.

    ## Does it reward adaptation?
    With a long budget it seems so: after 100,000 steps SAC that is told which motor is dead earns
    three times as much as SAC without memory (one seed each). After 20,000 steps it earns less, and
    the seeds of SAC without memory differ by more than that. Nor is the value of a memory visible
    at that budget: the seeds of M3PO and of MBPO, which is M3PO without history, overlap, and both
    earn 455 to 750 without being told (``results/lite``).

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``; ``lite`` earns less by 20,000):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 85   | 118, 314   |
    | 100,000   | 623  | 192        |

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``visibility="hidden"``, see ``MetaEnvBase``;
    ``observation="standard"`` or ``"planner"``; ``render_mode`` as HalfCheetah-v5.

    ## Version history
    * v0: first version, on HalfCheetah-v5
    """

    env_id = "M3PO/HalfCheetahDisabledJoint-v0"
    body_arguments = ARGUMENTS
    velocity_columns = VELOCITY_COLUMNS
    distributions: ClassVar[Mapping[str, FiniteTasks]] = {
        "train": FiniteTasks(("joint",), tuple((float(i),) for i in range(1, len(JOINTS)))),
        "ood": FiniteTasks(("joint",), ((0.0,),)),
    }

    def _begin_simulation(self) -> None:
        self._fields = ModelFields(self.model, ["actuator_gear"])

    def _apply(self, task: Task) -> None:
        gear = self._fields.nominal["actuator_gear"].copy()
        gear[int(task.params[0])] = 0.0
        self._fields.write({"actuator_gear": gear})
