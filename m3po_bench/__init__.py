"""A Gymnasium-compatible benchmark suite for non-stationary meta-reinforcement learning.

Importing it registers every ``M3PO/*`` environment and every agent by string; torch and mujoco
are imported only when one of them is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import m3po_baselines
import m3po_envs
from m3po_bench.registry import agent_names, load_plugins, make_agent, register_agent

if TYPE_CHECKING:
    from m3po_bench.m3po.m3po import M3PO

__version__ = "0.1.0"
__all__ = ["M3PO", "__version__", "agent_names", "make_agent", "register_agent"]


def __getattr__(name: str) -> Any:
    if name == "M3PO":
        from m3po_bench.m3po.m3po import M3PO

        return M3PO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


m3po_envs.register()
m3po_baselines.register()
load_plugins()
