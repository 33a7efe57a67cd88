"""A Gymnasium-compatible benchmark suite for non-stationary meta-reinforcement learning.

Importing it registers every ``M3PO/*`` environment and every agent by string; torch and mujoco
are imported only when one of them is made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import m3po_baselines
import m3po_envs
from m3po_bench.registry import (
    AgentSpec,
    agent_names,
    load_plugins,
    make_agent,
    register_agent,
)

if TYPE_CHECKING:
    from m3po_bench.m3po.m3po import M3PO
    from m3po_bench.zoo import load_pretrained

__version__ = "0.1.0"
__all__ = [
    "M3PO", "__version__", "agent_names", "load_pretrained", "make_agent", "register_agent",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "M3PO":
        from m3po_bench.m3po.m3po import M3PO

        return M3PO
    if name == "load_pretrained":
        from m3po_bench.zoo import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_M3PO_PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "learning_rate": 1e-3,
        "gamma": 0.97,
        "ent_coef": "auto_0.1",
        "learning_starts": 300,
        "gradient_steps": 3,
        "real_ratio": 0.5,
        "rollout_length": 1,
        "rollouts_per_step": 100,
        "hindsight": False,
        "start_recency": 1.0,
        "model_learning_rate": 2e-3,
        "model_first_fit": 800,
        "model_fit_steps": 120,
        "model_windows": 32,
        "model_window_length": 10,
        "model_rows": 256,
        "policy_kwargs": {
            "net_arch": [64, 64], "state_dim": 16, "embedding": 32, "ensemble_size": 3,
            "hidden": [64, 64], "reward_hidden": [64, 64], "dynamics_beta": 1.0,
        },
    },
    "tiny": {
        "learning_starts": 50,
        "gradient_steps": 1,
        "batch_size": 16,
        "rollout_length": 1,
        "rollout_trust": 1.0,
        "rollouts_per_step": 10,
        "rollout_every": 10,
        "model_fit_every": 50,
        "model_first_fit": 10,
        "model_fit_steps": 5,
        "model_windows": 4,
        "model_window_length": 10,
        "model_rows": 16,
        "policy_kwargs": {
            "net_arch": [16, 16], "state_dim": 4, "embedding": 8, "ensemble_size": 2,
            "hidden": [16], "reward_hidden": [16],
        },
    },
}  # fmt: skip


def _register() -> None:
    m3po_envs.register()
    paper = "Hiraoka et al. 2021, arXiv 2006.02608"
    entry_point = "m3po_bench.m3po.m3po:M3PO"
    models = ("meta_model.dynamics.", "meta_model.reward.", "meta_model.termination.")
    learning_only = ("critics.", "critic_targets.", "log_alpha", *models)
    # 1: rollouts of up to 25 steps, by trust, and a discount of .97 became the class's defaults.
    # 2, and 1 of the others: the meta-model's members have no bootstrap any more.
    revisions = {"default": 2, "lite": 2, "quick": 1, "tiny": 1}
    m3po = AgentSpec(
        "M3PO",
        entry_point,
        _M3PO_PRESETS,
        paper=paper,
        learning_only=learning_only,
        revisions=revisions,
    )
    register_agent(m3po)
    register_agent(
        replace(
            m3po,
            name="M3PO-Oracle",
            entry_point="m3po_bench.m3po.oracle:M3POOracle",
            env_kwargs={"visibility": "oracle"},
            privileges=("sees the task",),
        )
    )
    memoryless = {
        preset: {**_M3PO_PRESETS.get(preset, {}), "history": False}
        for preset in ("default", "quick", "tiny")
    }
    mbpo_paper = "Janner et al. 2019, arXiv 1906.08253"
    register_agent(replace(m3po, name="MBPO", presets=memoryless, paper=mbpo_paper))
    m3po_baselines.register()
    load_plugins()


_register()
