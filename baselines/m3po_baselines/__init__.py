"""Baselines and references with SB3's face, registered by string; no agent is imported here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3po_baselines.maml.maml import MAML
    from m3po_baselines.maml.promp import ProMP
    from m3po_baselines.references import (
        MemorylessSAC,
        OracleSAC,
        PreviousRewardSAC,
        RandomAgent,
    )
    from m3po_baselines.rl2.rl2 import RL2

_CLASSES = {
    "MAML": "m3po_baselines.maml.maml",
    "MemorylessSAC": "m3po_baselines.references",
    "OracleSAC": "m3po_baselines.references",
    "PreviousRewardSAC": "m3po_baselines.references",
    "ProMP": "m3po_baselines.maml.promp",
    "RL2": "m3po_baselines.rl2.rl2",
    "RandomAgent": "m3po_baselines.references",
}
__all__ = [
    "MAML", "RL2", "MemorylessSAC", "OracleSAC", "PreviousRewardSAC", "ProMP", "RandomAgent",
    "register",
]  # fmt: skip


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
_META_POLICY_GRADIENT: dict[str, dict[str, Any]] = {
    # For few steps: phases that are part of an episode, larger inner steps, less noisy advantages,
    # and a deviation that lasts, since adaptation lives on it.
    "lite": {
        "n_tasks": 10, "n_steps": 100, "n_envs": 10, "inner_learning_rate": 0.5,
        "gae_lambda": 0.7, "baseline_ridge": 1.0, "adapt_every": 50, "adapt_window": 200,
        "policy_kwargs": {
            "net_arch": [100, 100], "activation": "relu", "min_std": 0.3, "action_scale": 1.0,
        },
    },
    "quick": {
        "n_tasks": 10, "n_steps": 25, "n_envs": 10, "inner_learning_rate": 1.0,
        "gae_lambda": 0.7, "baseline_ridge": 1.0, "adapt_every": 25, "adapt_window": 100,
        "policy_kwargs": {
            "net_arch": [100, 100], "activation": "relu", "min_std": 0.3, "action_scale": 1.0,
        },
    },
    "tiny": {
        "n_tasks": 2, "n_steps": 25, "n_envs": 1, "adapt_every": 10, "adapt_window": 20,
        "policy_kwargs": {"net_arch": [8]},
    },
}  # fmt: skip
_RECURRENT_PPO: dict[str, dict[str, Any]] = {
    # Short rollouts of many envs: an update of an LSTM takes as long as its longest sequence.
    "lite": {
        "learning_rate": 1e-3, "n_steps": 40, "batch_size": 1000, "n_epochs": 10,
        "gamma": 0.97, "gae_lambda": 0.9,
        "policy_kwargs": {"lstm_hidden_size": 64, "log_std_init": -0.5},
    },
    "quick": {
        "learning_rate": 3e-3, "n_steps": 25, "batch_size": 250, "n_epochs": 10,
        "gamma": 0.97, "gae_lambda": 0.9,
        "policy_kwargs": {"lstm_hidden_size": 64, "log_std_init": -0.5},
    },
    "tiny": {
        "n_steps": 10, "batch_size": 10, "n_epochs": 1,
        "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]},
    },
}  # fmt: skip
_RL2_ENVS = {"default": 100, "lite": 50, "quick": 10, "tiny": 1}


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
    for name, module, paper in (
        ("MAML", "maml", "Finn et al. 2017, arXiv 1703.03400"),
        ("ProMP", "promp", "Rothfuss et al. 2019, arXiv 1810.06784"),
    ):
        register_agent(
            AgentSpec(
                name,
                f"m3po_baselines.maml.{module}:{name}",
                _META_POLICY_GRADIENT,
                privileges=("chooses the training task",),
                paper=paper,
            )
        )
    register_agent(
        AgentSpec(
            "RL2",
            "m3po_baselines.rl2.rl2:RL2",
            {
                preset: {**_RECURRENT_PPO.get(preset, {}), "n_envs": n_envs, "device": "cpu"}
                for preset, n_envs in _RL2_ENVS.items()
            },
            paper="Duan et al. 2016, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763",
        )
    )
    register_agent(
        AgentSpec(
            "RecurrentPPO",
            "sb3_contrib:RecurrentPPO",
            {
                "default": {"policy": "MlpLstmPolicy", "device": "cpu"},
                # In its one env as many steps a rollout as RL2 takes in all of its own.
                "lite": {**_RECURRENT_PPO["lite"], "n_steps": 2000},
                "quick": {**_RECURRENT_PPO["quick"], "n_steps": 250},
                "tiny": _RECURRENT_PPO["tiny"],
            },
            paper="Schulman et al. 2017, arXiv 1707.06347, with an LSTM",
        )
    )
