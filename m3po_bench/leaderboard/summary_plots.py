"""All agents at a glance: who is good where, how reliably, and how far their models may be trusted.

What a figure has no rows for is not drawn: each function then returns None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.typing import NDArray

from m3po_bench.images import as_png
from m3po_bench.leaderboard.plots import MARKED, of_agents, panels, seeds_and_mean
from m3po_bench.leaderboard.statistics import performance_profile
from m3po_bench.registry import short_name

Strata = Mapping[str, Sequence[NDArray[np.float64]]]


def score_map(table: pd.DataFrame) -> bytes | None:
    """Scores of agents (rows) on envs (columns), best agent on top; from two agents on.

    Args:
        table: Rows of one schedule, setting and split, from ``aggregate.leaderboard``.
    """
    known = table.dropna(subset=["score"])
    if known["agent"].nunique() < 2:
        return None
    scores = known.assign(env=known["env"].map(short_name)).pivot_table("score", "agent", "env")
    scores = scores.loc[scores.mean(axis=1).sort_values(ascending=False).index]
    figure, (ax,) = panels(1, 1, {}, size=(1.6 * scores.shape[1] + 2.6, 0.5 * len(scores) + 1.6))
    sns.heatmap(
        scores, ax=ax, annot=True, fmt=".2f", cmap="viridis", vmin=0.0,
        vmax=max(1.0, float(known["score"].max())), cbar_kws={"label": "score"},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.grid(False)  # which would mark the cells that are empty
    ax.tick_params(axis="x", rotation=20)
    ax.tick_params(axis="y", rotation=0)
    return as_png(figure)


def performance_profiles(strata: Strata, colours: Mapping[str, Any]) -> bytes | None:
    """Share of runs (env x seed) of each agent with a score above each threshold.

    Args:
        strata: Scores by agent, one array over seeds for each env; from two envs on.
        colours: From ``plots.agent_colours``.
    """
    shown = {agent: scores for agent, scores in strata.items() if len(scores) > 1}
    if not shown:
        return None
    top = max(float(np.concatenate(scores).max()) for scores in shown.values())
    thresholds = np.linspace(0.0, max(1.0, top), 201)
    figure, (ax,) = panels(1, 1, of_agents(colours, shown))
    for agent, scores in shown.items():
        shares = performance_profile(scores, thresholds)
        ax.step(thresholds, shares, where="post", color=colours[str(agent)], linewidth=2.2)
    ax.set(xlabel="score, in all envs that an agent has scores on", ylim=(-0.02, 1.02))
    ax.set_ylabel("share of runs with a larger score")
    return as_png(figure)


def model_errors(measures: pd.DataFrame, colours: Mapping[str, Any]) -> bytes | None:
    """Open-loop error of agents' models against the length of a rollout, a row for each env.

    Args:
        measures: From ``aggregate.measures_of``; agents without a model have no such columns.
        colours: From ``plots.agent_colours``.
    """
    kinds = {"obs": "observations", "reward": "rewards"}
    names = re.compile(r"model/(obs|reward)_error_h(\d+)")
    columns = {c: found for c in measures.columns if (found := names.fullmatch(str(c)))}
    if not columns:
        return None
    named = ["env", "schedule", "agent", "seed"]
    long = measures.melt(named, list(columns), "measure", "error").dropna(subset=["error"])
    long["steps"] = long["measure"].map(lambda name: int(columns[name][2]))
    long["kind"] = long["measure"].map(lambda name: columns[name][1])
    lengths = sorted(long["steps"].unique())
    settings = list(long.groupby(["env", "schedule"], sort=False))
    figure, axes = panels(2 * len(settings), 2, of_agents(colours, long["agent"]))
    for i, ((env, schedule), group) in enumerate(settings):
        for ax, (kind, label) in zip(axes[2 * i : 2 * i + 2], kinds.items(), strict=True):
            part = group[group["kind"] == kind]
            for agent, curves in part.groupby("agent", sort=False):
                seeds_and_mean(ax, curves, "steps", "error", color=colours[str(agent)], **MARKED)
            ax.set(xscale="log", yscale="log", xlabel="steps of an open-loop rollout")
            ax.minorticks_off()  # which take longer to lay out than all the rest to draw
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.set(title=f"{short_name(str(env))}, {schedule}", ylabel=f"error of {label}")
    return as_png(figure)
