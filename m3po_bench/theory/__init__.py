"""Performance bounds of branched rollouts, and exact tabular processes to hold them against.

``bounds`` states them, ``tabular`` and ``hidden_tasks`` compute exactly what they speak of,
``cases`` draws random and worst cases, ``figures`` tabulates and draws, ``measured`` lays the
bounds beside what trained agents have measured; docs/theory.md proves.
"""

from m3po_bench.theory.bounds import (
    BestRollout,
    best_rollout_length,
    branched_bound,
    branched_bound_current_policy,
    conjectured_branched_bound,
    full_rollout_bound,
    mbpo_4_2,
    mbpo_4_3,
    shifted_model_error,
)
from m3po_bench.theory.hidden_tasks import HiddenTaskPOMDP, unroll, windows
from m3po_bench.theory.measured import gap_figure, gap_table
from m3po_bench.theory.tabular import Case, Measurement, Process, measure

__all__ = [
    "BestRollout",
    "Case",
    "HiddenTaskPOMDP",
    "Measurement",
    "Process",
    "best_rollout_length",
    "branched_bound",
    "branched_bound_current_policy",
    "conjectured_branched_bound",
    "full_rollout_bound",
    "gap_figure",
    "gap_table",
    "mbpo_4_2",
    "mbpo_4_3",
    "measure",
    "shifted_model_error",
    "unroll",
    "windows",
]
