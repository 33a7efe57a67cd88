"""What happens after a change of the task: rewards by age, and how soon they are back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from m3po_bench.images import as_png
from m3po_bench.leaderboard.entry_metrics import RECOVERY_HORIZON
from m3po_bench.leaderboard.metrics import recovery_times, survival
from m3po_bench.leaderboard.plots import evenly, of_agents, panels, seeds_and_mean
from m3po_bench.leaderboard.references import References
from m3po_bench.registry import short_name


def recovery_curves(
    ages: pd.DataFrame,
    changes: pd.DataFrame,
    references: References,
    colours: Mapping[str, Any],
) -> bytes:
    """For each env: reward by the time since a change, share not yet recovered, regret.

    Args:
        ages: ``BY_AGE`` of all runs of one schedule, from ``traces.load_table``.
        changes: ``CHANGES`` of the same runs.
        references: Random and oracle are drawn as dashed lines.
        colours: From ``plots.agent_colours``.

    Returns:
        A PNG image: on the left means over seeds (``plots.seeds_and_mean``); in the middle the
        Kaplan-Meier estimate over all changes and seeds; on the right a dot for each seed. The
        rewards alone where no env has references to measure the others against.
    """
    envs, measured = sorted(ages["env"].unique()), bool(changes["recovery"].notna().any())
    shown = of_agents(colours, ages["agent"])
    if measured:
        figure, axes = panels(3 * len(envs), 3, shown)
    else:
        figure, axes = panels(len(envs), evenly(len(envs), 3), shown)
    for i, env in enumerate(envs):
        left, *others = axes[3 * i : 3 * i + 3] if measured else axes[i : i + 1]
        _rewards(left, ages[ages["env"] == env], references, colours)
        left.set_title(short_name(env))
        of_env = changes[(changes["env"] == env) & changes["recovery"].notna()]
        for draw, ax in zip((_not_recovered, _regrets), others, strict=False):
            if len(of_env):
                draw(ax, of_env, of_agents(colours, of_env["agent"]))
                ax.set_title(short_name(env))
            else:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "not measured against an oracle", color="#666666",
                        ha="center", va="center", transform=ax.transAxes)  # fmt: skip
    return as_png(figure)


def _rewards(
    ax: Axes, ages: pd.DataFrame, references: References, colours: Mapping[str, Any]
) -> None:
    for agent, group in ages.groupby("agent", sort=False):
        seeds_and_mean(ax, group, "age", "reward", color=colours[str(agent)])
    known = references.get((ages["env"].iloc[0], ages["schedule"].iloc[0]), {})
    for role, grey in (("oracle", "#444444"), ("random", "#999999")):
        if role in known and known[role].by_age:
            ax.plot(known[role].by_age, color=grey, linestyle="--", linewidth=1.2, label=role)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, loc="best", framealpha=0.5)
    ax.set(xlabel="env steps since the change", ylabel="mean reward")


def _not_recovered(ax: Axes, changes: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    times = np.arange(RECOVERY_HORIZON + 1)
    for agent, group in changes.groupby("agent", sort=False):
        left = survival(recovery_times(group["recovery"], group["recovered"]), times)
        ax.step(times, left, where="post", color=colours[str(agent)], linewidth=2.2)
    ax.set(
        xlabel="env steps since the change", ylabel="share not yet recovered", ylim=(-0.02, 1.02)
    )


def _regrets(ax: Axes, changes: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    means = changes.groupby(["agent", "seed"], sort=False)["regret"].mean().reset_index()
    sns.stripplot(means, x="regret", y="agent", hue="agent", palette=colours, order=list(colours),
                  ax=ax, jitter=False, legend=False)  # fmt: skip
    ax.set(xlabel="regret of a change (reward)", ylabel="")
