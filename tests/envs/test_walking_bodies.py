"""What is particular to each env on one of Gymnasium's walking bodies."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

import m3po_bench  # noqa: F401 - registers the ids
from m3po_envs.ant import LEGS
from m3po_envs.pier import BLOCKS, N_POSITIONS
from m3po_envs.random_params import BASES, HOPPER_BODIES, WALKER_BODIES, entries
from m3po_envs.schedules import Hazard, Periodic

PEERS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "M3PO/HalfCheetahFwdBwd-v0": ("HalfCheetah-v5", {"ctrl_cost_weight": 0.05}, (1.0,)),
    "M3PO/AntFwdBwd-v0": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, (1.0,)),
    "M3PO/AntDirection-v0": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, (0.0,)),
    "M3PO/HumanoidDirection-v0": (
        "Humanoid-v5",
        {
            f"include_{name}_in_observation": False
            for name in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
        },
        (0.0,),
    ),
    "M3PO/Walker2dRandomParams-v0": ("Walker2d-v5", {}, (0.0,) * 58),
    "M3PO/HopperRandomParams-v0": ("Hopper-v5", {}, (0.0,) * 34),
}


def body(env_id: str, **kwargs: Any) -> Any:
    return gym.make(env_id, disable_env_checker=True, **kwargs).unwrapped


def test_nothing_is_said_of_what_gymnasium_has_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body("M3PO/HalfCheetahFwdBwd-v0")
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_other_warnings_of_mujoco_are_python_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    make = HalfCheetahEnv.__init__

    def complain(self: Any, *args: Any, **kwargs: Any) -> None:
        mujoco.get_mju_user_warning()("the floor is wet")
        make(self, *args, **kwargs)

    monkeypatch.setattr(HalfCheetahEnv, "__init__", complain)
    before = mujoco.get_mju_user_warning()
    with pytest.warns(UserWarning, match="MuJoCo: the floor is wet"):
        body("M3PO/HalfCheetahFwdBwd-v0")
    assert mujoco.get_mju_user_warning() is before


@pytest.mark.parametrize("env_id", PEERS)
def test_the_plain_task_is_gymnasiums_own_env(env_id: str) -> None:
    peer_id, arguments, task = PEERS[env_id]
    env, peer = body(env_id, schedule="static"), body(peer_id, **arguments)
    env.reset(seed=0, options={"task": task})
    peer.reset(seed=0)
    for one in (env, peer):
        one.set_state(env.data.qpos.copy(), env.data.qvel.copy())
        one.data.qacc_warmstart[:] = 0.0  # where the solver starts is no part of the state
    strength = peer.action_space.high
    for action in np.random.default_rng(0).uniform(-1, 1, (15, *strength.shape)):
        obs, reward, terminated, _, info = env.step(action)
        expected_obs, expected_reward, expected_end, _, expected = peer.step(action * strength)
        np.testing.assert_array_equal(obs, expected_obs)
        assert reward == pytest.approx(expected_reward, rel=1e-12, abs=1e-12)
        assert terminated == expected_end
        for name in (key for key in expected if key.startswith("reward_")):
            assert info[name] == pytest.approx(expected[name], rel=1e-12, abs=1e-12)


def test_directions_are_paid_for_by_the_velocity_along_them() -> None:
    for env_id in ("M3PO/AntDirection-v0", "M3PO/HumanoidDirection-v0"):
        env = body(env_id, schedule="static")
        env.reset(seed=0, options={"task": (math.pi / 2,)})
        for action in np.random.default_rng(0).uniform(-1, 1, (5, *env.action_space.shape)):
            *_, info = env.step(action)
            assert info["directional_velocity"] == pytest.approx(info["y_velocity"])
            assert info["reward_forward"] == pytest.approx(env._weight * info["y_velocity"])


def test_the_velocity_task_pays_for_coming_near_the_target() -> None:
    env = body("M3PO/HalfCheetahVelocity-v0", schedule="static")
    env.reset(seed=0, options={"task": (1.25,)})
    *_, info = env.step(np.ones(6))
    assert info["reward_forward"] == -abs(info["x_velocity"] - 1.25)


def test_a_disabled_joint_gets_no_torque_and_its_action_still_costs() -> None:
    env = body("M3PO/HalfCheetahDisabledJoint-v0", schedule="static")
    env.reset(seed=0, options={"task": (4.0,)})
    action = np.ones(6)
    *_, info = env.step(action)
    strength = env.data.qfrc_actuator[3:]
    assert strength[4] == 0.0
    assert (np.delete(strength, 4) > 0.0).all()
    assert info["reward_ctrl"] == pytest.approx(-0.05 * 6)


@pytest.mark.parametrize("leg", range(4))
def test_a_crippled_leg_is_limp_and_small(leg: int) -> None:
    split = "ood" if leg == 3 else "train"
    env, plain = body("M3PO/AntCrippledLeg-v0", schedule="static", split=split), body("Ant-v5")
    env.reset(seed=0, options={"task": (float(leg),)})
    env.step(np.ones(8))
    upper, lower, motors = LEGS[leg]
    assert [i for i in range(8) if env.data.ctrl[i] == 0] == sorted(motors)
    # The motors are those of the joints that carry the two geoms.
    bodies = {env.model.geom(name).bodyid[0] for name in (upper, lower)}
    joints = env.model.actuator_trnid[list(motors), 0]
    assert {env.model.jnt_bodyid[joint] for joint in joints} == bodies
    ids = [env.model.geom(name).id for name in (upper, lower)]
    assert np.allclose(env.model.geom_size[ids], plain.model.geom_size[ids] / 2)
    assert np.allclose(env.model.geom_rbound[ids], plain.model.geom_rbound[ids] / 2)
    plain.reset(seed=0)
    plain.set_state(env.data.qpos, env.data.qvel)
    env.set_state(env.data.qpos, env.data.qvel)
    assert np.array_equal(env.data.geom_xpos, plain.data.geom_xpos)
    others = [i for i in range(env.model.ngeom) if i not in ids]
    assert np.array_equal(env.model.geom_size[others], plain.model.geom_size[others])
    assert np.array_equal(env.model.body_mass, plain.model.body_mass)


def test_the_held_out_leg_and_joint_come_with_trainings() -> None:
    for env_id, held_out, n in (
        ("M3PO/AntCrippledLeg-v0", 3.0, 4), ("M3PO/HalfCheetahDisabledJoint-v0", 0.0, 6),
    ):  # fmt: skip
        env = body(env_id, split="ood", schedule="recurrent")
        assert len(env.tasks) == n
        assert {episode.task for episode in env.episodes} == {(held_out,)}
        env.reset(options={"episode": 0})
        assert env.changes[0].task.params != (held_out,)
        assert env.changes[1].task.params == (held_out,)


def test_the_pier_is_the_one_of_the_source() -> None:
    env = body("M3PO/HalfCheetahPier-v0", schedule="static")
    damping = tuple(float(i) for i in range(8))
    env.reset(seed=0, options={"task": damping})
    model = env.model
    assert model.body_mass.sum() == pytest.approx(14.0)
    blocks = [model.geom(f"block_{i}") for i in range(len(BLOCKS))]
    masses = [model.body_mass[block.bodyid[0]] for block in blocks]
    assert masses == pytest.approx([1.384] * 8, abs=2e-3)
    ends = [(block_x - half, block_x + half) for block_x, half in BLOCKS]
    gaps = [right[0] - left[1] for left, right in itertools.pairwise(ends)]
    assert gaps == pytest.approx([0.002] * 7)
    assert tuple(model.dof_damping[N_POSITIONS:]) == damping
    assert env.dt == pytest.approx(0.05)
    env.step(np.zeros(6))
    touched = {model.geom(i).name for pair in env.data.contact.geom for i in pair}
    assert "block_1" in touched
    assert "floor" not in touched


def test_blocks_without_a_cheetah_on_them_rest() -> None:
    env = body("M3PO/HalfCheetahPier-v0", schedule="static")
    env.reset(seed=0)
    before = env.data.qpos[N_POSITIONS:].copy()
    for _ in range(20):
        env.step(np.zeros(6))
    far = [0, *range(3, 8)]
    assert np.allclose(env.data.qpos[N_POSITIONS:][far], before[far], atol=1e-3)
    assert env.data.qpos[N_POSITIONS + 1] < before[1] - 0.05


@pytest.mark.parametrize(
    ("env_id", "bodies"),
    [
        ("M3PO/Walker2dRandomParams-v0", WALKER_BODIES),
        ("M3PO/HopperRandomParams-v0", HOPPER_BODIES),
    ],
)
def test_every_entry_that_is_not_zero_has_its_own_exponent(env_id: str, bodies: Any) -> None:
    env = body(env_id, schedule="static")
    nominal = {name: field.copy() for name, field in env._fields.nominal.items()}
    n = len(entries(bodies))
    exponents = np.linspace(-3, 3, n)
    env.reset(seed=0, options={"task": tuple(exponents)})
    found = []
    for name, base in BASES.items():
        field = getattr(env.model, name)
        varies = nominal[name] != 0
        assert np.array_equal(field[~varies], nominal[name][~varies])
        found.extend(np.log(field[varies] / nominal[name][varies]) / math.log(base))
    assert np.allclose(np.sort(found), exponents)
    total = env.model.body_mass.sum()
    assert env.model.body_subtreemass[0] == pytest.approx(total)


def test_long_observations_are_gymnasiums() -> None:
    assert body("M3PO/AntFwdBwd-v0", observation="long").observation_space.shape == (105,)
    assert body("M3PO/HumanoidDirection-v0", observation="long").observation_space.shape == (348,)
    assert body("M3PO/AntFwdBwd-v0").observation_space.shape == (27,)
    assert body("M3PO/HumanoidDirection-v0").observation_space.shape == (45,)
    with pytest.raises(ValueError, match="nearest: long"):
        body("M3PO/AntFwdBwd-v0", observation="lnog")


def test_the_humanoid_has_time_to_walk_before_its_task_changes() -> None:
    env = gym.make("M3PO/HumanoidDirection-v0")
    base: Any = env.unwrapped
    assert env.spec is not None
    assert env.spec.max_episode_steps == base.horizon == 1000
    assert base.schedule == Hazard(0.002)
    env.reset(seed=0, options={"schedule": "periodic"})
    assert base.schedule == Periodic(250)
    env.reset(seed=0, options={"schedule": {"name": "hazard", "rate": 0.5}})
    assert base.schedule == Hazard(0.5)
    changes = 0
    for seed in range(100):
        env.reset(options={"schedule": "compound", "change_seed": seed})
        changes += len(base.changes)
    assert changes == pytest.approx(200, abs=50)
    assert gym.make("M3PO/AntDirection-v0").unwrapped.schedule == Hazard(0.01)  # type: ignore[attr-defined]
