"""What changes in a MuJoCo model: always written from its nominal values, so nothing drifts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import mujoco
import numpy as np
from numpy.typing import NDArray

from m3po_bench.registry import unknown_name

Array = NDArray[np.float64]

NOTHING_DERIVED = {
    "dof_damping", "dof_frictionloss", "geom_friction", "jnt_stiffness", "opt.gravity", "opt.wind"
}  # fmt: skip
"""Fields from which MuJoCo derives nothing: if no others vary, there is nothing to do.

From most others it derives some that a step uses: inverse weights, bounding volumes, or whether a
geom sits where its body's frame does, in which case its position is not looked at.
"""


class ModelFields:
    """Some fields of an MjModel, to be written from their nominal values.

    ``mj_resetData`` does not restore a model, so every change writes whole fields.

    Args:
        model: The model that is simulated.
        names: Its fields, such as ``"body_mass"``; ``"opt.gravity"`` and ``"opt.wind"`` too.

    Raises:
        UnknownNameError: If the model has no such field.
    """

    def __init__(self, model: mujoco.MjModel, names: Iterable[str]) -> None:
        self._model = model
        self._live = {name: model_field(model, name) for name in names}
        self.nominal: dict[str, Array] = {
            name: np.array(field, dtype=np.float64) for name, field in self._live.items()
        }
        # mj_setConst overwrites the state of the data that it is given.
        self._scratch = None if NOTHING_DERIVED.issuperset(self._live) else mujoco.MjData(model)

    def write(self, values: Mapping[str, Array]) -> None:
        """Put fields in force, then what MuJoCo derives from them; the others become nominal."""
        self._put(values)
        if self._scratch is not None:
            mujoco.mj_setConst(self._model, self._scratch)
            self._put(values)  # those that are themselves derived have been overwritten

    def _put(self, values: Mapping[str, Array]) -> None:
        for name, field in self._live.items():
            field[...] = values.get(name, self.nominal[name])


def model_field(model: mujoco.MjModel, name: str, others: Iterable[str] = ()) -> NDArray[Any]:
    """The live array of a model's field.

    Args:
        model: The env's.
        name: ``body_mass``, ``opt.gravity``.
        others: What else may have been meant.

    Raises:
        UnknownNameError: If there is no array of real numbers of that name.
    """
    owner: Any = model
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    found = getattr(owner, last, None)
    if not _is_real_array(found):
        known = [field for field in dir(model) if _is_real_array(getattr(model, field, None))]
        options = [f"opt.{x}" for x in dir(model.opt) if _is_real_array(getattr(model.opt, x))]
        raise unknown_name("field of MjModel", name, [*others, *known, *options])
    return cast(NDArray[Any], found)


def _is_real_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def reward_weights(body: Any) -> dict[str, float]:
    """The weights in the reward of one of Gymnasium's MuJoCo envs, by the arguments' names.

    The env keeps each under its name with an underscore before it.
    """
    return {
        name[1:]: float(value)
        for name, value in vars(body).items()
        if re.fullmatch(r"_\w+_(weight|reward)", name) and isinstance(value, (int, float))
    }


def entry_names(model: mujoco.MjModel, name: str) -> tuple[str, ...]:
    """One name per row of a field: that of its body, geom, joint or motor, else a number."""
    kinds = {"body": "body", "geom": "geom", "jnt": "joint"}
    kind, rows = name.partition("_")[0], len(np.atleast_1d(model_field(model, name)))
    if kind == "dof":
        joints = [model.joint(int(i)).name or str(int(i)) for i in model.dof_jntid]
        count = {joint: joints.count(joint) for joint in joints}
        seen: dict[str, int] = {}
        named = []
        for joint in joints:
            seen[joint] = seen.get(joint, -1) + 1
            named.append(f"{joint}.{seen[joint]}" if count[joint] > 1 else joint)
        return tuple(named)
    if kind == "actuator":  # Gymnasium's motors have no names, their joints have
        joints = [model.joint(int(i)).name for i in model.actuator_trnid[:, 0]]
        return tuple(model.actuator(i).name or joints[i] or str(i) for i in range(rows))
    if kind not in kinds:
        return tuple(str(i) for i in range(rows))
    accessor = getattr(model, kinds[kind])
    return tuple(accessor(i).name or str(i) for i in range(rows))
