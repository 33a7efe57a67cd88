"""Generalized hidden-parameter MDPs: control with a latent-conditioned ensemble (Perez 2020)."""

from __future__ import annotations

from typing import Any

from m3po_baselines.learning_to_adapt import CEM, SMALL_MPC, TINY_MPC
from m3po_bench.registry import AgentSpec

_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"fit_every": 1000, "learning_starts": 1000},
    "lite": {
        **CEM,
        "exploration": 0.01,
        "support": 50,
        "policy_kwargs": {"ensemble_size": 3},
    },
    "quick": {
        **SMALL_MPC,
        "support": 16,
        "policy_kwargs": {
            "ensemble_size": 3, "hidden": [64, 64], "reward_hidden": [64, 64],
            "encoder_hidden": [32, 32],
        },
    },
    "tiny": {
        **TINY_MPC,
        "planner_kwargs": {"candidates": 10, "horizon": 3, "iterations": 1},
        "support": 4,
        "query": 4,
        "policy_kwargs": {
            "latent_dim": 2, "ensemble_size": 2, "hidden": [16], "reward_hidden": [16],
            "encoder_hidden": [16],
        },
    },
}  # fmt: skip

AGENTS = (
    AgentSpec(
        "GHP-MDP",
        "m3po_baselines.ghp_mdp.ghp_mdp:GHPMDP",
        _PRESETS,
        paper="Perez et al. 2020, arXiv 2002.03072",
    ),
)
