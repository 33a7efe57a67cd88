"""Any of Gymnasium's MuJoCo envs, with physics or rewards that may change within an episode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from m3po_bench.registry import unknown_name
from m3po_bench.tasks import Task, TaskDistribution, UniformTasks
from m3po_envs.base import MetaEnvBase
from m3po_envs.physics import Array, ModelFields, entry_names, model_field, reward_weights
from m3po_envs.splits import N_EPISODES, Episode, generate_episodes

OPTIONS = ("scale", "add", "log", "sign", "entries")


@dataclass(frozen=True)
class Varied:
    """How one field of a model, or one weight of a reward, varies.

    Attributes:
        field: Its name in MjModel, or the weight's.
        low: Least factor or summand.
        high: Largest factor or summand.
        how: ``"scale"`` multiplies the nominal values, ``"add"`` adds to them.
        log: Whether the factor is uniform in its logarithm.
        sign: Whether its sign is drawn too.
        rows: Rows of the field that vary, each by a value of its own; None: all by the same.
        names: Names of those values among the task's.
    """

    field: str
    low: float
    high: float
    how: str
    log: bool
    sign: bool
    rows: tuple[int, ...] | None
    names: tuple[str, ...]

    def changed(self, nominal: Array, values: tuple[float, ...]) -> Array:
        """The field under the task's values."""
        found = nominal.copy()
        rows: tuple[Any, ...] = (...,) if self.rows is None else self.rows
        for row, value in zip(rows, values, strict=True):
            found[row] = nominal[row] * value if self.how == "scale" else nominal[row] + value
        return found


class NonStationary(MetaEnvBase, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Makes any Gymnasium env on MuJoCo non-stationary, by its model's fields or its reward.

    The same schedules, visibilities, ``info``, options of ``reset`` and seeding as the registered
    meta-envs (see ``MetaEnvBase``). Which rewards and ends a transition has is not known here, so
    there is neither ``reward()`` nor ``terminated()``: model-based agents learn them.

    Example::

        import gymnasium as gym
        from m3po_bench.wrappers import PreviousActionReward
        from m3po_envs.non_stationary import NonStationary

        fields = {
            "body_mass": [0.5, 2.0],                                      # all by one factor
            "dof_damping": {"scale": [0.5, 2.0], "log": True},
            "actuator_gear": {"scale": [0.8, 1.2], "entries": ["thigh_joint", "leg_joint"]},
            "opt.gravity": {"add": [-2.0, 2.0], "entries": ["2"]},        # its z component
            "forward_reward_weight": {"scale": [0.5, 1.0], "sign": True}, # of the reward
        }
        env = NonStationary(gym.make("Hopper-v5"), fields, schedule="hazard")
        env = PreviousActionReward(env)                                   # for agents that adapt

    Args:
        env: A MuJoCo env as ``gym.make`` gives it, with its time limit.
        fields: For each field of ``mujoco.MjModel``, or of its ``opt``, or weight in the env's
            reward (its arguments that end in ``weight`` or ``reward``), the range of a factor, or
            a dict with ``"scale"`` (range of a factor) or ``"add"`` (range of a summand, in the
            field's unit) and, if wanted, ``"log"`` (uniform in the logarithm), ``"sign"`` (draw
            the sign too) and ``"entries"``: names of rows that get values of their own, or
            ``"each"`` for all.
        schedule: See ``MetaEnvBase``.
        split: ``"train"`` or ``"test"``; the 40 test episodes are a function of ``fields`` and the
            env's id.
        visibility: See ``MetaEnvBase``.

    Raises:
        ValueError: If a field, an entry or a range makes no sense; the message names the nearest.
    """

    distributions: ClassVar[Mapping[str, TaskDistribution]] = {}

    def __init__(
        self,
        env: gym.Env[Any, Any],
        fields: Mapping[str, Any],
        schedule: str | Mapping[str, Any] = "hazard",
        split: str = "train",
        visibility: str = "hidden",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, fields=fields, schedule=schedule, split=split, visibility=visibility
        )
        gym.Wrapper.__init__(self, env)
        model = getattr(env.unwrapped, "model", None)
        if not isinstance(model, mujoco.MjModel):
            raise ValueError(f"{env}: expected an env on MuJoCo, with an MjModel in env.model")
        if split == "ood":
            raise ValueError("split='ood': there is none; pass other ranges with split='test'")
        if env.spec is None or env.spec.max_episode_steps is None:
            raise ValueError(f"{env}: expected a time limit, as gym.make gives it")
        if not fields:
            raise ValueError("fields is empty: name at least one, such as 'body_mass'")
        self._weights = reward_weights(env.unwrapped)
        self._varied = [_parse(env.unwrapped, name, given) for name, given in fields.items()]
        self._fields = self._fields_of(model)
        self.env_id = f"NonStationary/{env.spec.id}"  # type: ignore[misc]
        self._recipe = json.dumps([env.spec.id, fields], sort_keys=True)
        MetaEnvBase.__init__(self, schedule, split, visibility)
        self.horizon = env.spec.max_episode_steps

    def has_wrapper_attr(self, name: str) -> bool:
        """As Gymnasium's, but the body's ``terminated``, a flag of its v4, is not ``MetaEnv``'s."""
        return hasattr(type(self), name) if name == "terminated" else super().has_wrapper_attr(name)

    def _fields_of(self, model: mujoco.MjModel) -> ModelFields:
        names = dict.fromkeys(varied.field for varied in self._varied)
        return ModelFields(model, [name for name in names if name not in self._weights])

    def __getstate__(self) -> dict[str, Any]:
        # Views into a model do not survive copying: they would be arrays of their own.
        return {**vars(self), "_fields": self._fields.nominal}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # Gymnasium's own MuJoCo envs are made anew by copying, with a nominal model.
        self._fields = self._fields_of(self.env.unwrapped.model)  # type: ignore[attr-defined]
        self._fields.nominal = state["_fields"]
        self._apply(self._task)

    def _tasks_of(self, split: str) -> TaskDistribution:
        each = [(name, varied) for varied in self._varied for name in varied.names]
        return UniformTasks(
            tuple(name for name, _ in each),
            tuple((varied.low, varied.high) for _, varied in each),
            log=tuple(name for name, varied in each if varied.log),
            signs=tuple(name for name, varied in each if varied.sign),
        )

    def _load_episodes(self, split: str) -> tuple[Episode, ...]:
        digest = hashlib.sha256(f"{self._recipe} {split}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        return tuple(generate_episodes(self._tasks_of(split), N_EPISODES[split], seed))

    def _seed(self, seed: int | None) -> None:
        if seed is not None:
            self.env.reset(seed=seed)

    def _apply(self, task: Task) -> None:
        values, used = {}, 0
        for varied in self._varied:
            own = task.params[used : used + len(varied.names)]
            used += len(own)
            if varied.field in self._weights:
                weight = varied.changed(np.asarray(self._weights[varied.field]), own)
                setattr(self.env.unwrapped, f"_{varied.field}", float(weight))
            else:
                values[varied.field] = varied.changed(self._fields.nominal[varied.field], own)
        self._fields.write(values)


NOT_NEGATIVE = ("body_mass", "body_inertia", "geom_friction", "dof_damping", "dof_armature")
"""Fields that MuJoCo has no physics for below 0."""


def _parse(body: Any, field: str, given: Any) -> Varied:
    """What is given for a field of a MuJoCo env's model, or for a weight of its reward."""
    model, weights = body.model, reward_weights(body)
    nominal = weights[field] if field in weights else model_field(model, field, weights)
    options = dict(given) if isinstance(given, Mapping) else {"scale": given}
    for option in options:
        if option not in OPTIONS:
            raise unknown_name(f"option of field {field!r}", option, OPTIONS)
    ways = [way for way in ("scale", "add") if way in options]
    if len(ways) != 1:
        raise ValueError(f"field {field!r}: expected either 'scale' or 'add', got {given!r}")
    low, high = _range(field, options[ways[0]])
    log, sign = bool(options.get("log", False)), bool(options.get("sign", False))
    if (log or sign) and low <= 0.0:
        raise ValueError(f"field {field!r}: 'log' and 'sign' need a range above 0, got {low}")
    if field in NOT_NEGATIVE and (low if ways[0] == "scale" else low + np.min(nominal)) < 0.0:
        raise ValueError(f"field {field!r}: a range from {low} makes values below 0")
    if ways[0] == "scale" and not np.any(nominal):
        raise ValueError(f"field {field!r} is 0 in this env, and scaled stays so; use 'add'")
    if field == "opt.wind" and model.opt.density == 0.0 and model.opt.viscosity == 0.0:
        raise ValueError(
            "field 'opt.wind' has no effect in a vacuum; set env.unwrapped.model.opt.density "
            "(air: 1.2) first"
        )
    known = () if field in weights else entry_names(model, field)
    rows, names = _rows(known, field, options.get("entries"))
    return Varied(field, low, high, ways[0], log, sign, rows, names)


def _range(field: str, given: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    # An empty range has one task only, and a change must bring another.
    if not low < high or not np.isfinite([low, high]).all():
        raise ValueError(
            f"field {field!r}: expected a range [low, high] with low < high, got {given!r}"
        )
    return low, high


def _rows(
    known: tuple[str, ...], field: str, entries: Any
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    if entries is None:
        return None, (field,)
    wanted = known if entries == "each" else tuple(entries)
    if not wanted:
        raise ValueError(f"field {field!r}: entries={entries!r}, expected names or 'each'")
    for name in wanted:
        if not known:
            raise ValueError(f"field {field!r} is one number, without entries such as {name!r}")
        if name not in known:
            raise unknown_name(f"entry of field {field!r}", name, known)
    return tuple(known.index(name) for name in wanted), tuple(f"{field}:{x}" for x in wanted)
