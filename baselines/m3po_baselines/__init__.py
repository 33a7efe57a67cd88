"""Baselines and references with SB3's face, registered by string; no agent is imported here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3po_baselines.pearl.pearl import PEARL
    from m3po_baselines.references import (
        MemorylessSAC,
        OracleSAC,
        PreviousRewardSAC,
        RandomAgent,
    )

_CLASSES = {
    "PEARL": "m3po_baselines.pearl.pearl",
    "MemorylessSAC": "m3po_baselines.references",
    "OracleSAC": "m3po_baselines.references",
    "PreviousRewardSAC": "m3po_baselines.references",
    "RandomAgent": "m3po_baselines.references",
}
__all__ = ["PEARL", "MemorylessSAC", "OracleSAC", "PreviousRewardSAC", "RandomAgent", "register"]


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
_PEARL = {
    # Short budgets: small iterations, contexts of all sizes, and an encoder that may use all of a
    # task's data under the prior, or it learns to tell two data sets apart, not two tasks.
    "lite": {
        "n_train_tasks": 20,
        "initial_steps": 200,
        "tasks_per_iteration": 2,
        "prior_steps": 200,
        "posterior_steps": 200,
        "updates_per_iteration": 1600,
        "meta_batch": 16,
        "batch_size": 64,
        "context_size": (1, 128),
        "encoder_buffer_size": 20_000,
        "kl_lambda": 0.01,
    },
    "quick": {
        "learning_rate": 1e-3,
        "gamma": 0.97,
        "ent_coef": "auto_0.1",
        "n_train_tasks": 6,
        "initial_steps": 0,
        "tasks_per_iteration": 1,
        "prior_steps": 100,
        "posterior_steps": 100,
        "updates_per_iteration": 600,
        "meta_batch": 16,
        "batch_size": 16,
        "context_size": (1, 64),
        "encoder_buffer_size": 3000,
        "kl_lambda": 0.01,
        "policy_kwargs": {"net_arch": [64, 64], "encoder_arch": [64, 64]},
    },
    "tiny": {
        "initial_steps": 0,
        "tasks_per_iteration": 1,
        "prior_steps": 1,
        "posterior_steps": 0,
        "updates_per_iteration": 2,
        "meta_batch": 2,
        "batch_size": 16,
        "context_size": 16,
        "policy_kwargs": {"net_arch": [16, 16], "encoder_arch": [16], "latent_dim": 2},
    },
}


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
    register_agent(
        AgentSpec(
            "PEARL",
            "m3po_baselines.pearl.pearl:PEARL",
            _PEARL,
            privileges=("chooses its training tasks",),
            paper="Rakelly et al. 2019, arXiv 1903.08254",
        )
    )
    register_agent(AgentSpec("Random", f"{references}:RandomAgent"))
