"""Learning curves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from m3po_bench.images import as_png
from m3po_bench.leaderboard.aggregate import INTERVAL_SEEDS, of_common_episodes
from m3po_bench.leaderboard.references import Reference, References
from m3po_bench.leaderboard.settings import ONLINE, TEST
from m3po_bench.leaderboard.statistics import student_interval
from m3po_bench.registry import agent_names, short_name

RETURN = "return"
_COLUMNS = 3
_PANEL = (4.6, 3.6)
_LEGEND_COLUMN = 1.5
"""Inches."""
_FAR = 10
"""Budgets of env steps that differ by this factor share an axis in logarithms only."""
_REFERENCES = {"oracle": "#444444", "random": "#999999"}
_REFERENCES_LAST = ("Oracle", "Random").__contains__
"""A key to sort by: as a rule these are lines of their own, and need no agent's colour."""
_PALE = (6, 8)
"""Of seaborn's palette for the colour-blind: a pink and a yellow that thin lines are lost in."""
MARKED: Mapping[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}
"""How points that were measured stand out on a mean's line."""


def learning_curves(
    rows: pd.DataFrame,
    references: References,
    seeds_asked: int,
    colours: Mapping[str, Any],
    value: str = RETURN,
) -> bytes:
    """Test return against env steps, one panel per env: the mean, and its seeds or interval.

    Of the episodes that every agent has played at every checkpoint.

    Args:
        rows: Rows of one schedule, from ``aggregate.load_rows``.
        references: Drawn as dashed lines where an env has them.
        seeds_asked: The means of agents with fewer seeds are dotted.
        colours: From ``agent_colours``.
        value: The column to draw: ``return``, or what envs report, of those that do.

    Returns:
        A PNG image.
    """
    common = of_common_episodes(rows)
    common = common[(common["setting"] == ONLINE) & (common["split"] == TEST)]
    common = common[common[value].notna()]
    by = ["env", "agent", "schedule", "seed", "step"]
    curves = common.groupby(by, as_index=False).agg(
        **{value: (value, "mean"), "episodes": (value, "size")}
    )
    envs = sorted(curves["env"].unique())
    shown = of_agents(colours, curves["agent"])
    figure, axes = panels(len(envs), evenly(len(envs), _COLUMNS), shown)
    for ax, env in zip(axes, envs, strict=False):
        panel = curves[curves["env"] == env]
        _panel(ax, panel, colours, seeds_asked, value)
        if value == RETURN:
            known = references.get((env, panel["schedule"].iloc[0]), {})
            _reference_lines(ax, known, int(panel["episodes"].min()))
        ax.set_title(short_name(env))
    return as_png(figure)


def agent_colours(agents: Iterable[str]) -> dict[str, Any]:
    """A colour for each agent: a registered one's is its own, the same in every report.

    Registered agents come first, in the order of their registration, then variants by name; these
    have the colours that are left.
    """
    places = {name: i for i, name in enumerate(sorted(agent_names(), key=_REFERENCES_LAST))}
    names = sorted(set(agents), key=lambda name: (places.get(name, math.inf), _natural(name)))
    strong = [c for i, c in enumerate(sns.color_palette("colorblind")) if i not in _PALE]
    tellable = [*strong, *sns.color_palette("dark")]
    own = {name: places[name] for name in names if places.get(name, math.inf) < len(tellable)}
    if len(names) > len(tellable):
        return dict(zip(names, sns.color_palette("husl", len(names)), strict=True))
    left = iter(sorted(set(range(len(tellable))) - set(own.values())))
    return {name: tellable[own[name] if name in own else next(left)] for name in names}


def of_agents(colours: Mapping[str, Any], agents: Iterable[str]) -> dict[str, Any]:
    """The colours of these agents only, in their order: those of a figure's legend."""
    drawn = set(agents)
    return {agent: colour for agent, colour in colours.items() if agent in drawn}


def evenly(n: int, most: int) -> int:
    """Columns, ``most`` at most, for ``n`` things in as few rows, each about as full."""
    return math.ceil(n / math.ceil(n / most))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key to sort by that puts k5 before k20."""
    return [(int(part or 0), word) for word, part in re.findall(r"(\D*)(\d*)", name)]


def panels(
    n: int,
    columns: int,
    colours: Mapping[str, Any],
    size: tuple[float, float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` panels under one legend of agents; what is left over is empty.

    Args:
        n: Number of panels.
        columns: Panels side by side.
        colours: The legend's, by agent; none without any.
        size: Of the whole figure in inches, instead of the usual one.
    """
    height = math.ceil(n / columns)
    with sns.axes_style("whitegrid"):
        usual = (_PANEL[0] * columns, _PANEL[1] * height + 0.4)
        figure = Figure(figsize=size or usual, layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(height, columns, squeeze=False).ravel())
    for ax in axes[n:]:
        ax.set_axis_off()
    if colours:
        fit = max(1, min(6, int(figure.get_figwidth() / _LEGEND_COLUMN)))
        columns = evenly(len(colours), fit)
        figure.legend(
            handles=_legend(colours), loc="outside lower center", ncols=columns, frameon=False
        )
    return figure, axes[:n]


def seeds_and_mean(ax: Axes, curves: pd.DataFrame, x: str, y: str, color: Any, **mean: Any) -> None:
    """The mean over seeds as a thick line; as in tables, each seed if few, else an interval.

    A seed is a thin line, the 95% interval of five or more (``INTERVAL_SEEDS``) a band.

    Drawn from a table with a column for each seed: ``seaborn.lineplot`` groups anew for every line,
    which is most of a report's time where there are many runs.

    Args:
        ax: Where to draw.
        curves: One agent's; columns ``seed``, ``x`` and ``y``.
        x: Name of the horizontal column.
        y: Name of the vertical column.
        color: Of all lines.
        **mean: Further properties of the mean's line.
    """
    by_seed = curves.pivot_table(y, x, "seed")
    if by_seed.shape[1] < INTERVAL_SEEDS:
        ax.plot(by_seed.index, by_seed, color=color, linewidth=0.8, alpha=0.45)
    else:
        low, high = student_interval(by_seed.to_numpy("float64", na_value=math.nan))
        ax.fill_between(by_seed.index, low, high, color=color, linewidth=0, alpha=0.15)
    ax.plot(by_seed.index, by_seed.mean(axis=1), color=color, linewidth=2.2, **mean)


def _panel(
    ax: Axes, panel: pd.DataFrame, colours: Mapping[str, Any], seeds_asked: int, value: str
) -> None:
    for agent, curves in panel.groupby("agent", sort=False):
        few = curves["seed"].nunique() < seeds_asked
        seeds_and_mean(
            ax, curves, "step", value, color=colours[str(agent)], linestyle=":" if few else "-",
            **MARKED,
        )  # fmt: skip
    label = "mean test return" if value == RETURN else f"mean {value.replace('_', ' ')}"
    ax.set(xlabel="env steps", ylabel=label)
    budgets = panel.groupby("agent")["step"].max()
    if budgets.max() >= _FAR * budgets.min() and panel["step"].min() > 0:
        ax.set_xscale("log")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.margins(x=0.02)


def _reference_lines(ax: Axes, known: Mapping[str, Reference], episodes: int) -> None:
    """Of as many test episodes as the curves, where that is known."""
    for role, colour in _REFERENCES.items():
        if role in known:
            height = known[role].in_first(episodes)
            ax.axhline(height, color=colour, linestyle="--", linewidth=1.2)
            ax.annotate(
                role,
                (1.0, height),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            )


def _legend(colours: Mapping[str, Any]) -> Sequence[Line2D]:
    return [
        Line2D([], [], color=colour, linewidth=2.2, label=name) for name, colour in colours.items()
    ]
