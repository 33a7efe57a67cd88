"""Meta-policies that adapt by a gradient step: MAML with a trust region, and ProMP."""

from __future__ import annotations

from typing import Any

from m3po_bench.registry import AgentSpec

_PRESETS: dict[str, dict[str, Any]] = {
    # For fewer steps: smaller meta-batches, less noisy advantages, a deviation of 0.6 of the range
    # (MAML's published one is 1, ProMP's 0.1). The inner rate is kept, so its steps are larger.
    "lite": {
        "n_tasks": 10, "n_steps": 1000, "n_envs": 10, "inner_learning_rate": 0.1,
        "gae_lambda": 0.97, "baseline_ridge": 1.0, "adapt_every": 50, "adapt_window": 1000,
        "policy_kwargs": {
            "net_arch": [100, 100], "activation": "relu", "init_std": 0.6, "min_std": 0.3,
            "action_scale": 1.0,
        },
    },
    # For very few: phases that are part of an episode, larger inner steps, and a deviation that
    # lasts, since adaptation lives on it.
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

# Few meta-batches: twice the published outer steps on each.
_PROMP_PRESETS = {**_PRESETS, "lite": {**_PRESETS["lite"], "n_epochs": 10}}

AGENTS = tuple(
    AgentSpec(
        name,
        f"m3po_baselines.maml.{module}:{name}",
        presets,
        privileges=("chooses its training tasks",),
        paper=paper,
    )
    for name, module, presets, paper in (
        ("MAML", "maml", _PRESETS, "Finn et al. 2017, arXiv 1703.03400"),
        ("ProMP", "promp", _PROMP_PRESETS, "Rothfuss et al. 2019, arXiv 1810.06784"),
    )
)
