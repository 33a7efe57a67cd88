"""RL2: a recurrent policy that learns within trials of several episodes."""

from __future__ import annotations

from typing import Any

from m3po_bench.registry import AgentSpec

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
_VALUES = ("lstm_critic.", "mlp_extractor.value_net.", "value_net.")
_RL2_ENVS = {"default": 100, "lite": 50, "quick": 10, "tiny": 1}

AGENTS = (
    AgentSpec(
        "RL2",
        "m3po_baselines.rl2.rl2:RL2",
        {
            preset: {**_RECURRENT_PPO.get(preset, {}), "n_envs": n_envs, "device": "cpu"}
            for preset, n_envs in _RL2_ENVS.items()
        },
        paper="Duan et al. 2016, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763",
        learning_only=_VALUES,
    ),
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
        learning_only=_VALUES,
    ),
)
