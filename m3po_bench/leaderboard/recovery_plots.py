"""What happens after a change of the task: rewards by age, and how soon they are back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from m3po_bench.leaderboard.entry_metrics import RECOVERY_HORIZON
from m3po_bench.leaderboard.metrics import recovery_times, survival
from m3po_bench.leaderboard.plots import as_png, of_agents, panels, seeds_and_mean
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
        A PNG image: a thin line for each seed, a thick one for their mean; in the middle the
        Kaplan-Meier estimate over all changes and seeds; on the right a dot for each seed.
    """
    envs = sorted(ages["env"].unique())
    figure, axes = panels(3 * len(envs), 3, of_agents(colours, ages["agent"]))
    for i, env in enumerate(envs):
        left, right, last = axes[3 * i : 3 * i + 3]
        of_env = ages[ages["env"] == env]
        for agent, group in of_env.groupby("agent", sort=False):
            seeds_and_mean(left, group, "age", "reward", color=colours[str(agent)])
            watched = changes[(changes["env"] == env) & (changes["agent"] == agent)]
            _not_recovered(right, watched.dropna(subset=["recovery"]), colours[str(agent)])
        known = references.get((env, of_env["schedule"].iloc[0]), {})
        for role, grey in (("oracle", "#444444"), ("random", "#999999")):
            if role in known and known[role].by_age:
                left.plot(known[role].by_age, color=grey, linestyle="--", linewidth=1.2, label=role)
        if left.get_legend_handles_labels()[0]:
            left.legend(fontsize=8, loc="lower right")
        left.set(title=short_name(env), xlabel="env steps since the change", ylabel="mean reward")
        right.set(
            title=short_name(env),
            xlabel="env steps since the change",
            ylabel="share not yet recovered",
            ylim=(-0.02, 1.02),
        )
        _regrets(last, changes[changes["env"] == env], colours)
        last.set_title(short_name(env))
        for ax in (right, last):
            if not ax.has_data():
                ax.set_axis_off()
                ax.set_title("")
                ax.text(0.5, 0.5, "no references to measure against", color="#666666",
                        ha="center", va="center", transform=ax.transAxes)  # fmt: skip
    return as_png(figure)


def _not_recovered(ax: Axes, changes: pd.DataFrame, colour: object) -> None:
    if not len(changes):
        return
    times = np.arange(RECOVERY_HORIZON + 1)
    watched = recovery_times(changes["recovery"], changes["recovered"])
    ax.step(times, survival(watched, times), where="post", color=colour, linewidth=2.2)


def _regrets(ax: Axes, changes: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    means = changes.groupby(["agent", "seed"], sort=False)["regret"].mean()
    known = means.dropna().reset_index()
    if len(known):
        sns.stripplot(known, x="agent", y="regret", hue="agent", palette=colours, ax=ax,
                      jitter=False, legend=False)  # fmt: skip
    ax.set(xlabel="", ylabel="regret of a change")
    ax.tick_params(axis="x", rotation=20)
