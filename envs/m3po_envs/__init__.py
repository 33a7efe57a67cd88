"""Non-stationary meta-RL environments, registered as ``M3PO/*``.

Only strings are registered here: mujoco is imported when an env that needs it is made.
"""

from __future__ import annotations

from gymnasium.envs.registration import WrapperSpec, registry
from gymnasium.envs.registration import register as register_id

HORIZON = 200
"""Steps of an episode unless an id says otherwise."""

ENTRY_POINTS = {
    "M3PO/PointFwdBwd-v0": "m3po_envs.point:PointFwdBwdEnv",
    "M3PO/PointActuatorFault-v0": "m3po_envs.point_fault:PointActuatorFaultEnv",
    "M3PO/PendulumRandomParams-v0": "m3po_envs.pendulum:PendulumRandomParamsEnv",
    "M3PO/HalfCheetahFwdBwd-v0": "m3po_envs.half_cheetah:HalfCheetahFwdBwdEnv",
    "M3PO/HalfCheetahVelocity-v0": "m3po_envs.half_cheetah:HalfCheetahVelocityEnv",
    "M3PO/HalfCheetahDisabledJoint-v0": "m3po_envs.half_cheetah:HalfCheetahDisabledJointEnv",
    "M3PO/HalfCheetahPier-v0": "m3po_envs.pier:HalfCheetahPierEnv",
    "M3PO/AntFwdBwd-v0": "m3po_envs.ant:AntFwdBwdEnv",
    "M3PO/AntDirection-v0": "m3po_envs.ant:AntDirectionEnv",
    "M3PO/AntCrippledLeg-v0": "m3po_envs.ant:AntCrippledLegEnv",
    "M3PO/Walker2dRandomParams-v0": "m3po_envs.random_params:Walker2dRandomParamsEnv",
    "M3PO/HopperRandomParams-v0": "m3po_envs.random_params:HopperRandomParamsEnv",
    "M3PO/HumanoidDirection-v0": "m3po_envs.humanoid:HumanoidDirectionEnv",
}
HORIZONS = {
    "M3PO/PointFwdBwd-v0": 100,
    "M3PO/PointActuatorFault-v0": 100,
    "M3PO/HumanoidDirection-v0": 1000,
}


def register() -> None:
    """Register every id of this package with Gymnasium; registered ones are left alone."""
    for env_id, entry_point in ENTRY_POINTS.items():
        if env_id not in registry:
            register_id(
                env_id,
                entry_point=entry_point,
                max_episode_steps=HORIZONS.get(env_id, HORIZON),
                additional_wrappers=(
                    WrapperSpec(
                        "PreviousActionReward", "m3po_bench.wrappers:PreviousActionReward", {}
                    ),
                ),
            )
