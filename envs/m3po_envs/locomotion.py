"""What Gymnasium's walking bodies share: a reward for velocity that a task may redefine."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import mujoco
import numpy as np
from gymnasium import spaces, utils
from numpy.typing import NDArray

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import Task, UniformTasks
from m3po_envs.base import Array, MetaEnvBase, Step


@contextlib.contextmanager
def _mujoco_warning_in_python() -> Iterator[None]:
    """What MuJoCo has to say becomes a Python warning, but for one that users can do nothing about.

    Gymnasium's half-cheetah sets ``settotalmass``, which MuJoCo calls deprecated since 4.0, on
    stderr and in a file in the working directory, for every env that is made.
    """
    before = mujoco.get_mju_user_warning()
    said: list[str] = []
    mujoco.set_mju_user_warning(said.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
    for message in said:
        if "'settotalmass' is deprecated" not in message:
            warnings.warn(f"MuJoCo: {message}", stacklevel=2)


class LocomotionBase(MetaEnvBase):
    """A meta-env on one of Gymnasium's MuJoCo v5 bodies, which comes last in the bases.

    The body pays for its mean x velocity in a step; here it pays for ``paid_velocity``, with the
    body's own weight and beside the body's own other terms.

    ``observation="planner"`` appends what the reward depends on and the body's observation does
    not hold: the step's mean velocity and, where there is one, its contact cost. Both are 0 at an
    episode's start.

    Args:
        schedule: See ``MetaEnvBase``.
        split: See ``MetaEnvBase``.
        visibility: See ``MetaEnvBase``.
        observation: One of ``observations``, or ``"planner"``.
        render_mode: As the body's.
    """

    model: Any
    """The body's ``mujoco.MjModel``."""
    _forward_reward_weight: float
    _ctrl_cost_weight: float
    _healthy_z_range: tuple[float, float]

    body_arguments: ClassVar[Mapping[str, Any]] = {}
    """What the body is made with."""
    observations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"standard": {}}
    """More of the body's arguments, by the name of the observation they make."""
    dimensions: ClassVar[int] = 1
    """1 if only the x velocity may be paid for, 2 for x and y."""
    velocity_columns: ClassVar[tuple[int, ...]] = ()
    """Where the body's observation holds the end-of-step velocity."""

    def __init__(
        self,
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
        observation: str = "standard",
        render_mode: str | None = None,
    ) -> None:
        known = (*self.observations, "planner")
        if observation not in known:
            raise unknown_name("observation", observation, known)
        self._planner = observation == "planner"
        chosen = self.observations["standard" if self._planner else observation]
        with _mujoco_warning_in_python():
            self._body.__init__(self, render_mode=render_mode, **self.body_arguments, **chosen)
        self._follow_the_body()
        # The body recorded its own arguments, with which a copy of this class cannot be made.
        pickled: Any = utils.EzPickle
        pickled.__init__(self, schedule, split, visibility, observation, render_mode)
        self._weight = self._forward_reward_weight
        self._has_contact_cost = hasattr(self, "contact_cost")
        self._begin_simulation()
        if self._planner:
            self._append_columns()
        MetaEnvBase.__init__(self, schedule, split, visibility)

    def _follow_the_body(self) -> None:
        """Let the camera move along; Gymnasium's stays, and the body runs out of sight."""
        renderer: Any = self.mujoco_renderer  # type: ignore[attr-defined]
        torso = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, "torso")
        follow = {"type": mujoco.mjtCamera.mjCAMERA_TRACKING, "trackbodyid": torso}
        renderer.default_cam_config = {**(renderer.default_cam_config or {}), **follow}
        renderer.camera_id = None  # -1 would make it a camera that stays

    def _begin_simulation(self) -> None:
        """Prepare what ``_apply`` needs of the body's model, and the body's observation space."""

    def _append_columns(self) -> None:
        assert self.observation_space.shape is not None
        self._standard_width = self.observation_space.shape[0]
        width = self._standard_width + self.dimensions + self._has_contact_cost
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float64)

    def paid_velocity(self, velocity: Array, task: NDArray[Any]) -> Array:
        """What velocities are worth under tasks; here the x velocity whatever the task.

        Args:
            velocity: Mean velocities of steps, m/s, shape (n, dimensions).
            task: Task vectors, shape (n, n_params) or (n_params,).

        Returns:
            Shape (n,).
        """
        paid: Array = velocity[..., 0]
        return paid

    def _paid_now(self, x: float, y: float) -> float:
        """``paid_velocity`` of one step in the task in force; quick, and for plain numbers."""
        return x

    def _step_body(self, action: NDArray[Any]) -> Step:
        obs, _, terminated, truncated, info = self._body.step(self, action)
        told = info.get
        contact = told("reward_contact", 0.0)
        forward = self._weight * self._paid_now(info["x_velocity"], told("y_velocity", 0.0))
        info["reward_forward"] = forward
        reward = forward + told("reward_survive", 0.0) + info["reward_ctrl"] + contact
        if self._planner:
            velocity = (info["x_velocity"], told("y_velocity", 0.0))[: self.dimensions]
            costs = (-contact,) if self._has_contact_cost else ()
            obs = np.concatenate([obs, velocity, costs])
        return obs, reward, terminated, truncated, info

    def _reset_body(self) -> tuple[NDArray[Any], dict[str, Any]]:
        obs, info = super()._reset_body()
        if self._planner:
            obs = np.concatenate([obs, np.zeros(self.dimensions + self._has_contact_cost)])
        return obs, info

    def terminated(
        self, obs: NDArray[Any], action: NDArray[Any], next_obs: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Whether each transition ends its episode, shape (n,); exact."""
        return ~self._healthy(next_obs)

    def _healthy(self, obs: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether the body calls the state healthy, shape (n,); here always."""
        return np.ones(len(obs), dtype=np.bool_)

    def reward(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        next_obs: NDArray[Any],
        task: NDArray[Any],
    ) -> Array:
        """Rewards of transitions, shape (n,); see ``m3po_bench.tasks.MetaEnv``.

        Exact with ``observation="planner"``. Without, the step's mean velocity is taken as the
        mean of those at its two ends, and the contact cost as 0; each env's card says how far
        that is off.
        """
        costs = self._control_costs(np.asarray(action, dtype=np.float64))
        if self._planner:
            extra = next_obs[:, self._standard_width :]  # what visibility adds comes behind it
            velocity = extra[:, : self.dimensions]
            if self._has_contact_cost:
                costs = costs + extra[:, self.dimensions]
        else:
            columns = list(self.velocity_columns)
            velocity = (obs[:, columns] + next_obs[:, columns]) / 2
        survive = getattr(self, "_healthy_reward", 0.0) * self._healthy(next_obs)
        paid = self.paid_velocity(velocity, np.asarray(task, dtype=np.float64))
        rewards: Array = self._weight * paid + survive - costs
        return rewards

    def _control_costs(self, action: Array) -> Array:
        costs: Array = self._ctrl_cost_weight * np.sum(np.square(action), axis=1)
        return costs


class ForwardBackward(LocomotionBase):
    """Pays for running in the x direction whose sign the task holds."""

    def _apply(self, task: Task) -> None:
        self._sign = task.params[0]

    def paid_velocity(self, velocity: Array, task: NDArray[Any]) -> Array:
        """Velocity along the x axis, times the task's sign."""
        paid: Array = velocity[..., 0] * task[..., 0]
        return paid

    def _paid_now(self, x: float, y: float) -> float:
        return x * self._sign


class Direction(LocomotionBase):
    """Pays for running at the angle to the x axis that the task holds.

    A quarter of the circle is left out of training.
    """

    dimensions: ClassVar[int] = 2
    reported = ("directional_velocity",)
    distributions: ClassVar[Mapping[str, UniformTasks]] = {
        "train": UniformTasks(("direction",), ((0.0, 1.5 * math.pi),), angles=("direction",)),
        "ood": UniformTasks(
            ("direction",), ((1.5 * math.pi, 2.0 * math.pi),), angles=("direction",)
        ),
    }

    def paid_velocity(self, velocity: Array, task: NDArray[Any]) -> Array:
        """Velocity along the task's direction."""
        angle = task[..., 0]
        paid: Array = velocity[..., 0] * np.cos(angle) + velocity[..., 1] * np.sin(angle)
        return paid

    def _paid_now(self, x: float, y: float) -> float:
        return x * self._cos + y * self._sin

    def _apply(self, task: Task) -> None:
        self._cos, self._sin = math.cos(task.params[0]), math.sin(task.params[0])

    def _step_body(self, action: NDArray[Any]) -> Step:
        obs, reward, terminated, truncated, info = super()._step_body(action)
        info["directional_velocity"] = info["reward_forward"] / self._weight
        return obs, reward, terminated, truncated, info
