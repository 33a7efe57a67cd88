"""Model-based control with a model that adapts while it acts (Nagabandi et al. 2019)."""

from __future__ import annotations

from typing import Any

from m3po_bench.registry import AgentSpec

_PAPER = "Nagabandi et al. 2019, arXiv 1803.11347"
CEM = {"planner": "cem", "planner_kwargs": {"candidates": 100, "horizon": 10, "iterations": 5}}
SMALL_MPC: dict[str, Any] = {
    "learning_starts": 300,
    "fit_every": 150,
    "max_epochs": 60,
    "exploration": 0.03,
    "planner": "cem",
    "planner_kwargs": {"candidates": 50, "horizon": 6, "iterations": 3},
}
TINY_MPC: dict[str, Any] = {
    "learning_starts": 50,
    "fit_every": 50,
    "batch_size": 4,
    "max_epochs": 3,
    "planner_kwargs": {"candidates": 10, "horizon": 3},
}
_GRBAL: dict[str, dict[str, Any]] = {
    "lite": {
        **CEM,
        "learning_rate": 2e-3,
        "learning_starts": 1000,
        "fit_every": 1000,
        "exploration": 0.01,
        "inner_learning_rate": 0.03,
        "policy_kwargs": {"hidden": [256, 256, 256], "reward_hidden": [128, 128], "context": 32},
    },
    "quick": {
        **SMALL_MPC,
        "inner_learning_rate": 0.1,
        "policy_kwargs": {"hidden": [64, 64], "reward_hidden": [64, 64]},
    },
    "tiny": {
        **TINY_MPC,
        "support": 4,
        "query": 4,
        "policy_kwargs": {"hidden": [16], "reward_hidden": [16]},
    },
}
_REBAL: dict[str, dict[str, Any]] = {
    "default": {"learning_rate": 1e-2, "max_epochs": 50},
    "lite": {
        **CEM,
        "learning_rate": 3e-3,
        "learning_starts": 1000,
        "fit_every": 1000,
        "exploration": 0.01,
        "policy_kwargs": {
            "hidden": [256, 256, 256], "reward_hidden": [128, 128], "state_dim": 64,
        },
    },
    "quick": {
        **SMALL_MPC,
        "learning_rate": 3e-3,
        "policy_kwargs": {
            "hidden": [64, 64], "reward_hidden": [64, 64], "state_dim": 16, "embedding": 32,
        },
    },
    "tiny": {
        **TINY_MPC,
        "policy_kwargs": {
            "hidden": [16], "reward_hidden": [16], "state_dim": 4, "embedding": 8,
        },
    },
}  # fmt: skip

_GRBAL_CLASS = "m3po_baselines.learning_to_adapt.grbal:GrBAL"
AGENTS = (
    AgentSpec("GrBAL", _GRBAL_CLASS, _GRBAL, paper=_PAPER),
    AgentSpec("ReBAL", "m3po_baselines.learning_to_adapt.rebal:ReBAL", _REBAL, paper=_PAPER),
    AgentSpec("MPC", _GRBAL_CLASS, {**_GRBAL, "default": {"adapt": False}}, paper=_PAPER),
    AgentSpec(
        "GrBAL-EnvReward",
        _GRBAL_CLASS,
        {**_GRBAL, "default": {"reward_source": "env"}},
        env_kwargs={"visibility": "oracle"},
        privileges=("knows the reward function and the task it depends on",),
        paper=_PAPER,
    ),
)
