from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from m3po_envs.non_stationary import NonStationary
from m3po_envs.physics import NOTHING_DERIVED, ModelFields, model_field

BODIES = ("Ant-v5", "Pusher-v5", "Reacher-v5", "Walker2d-v5")


def model_of(body: str) -> mujoco.MjModel:
    model: mujoco.MjModel = gym.make(body).unwrapped.model  # type: ignore[attr-defined]
    return model


def values_of(model: mujoco.MjModel) -> dict[str, Any]:
    found = {name: getattr(model, name) for name in dir(model)}
    return {name: np.array(x) for name, x in found.items() if isinstance(x, np.ndarray)}


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in first.items()
        if not np.array_equal(value, second[name], equal_nan=value.dtype.kind == "f")
    ]


def edited(nominal: Any) -> Any:
    """Another value in every entry, also where it is 0."""
    return 1.3 * nominal + 0.2 * np.linspace(0.5, 1.0, nominal.size).reshape(nominal.shape)


def contacts(model: mujoco.MjModel) -> int:
    data, rng, found = mujoco.MjData(model), np.random.default_rng(0), 0
    for _ in range(200):
        data.qpos = model.qpos0 + rng.uniform(-0.5, 0.5, model.nq)
        mujoco.mj_forward(model, data)
        found += data.ncon
    return found


def test_geoms_of_another_size_touch_what_compiled_ones_do() -> None:
    env = NonStationary(gym.make("Ant-v5"), {"geom_size": [0.5, 2.0]}, schedule="static")
    body: Any = env.unwrapped
    nominal = model_of("Ant-v5")
    spec = mujoco.MjSpec.from_file(body.fullpath)
    for geom in spec.geoms:
        built = nominal.geom(geom.name)
        geom.fromto[:] = np.nan
        geom.size, geom.pos, geom.quat = 2.0 * built.size, built.pos, built.quat
    env.reset(seed=0, options={"task": (2.0,)})
    assert contacts(body.model) == contacts(spec.compile()) > contacts(nominal)


@pytest.mark.parametrize(
    ("field", "derived"),
    [
        ("geom_size", {"geom_rbound", "geom_aabb", "bvh_aabb", "dof_length"}),
        ("geom_pos", {"geom_sameframe", "bvh_aabb", "dof_length"}),
        ("geom_quat", {"geom_sameframe", "bvh_aabb"}),
        ("geom_margin", {"body_margin"}),
        ("jnt_pos", {"dof_invweight0", "body_invweight0", "dof_M0"}),
        ("jnt_axis", {"dof_invweight0", "body_invweight0", "dof_M0"}),
        ("body_mass", {"dof_invweight0", "body_invweight0", "dof_M0", "body_subtreemass"}),
    ],
)
def test_what_is_derived_follows_a_field_and_comes_back(field: str, derived: set[str]) -> None:
    model = model_of("Ant-v5")
    before = values_of(model)
    fields = ModelFields(model, [field])
    fields.write({field: edited(fields.nominal[field])})
    changed = values_of(model)
    assert derived | {field} <= set(differing(before, changed))
    mujoco.mj_setConst(model, mujoco.MjData(model))
    assert not differing(changed, values_of(model))
    fields.write({})
    assert not differing(before, values_of(model))


def test_a_field_that_is_itself_derived_may_vary() -> None:
    model = model_of("Ant-v5")
    fields = ModelFields(model, ["dof_invweight0"])
    doubled = 2.0 * fields.nominal["dof_invweight0"]
    fields.write({"dof_invweight0": doubled})
    assert np.array_equal(model.dof_invweight0, doubled)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("field", sorted(NOTHING_DERIVED))
def test_nothing_is_derived_where_that_is_said(body: str, field: str) -> None:
    model = model_of(body)
    live = model_field(model, field)
    live[...] = edited(np.array(live))
    before = values_of(model)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    assert not differing(before, values_of(model))
