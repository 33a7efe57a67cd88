"""A half-cheetah on a pier of floating blocks, each of which gives way at its own pace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from numpy.typing import NDArray

from m3po_bench.tasks import Task, UniformTasks
from m3po_envs.half_cheetah import ARGUMENTS, VELOCITY_COLUMNS
from m3po_envs.locomotion import LocomotionBase

BLOCKS = (
    (-8.0, 5.999), (0.0, 1.999), (4.0, 1.999), (8.0, 1.999),
    (12.0, 1.999), (16.0, 1.999), (20.0, 1.999), (42.0, 19.999),
)  # fmt: skip
"""Centre and half length of each block along x, m."""
HALF_WIDTH, HALF_HEIGHT, CENTRE_HEIGHT = 0.99, 0.05, 0.05
STIFFNESS = 150.0
"""Of a block's vertical spring, N/m."""
TRAVEL = 0.15
"""How far a block moves up or down from its spring's rest, m."""
BLOCK_MASS, TOTAL_MASS = 10.0, 14.0
"""Of a block before everything is scaled to the second, which is HalfCheetah's own total, kg."""
WATER = -0.1
"""Height of the plane under the blocks, m; nothing touches it."""

N_POSITIONS = 9
"""Coordinates of the cheetah, which come before the blocks'."""
WIDTH = 20
NAMES = tuple(f"damping_{i}" for i in range(len(BLOCKS)))


class HalfCheetahPierEnv(LocomotionBase, HalfCheetahEnv):  # type: ignore[misc]
    """Gymnasium's HalfCheetah-v5 on eight blocks that float on damped springs.

    The geometry, the springs and the scaling of masses are those of ``HalfCheetahBlocks``
    (Nagabandi et al. 2019, https://github.com/iclavera/learning_to_adapt): the cheetah weighs
    about 2.9 kg and a block about 1.4 kg at the motors' usual strength. There, 1,000 steps of
    0.01 s are an episode; here 200 of 0.05 s, the same 10 s.

    ## Action
    Six joint torques in [-1, 1], as in HalfCheetah-v5.

    ## Observation
    | num   | observation                                     | unit           |
    |-------|-------------------------------------------------|----------------|
    | 0-7   | height, pitch and six joint angles              | m, rad         |
    | 8     | x velocity at the end of the step               | m/s            |
    | 9-16  | their other velocities                          | m/s, rad/s     |
    | 17-19 | the cheetah's centre of mass: x, y, z           | m              |
    | 20    | mean x velocity of the step, 0 at the start     | m/s            |

    The blocks are not seen. Column 20 is there with ``observation="planner"`` only; it is what the
    reward pays for.

    ## Reward
    mean x velocity of the step - 0.05 |action|^2; its terms are ``reward_forward`` and
    ``reward_ctrl`` in ``info``. ``reward()`` is exact with ``observation="planner"``; without, with
    1,000 uniform random actions (seed 0), its error has mean -0.02 and root mean square 0.38,
    beside a deviation of 1.1 of the reward itself.

    ## Hidden
    | parameter              | train and test | ood      | unit  |
    |------------------------|----------------|----------|-------|
    | damping of each block  | [0, 10]        | [10, 15] | N s/m |

    A change gives every block another damping. Even without one the dynamics change as the
    cheetah runs from block to block.

    ## Start and end
    As HalfCheetah-v5, above the second block, with every block where its weight and its spring
    are in balance (in the original they start above it and sink). Never terminates; 200 steps.

    ## Does it reward adaptation?
    No gain from knowing the task is visible: after 100,000 steps SAC with and without the task, one
    seed each, differ by less than the seeds of memoryless SAC do after 20,000. Whether a memory
    pays is not settled: after 20,000 steps two of three seeds of M3PO earn more than all three of
    MBPO, which is M3PO without history, and the third earns less (``results/lite``).

    Mean returns over the test episodes under the default schedule, of every seed, of SAC that is
    told the task and of SAC without memory (preset ``quick``):

    | env steps | told | memoryless |
    |-----------|------|------------|
    | 20,000    | 15   | 174, 32    |
    | 100,000   | 854  | 828        |

    ## Arguments
    ``schedule="hazard"``, ``split="train"``, ``visibility="hidden"``, see ``MetaEnvBase``;
    ``observation="standard"`` or ``"planner"``; ``render_mode`` as HalfCheetah-v5.

    ## Version history
    * v0: first version, on HalfCheetah-v5
    """

    env_id = "M3PO/HalfCheetahPier-v0"
    body_arguments = ARGUMENTS
    velocity_columns = VELOCITY_COLUMNS
    distributions: ClassVar[Mapping[str, UniformTasks]] = {
        "train": UniformTasks(NAMES, ((0.0, 10.0),) * len(NAMES)),
        "ood": UniformTasks(NAMES, ((10.0, 15.0),) * len(NAMES)),
    }

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The body's model with blocks instead of a floor."""
        spec = mujoco.MjSpec.from_file(self.fullpath)
        spec.compiler.settotalmass = -1.0  # deprecated there; done below
        for geom in spec.geoms:
            if geom.name == "floor":
                geom.pos, geom.contype, geom.conaffinity = (0.0, 0.0, WATER), 0, 0
        for i, (centre, half_length) in enumerate(BLOCKS):
            block = spec.worldbody.add_body(name=f"block_{i}", pos=(centre, 0.0, CENTRE_HEIGHT))
            block.add_joint(
                name=NAMES[i], type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0.0, 0.0, 1.0),
                range=(-TRAVEL, TRAVEL), stiffness=STIFFNESS,
            )  # fmt: skip
            block.add_geom(
                name=f"block_{i}", type=mujoco.mjtGeom.mjGEOM_BOX, mass=BLOCK_MASS,
                size=(half_length, HALF_WIDTH, HALF_HEIGHT), conaffinity=1,
            )  # fmt: skip
        model = spec.compile()
        mujoco.mj_setTotalmass(model, TOTAL_MASS)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        self._damping = model.dof_damping[N_POSITIONS:]
        weights = model.body_mass[-len(BLOCKS) :] * -model.opt.gravity[2]
        self._balance = np.maximum(-weights / STIFFNESS, -TRAVEL)
        return model, mujoco.MjData(model)

    def _begin_simulation(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (WIDTH,), np.float64)

    def _apply(self, task: Task) -> None:
        self._damping[:] = task.params

    def _get_obs(self) -> NDArray[np.float64]:
        data = self.data
        centre = data.subtree_com[1]
        return np.concatenate([data.qpos[1:N_POSITIONS], data.qvel[:N_POSITIONS], centre])

    def reset_model(self) -> NDArray[np.float64]:
        """As the body's; the blocks are at rest."""
        super().reset_model()  # type: ignore[no-untyped-call]
        qpos, qvel = self.data.qpos.copy(), self.data.qvel.copy()
        qpos[N_POSITIONS:], qvel[N_POSITIONS:] = self._balance, 0.0
        self.set_state(qpos, qvel)  # type: ignore[no-untyped-call]
        return self._get_obs()
