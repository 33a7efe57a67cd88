"""Baselines and references with SB3's face, registered by string; no agent is imported here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3po_baselines.ghp_mdp.ghp_mdp import GHPMDP
    from m3po_baselines.learning_to_adapt.grbal import GrBAL
    from m3po_baselines.learning_to_adapt.rebal import ReBAL
    from m3po_baselines.references import (
        MemorylessSAC,
        OracleSAC,
        PreviousRewardSAC,
        RandomAgent,
    )

_CLASSES = {
    "GHPMDP": "m3po_baselines.ghp_mdp.ghp_mdp",
    "GrBAL": "m3po_baselines.learning_to_adapt.grbal",
    "MemorylessSAC": "m3po_baselines.references",
    "OracleSAC": "m3po_baselines.references",
    "PreviousRewardSAC": "m3po_baselines.references",
    "RandomAgent": "m3po_baselines.references",
    "ReBAL": "m3po_baselines.learning_to_adapt.rebal",
}
__all__ = [
    "GHPMDP",
    "GrBAL",
    "MemorylessSAC",
    "OracleSAC",
    "PreviousRewardSAC",
    "RandomAgent",
    "ReBAL",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_SAC_PAPER = "Haarnoja et al. 2018, arXiv 1812.05905"
_SMALL_SAC = {
    # Rate, discount, temperature and batch of M3PO's preset, so that only the method differs.
    "quick": {
        "learning_rate": 1e-3,
        "gamma": 0.97,
        "ent_coef": "auto_0.1",
        "batch_size": 128,
        "learning_starts": 300,
        "policy_kwargs": {"net_arch": [64, 64]},
    },
    "tiny": {"policy_kwargs": {"net_arch": [16, 16]}, "learning_starts": 50, "batch_size": 16},
}
_L2A_PAPER = "Nagabandi et al. 2019, arXiv 1803.11347"
_CEM = {"planner": "cem", "planner_kwargs": {"candidates": 100, "horizon": 10, "iterations": 5}}
_SMALL_MPC: dict[str, Any] = {
    "learning_starts": 300,
    "fit_every": 150,
    "max_epochs": 60,
    "exploration": 0.03,
    "planner": "cem",
    "planner_kwargs": {"candidates": 50, "horizon": 6, "iterations": 3},
}
_TINY_MPC: dict[str, Any] = {
    "learning_starts": 50,
    "fit_every": 50,
    "batch_size": 4,
    "max_epochs": 3,
    "planner_kwargs": {"candidates": 10, "horizon": 3},
}
_GRBAL: dict[str, dict[str, Any]] = {
    "lite": {
        **_CEM,
        "learning_starts": 1000,
        "fit_every": 1000,
        "exploration": 0.01,
        "inner_learning_rate": 0.03,
        "policy_kwargs": {"hidden": [256, 256, 256], "reward_hidden": [128, 128]},
    },
    "quick": {
        **_SMALL_MPC,
        "inner_learning_rate": 0.1,
        "policy_kwargs": {"hidden": [64, 64], "reward_hidden": [64, 64]},
    },
    "tiny": {
        **_TINY_MPC,
        "support": 4,
        "query": 4,
        "policy_kwargs": {"hidden": [16], "reward_hidden": [16]},
    },
}
_GHP_MDP: dict[str, dict[str, Any]] = {
    "default": {"fit_every": 1000, "learning_starts": 1000},
    "lite": {
        **_CEM,
        "exploration": 0.01,
        "support": 50,
        "policy_kwargs": {"ensemble_size": 3},
    },
    "quick": {
        **_SMALL_MPC,
        "support": 16,
        "policy_kwargs": {
            "ensemble_size": 3, "hidden": [64, 64], "reward_hidden": [64, 64],
            "encoder_hidden": [32, 32],
        },
    },
    "tiny": {
        **_TINY_MPC,
        "planner_kwargs": {"candidates": 10, "horizon": 3, "iterations": 1},
        "support": 4,
        "query": 4,
        "policy_kwargs": {
            "latent_dim": 2, "ensemble_size": 2, "hidden": [16], "reward_hidden": [16],
            "encoder_hidden": [16],
        },
    },
}  # fmt: skip
_REBAL: dict[str, dict[str, Any]] = {
    "default": {"learning_rate": 1e-2, "max_epochs": 50},
    "lite": {
        **_CEM,
        "learning_rate": 3e-3,
        "learning_starts": 1000,
        "fit_every": 1000,
        "exploration": 0.01,
        "policy_kwargs": {
            "hidden": [256, 256, 256], "reward_hidden": [128, 128], "state_dim": 64,
        },
    },
    "quick": {
        **_SMALL_MPC,
        "learning_rate": 3e-3,
        "policy_kwargs": {
            "hidden": [64, 64], "reward_hidden": [64, 64], "state_dim": 16, "embedding": 32,
        },
    },
    "tiny": {
        **_TINY_MPC,
        "policy_kwargs": {
            "hidden": [16], "reward_hidden": [16], "state_dim": 4, "embedding": 8,
        },
    },
}  # fmt: skip


def register() -> None:
    """Register every agent of this package by name."""
    from m3po_bench.registry import AgentSpec, register_agent

    references = "m3po_baselines.references"
    for name, cls in (("SAC", "MemorylessSAC"), ("SAC-PrevReward", "PreviousRewardSAC")):
        register_agent(AgentSpec(name, f"{references}:{cls}", _SMALL_SAC, paper=_SAC_PAPER))
    register_agent(
        AgentSpec(
            "Oracle",
            f"{references}:OracleSAC",
            _SMALL_SAC,
            env_kwargs={"visibility": "oracle"},
            privileges=("sees the task",),
            paper=_SAC_PAPER,
        )
    )
    register_agent(AgentSpec("Random", f"{references}:RandomAgent"))
    _register_adaptive_mpc()


def _register_adaptive_mpc() -> None:
    from m3po_bench.registry import AgentSpec, register_agent

    grbal = "m3po_baselines.learning_to_adapt.grbal:GrBAL"
    rebal = "m3po_baselines.learning_to_adapt.rebal:ReBAL"

    def with_default(**kwargs: Any) -> dict[str, dict[str, Any]]:
        return {**_GRBAL, "default": kwargs}

    register_agent(AgentSpec("GrBAL", grbal, _GRBAL, paper=_L2A_PAPER))
    register_agent(AgentSpec("ReBAL", rebal, _REBAL, paper=_L2A_PAPER))
    register_agent(AgentSpec("MPC", grbal, with_default(adapt=False), paper=_L2A_PAPER))
    register_agent(
        AgentSpec(
            "GrBAL-EnvReward",
            grbal,
            with_default(reward_source="env"),
            env_kwargs={"visibility": "oracle"},
            privileges=("knows the reward function and the task it depends on",),
            paper=_L2A_PAPER,
        )
    )
    ghp_mdp = "m3po_baselines.ghp_mdp.ghp_mdp:GHPMDP"
    paper = "Perez et al. 2020, arXiv 2002.03072"
    register_agent(AgentSpec("GHP-MDP", ghp_mdp, _GHP_MDP, paper=paper))
