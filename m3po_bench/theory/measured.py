"""The bounds beside what was measured: gaps of trained agents, from rows of a results folder.

Rows carry the estimates that M3PO's diagnostics make (docs/theory.md, "Beside a trained agent").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from m3po_bench.images import as_png
from m3po_bench.registry import short_name
from m3po_bench.theory.bounds import branched_bound
from m3po_bench.theory.figures import canvas

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

RUN = ["env", "schedule", "agent", "seed"]
_PREFIX, _FULL = "gap/", "full"
_NEEDED = ("eps_low", "eps_high", "gamma", "horizon", "reward_span", "rollout_length")


def gap_table(measures: pd.DataFrame) -> pd.DataFrame:
    """Measured gap and bound of every run for every rollout length.

    Args:
        measures: One row a run: its ``RUN`` columns and its diagnostics by name. Runs without
            those named ``gap/...`` are left out.

    Returns:
        ``RUN``, ``k`` (the env's longest horizon for full rollouts), ``gap`` (imagined minus real
        discounted return), ``se`` (over episodes), ``bound_low`` and ``bound_high`` (B2
        over the horizon for predicted rewards, from the lower and the upper estimate of eps_m,
        with no policy shift), ``largest`` (what no gap can exceed), ``trained_k``; rewards are
        those of the env.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for _, run in measures.iterrows():
        found = {
            str(name).removeprefix(_PREFIX): float(value)
            for name, value in run.items()
            if str(name).startswith(_PREFIX) and not math.isnan(value)
        }
        if all(name in found for name in _NEEDED):
            rows += [{**run[RUN], **entry} for entry in _entries(found)]
    columns = [*RUN, "k", "gap", "se", "bound_low", "bound_high", "largest", "trained_k"]
    table = pd.DataFrame(rows, columns=[*columns, _FULL])
    # Where episodes end early each run has a horizon of its own: full rollouts are one thing still.
    full = table[_FULL].astype(bool)
    longest = table["k"].where(full).groupby([table["env"], table["schedule"]]).transform("max")
    return table.assign(k=table["k"].where(~full, longest))[columns]


def _entries(found: Mapping[str, float]) -> list[dict[str, float]]:
    horizon, gamma = found["horizon"], found["gamma"]
    # Only the rewards' span counts, so half of it may stand for r_max.
    half = found["reward_span"] / 2.0
    lengths = {f"k{k}": float(k) for k in range(1, int(horizon) + 1)} | {_FULL: horizon}
    entries = []
    for name, k in lengths.items():
        if name not in found:
            continue
        low, high = (
            float(
                branched_bound(found[eps], 0.0, gamma, half, k, model_rewards=True, horizon=horizon)
            )
            for eps in ("eps_low", "eps_high")
        )
        entries.append(
            {
                "k": k, "gap": found[name], "se": found[f"{name}_se"],
                "bound_low": low, "bound_high": high,
                "largest": 2.0 * half * (1.0 - gamma**horizon) / (1.0 - gamma),
                "trained_k": found["rollout_length"], _FULL: name == _FULL,
            }
        )  # fmt: skip
    return entries


def gap_figure(measures: pd.DataFrame, colours: Mapping[str, Any] | None = None) -> bytes | None:
    """Bound and measured gap against k, and the return against the k that agents learnt with.

    Args:
        measures: As in ``gap_table``, with ``return``, the mean test return.
        colours: By agent; a palette's by default.

    Returns:
        A PNG image, a row of two panels for each env and schedule, or one panel where no two runs
        have learnt with different k; None where no run has measured a gap.
    """
    import seaborn as sns

    table = gap_table(measures)
    if table.empty:
        return None
    settings = list(table.groupby(["env", "schedule"]))
    compared = any(len({*group["trained_k"]}) > 1 for _, group in settings)
    columns = 2 if compared else min(2, len(settings))
    n_rows = math.ceil(len(settings) * (2 if compared else 1) / columns)
    figure, axes = canvas((5.5 * columns, 4.4 * n_rows), columns, n_rows)
    if colours is None:
        agents = list(dict.fromkeys(table["agent"]))
        colours = dict(zip(agents, sns.color_palette("colorblind", len(agents)), strict=True))
    returns = measures.set_index(RUN)["return"]
    for i, ((env, schedule), group) in enumerate(settings):
        left = axes[2 * i if compared else i]
        _gaps(left, group, colours)
        left.set_title(f"{short_name(str(env))}, {schedule}")
        if compared:
            _returns(axes[2 * i + 1], group, colours, returns)
    if not compared and len(settings) < len(axes):
        axes[-1].set_axis_off()
    return as_png(figure)


def _gaps(ax: Axes, table: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    for agent, runs in table.groupby("agent", sort=False):
        colour = colours[str(agent)]
        means = runs.assign(size=runs["gap"].abs()).groupby("k").mean(numeric_only=True)
        ax.fill_between(means.index, means["bound_low"], means["bound_high"], color=colour,
                        alpha=0.08, linewidth=0)  # fmt: skip
        ax.plot(means.index, means["bound_low"], color=colour, linestyle="--", linewidth=1.0)
        ax.plot(means.index, means["size"], color=colour, linewidth=2.0, label=str(agent))
        ax.errorbar(runs["k"], runs["gap"].abs(), yerr=runs["se"], color=colour, fmt="o",
                    markersize=4, linewidth=0.8)  # fmt: skip
    largest = table["largest"].max()
    ax.axhline(largest, color="0.4", linestyle=":", linewidth=1.4)
    ax.annotate(
        "largest possible", (0.99, largest), (0, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=8,
    )  # fmt: skip
    _length_axis(ax, table["k"], "rollout length k")
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.03 * float(np.median(table["gap"].abs())))
    ax.set_ylabel("|imagined $-$ real return|\ndots: runs; dashed, shaded: B2 by eps low to high")
    ax.legend(fontsize=8)


def _returns(
    ax: Axes, table: pd.DataFrame, colours: Mapping[str, Any], returns: pd.Series[float]
) -> None:
    runs = table.drop_duplicates(RUN)
    for agent, group in runs.groupby("agent", sort=False):
        values = returns.loc[list(group[RUN].itertuples(index=False, name=None))]
        ax.plot(group["trained_k"], values.to_numpy(), "o", color=colours[str(agent)])
    _length_axis(ax, table["k"], "rollout length k in training, at most")
    ax.set_ylabel("mean test return, a dot for each seed")


def _length_axis(ax: Axes, lengths: pd.Series[float], label: str) -> None:
    ks = sorted(lengths.unique())
    ax.set_xscale("log")
    ax.set_xticks(ks, [*(f"{k:g}" for k in ks[:-1]), _FULL])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.8 * ks[0], 1.25 * ks[-1])
    ax.set_xlabel(label)
