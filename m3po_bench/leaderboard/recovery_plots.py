"""What happens after a change of the task: rewards by age, and how soon they are back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from m3po_bench.leaderboard.entry_metrics import RECOVERY_HORIZON
from m3po_bench.leaderboard.metrics import Recovery, survival
from m3po_bench.leaderboard.plots import agent_colours, as_png, panels
from m3po_bench.leaderboard.references import References
from m3po_bench.registry import short_name


def recovery_curves(ages: pd.DataFrame, changes: pd.DataFrame, references: References) -> bytes:
    """For each env: mean reward by the time since a change, and the share not yet recovered.

    Args:
        ages: ``by_age.csv`` of all runs of one schedule, from ``traces.load_table``.
        changes: ``changes.csv`` of the same runs.
        references: Random and oracle are drawn as dashed lines.

    Returns:
        A PNG image: a thin line for each seed, a thick one for their mean; on the right the
        Kaplan-Meier estimate over all changes and seeds.
    """
    envs = sorted(ages["env"].unique())
    colours = agent_colours(ages["agent"])
    figure, axes = panels(2 * len(envs), columns=2, colours=colours)
    for i, env in enumerate(envs):
        left, right = axes[2 * i], axes[2 * i + 1]
        of_env = ages[ages["env"] == env]
        for agent, group in of_env.groupby("agent", sort=False):
            _by_age(left, group, colours[str(agent)])
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
    return as_png(figure)


def _by_age(ax: Axes, table: pd.DataFrame, colour: object) -> None:
    shared = {"x": "age", "y": "reward", "color": colour, "ax": ax}
    sns.lineplot(table, units="seed", estimator=None, linewidth=0.8, alpha=0.4, **shared)
    sns.lineplot(table, errorbar=None, linewidth=2.2, **shared)


def _not_recovered(ax: Axes, changes: pd.DataFrame, colour: object) -> None:
    if not len(changes):
        return
    times = np.arange(RECOVERY_HORIZON + 1)
    watched = [
        Recovery(int(time), bool(seen))
        for time, seen in zip(changes["recovery"], changes["recovered"], strict=True)
    ]
    ax.step(times, survival(watched, times), where="post", color=colour, linewidth=2.2)
