"""Baselines and references with SB3's face, registered by string; no agent is imported here.

A family of agents is a package; its ``AGENTS`` name its classes, presets and papers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3po_baselines.ghp_mdp.ghp_mdp import GHPMDP
    from m3po_baselines.learning_to_adapt.grbal import GrBAL
    from m3po_baselines.learning_to_adapt.rebal import ReBAL
    from m3po_baselines.maml.maml import MAML
    from m3po_baselines.maml.promp import ProMP
    from m3po_baselines.pearl.pearl import PEARL
    from m3po_baselines.references import (
        MemorylessSAC,
        OracleSAC,
        PreviousRewardSAC,
        RandomAgent,
    )
    from m3po_baselines.rl2.rl2 import RL2

_CLASSES = {
    "GHPMDP": "m3po_baselines.ghp_mdp.ghp_mdp",
    "GrBAL": "m3po_baselines.learning_to_adapt.grbal",
    "MAML": "m3po_baselines.maml.maml",
    "MemorylessSAC": "m3po_baselines.references",
    "PEARL": "m3po_baselines.pearl.pearl",
    "OracleSAC": "m3po_baselines.references",
    "PreviousRewardSAC": "m3po_baselines.references",
    "ProMP": "m3po_baselines.maml.promp",
    "RL2": "m3po_baselines.rl2.rl2",
    "RandomAgent": "m3po_baselines.references",
    "ReBAL": "m3po_baselines.learning_to_adapt.rebal",
}
__all__ = [
    "GHPMDP", "MAML", "PEARL", "RL2", "GrBAL", "MemorylessSAC", "OracleSAC", "PreviousRewardSAC",
    "ProMP", "RandomAgent", "ReBAL", "register",
]  # fmt: skip
_FAMILIES = ("pearl", "maml", "rl2", "learning_to_adapt", "ghp_mdp")


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_SAC_PAPER = "Haarnoja et al. 2018, arXiv 1812.05905"
_SAC_CRITICS = ("critic.", "critic_target.")
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


def register() -> None:
    """Register every agent of this package by name."""
    from m3po_bench.registry import AgentSpec, register_agent

    references = "m3po_baselines.references"
    for name, cls in (("SAC", "MemorylessSAC"), ("SAC-PrevReward", "PreviousRewardSAC")):
        register_agent(
            AgentSpec(
                name,
                f"{references}:{cls}",
                _SMALL_SAC,
                paper=_SAC_PAPER,
                learning_only=_SAC_CRITICS,
            )
        )
    register_agent(
        AgentSpec(
            "Oracle",
            f"{references}:OracleSAC",
            _SMALL_SAC,
            env_kwargs={"visibility": "oracle"},
            privileges=("sees the task",),
            paper=_SAC_PAPER,
            learning_only=_SAC_CRITICS,
        )
    )
    register_agent(AgentSpec("Random", f"{references}:RandomAgent"))
    for family in _FAMILIES:
        for spec in import_module(f"m3po_baselines.{family}").AGENTS:
            register_agent(spec)


# Last, because m3po_bench registers the agents of this package when it is first imported: their
# packages must not be half imported by then, nor this one.
import m3po_bench.registry  # noqa: E402, F401
