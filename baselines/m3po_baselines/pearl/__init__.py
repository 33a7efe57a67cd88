"""PEARL: soft actor-critic given a belief about the task (Rakelly et al. 2019)."""

from __future__ import annotations

from typing import Any

from m3po_bench.registry import AgentSpec

_PRESETS: dict[str, dict[str, Any]] = {
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

AGENTS = (
    AgentSpec(
        "PEARL",
        "m3po_baselines.pearl.pearl:PEARL",
        _PRESETS,
        privileges=("chooses its training tasks",),
        paper="Rakelly et al. 2019, arXiv 1903.08254",
        learning_only=("critics.", "critic_targets.", "log_alpha"),
    ),
)
