"""The bounds as tables and pictures.

``python -m m3po_bench.theory.figures docs/images`` writes the pictures of docs/theory.md. pandas,
matplotlib and seaborn are imported where they are used, so that importing this costs nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from m3po_bench.images import as_png
from m3po_bench.theory.bounds import (
    best_rollout_length,
    branched_bound,
    branched_bound_current_policy,
    conjectured_branched_bound,
    full_rollout_bound,
    mbpo_4_2,
    mbpo_4_3,
)
from m3po_bench.theory.cases import (
    leaky_chain,
    random_hidden_tasks,
    random_mdp,
    unseen_switches,
)
from m3po_bench.theory.tabular import Case, endless_horizon, measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LENGTHS: tuple[float, ...] = (1, 2, 5, 10, 20, 50, math.inf)
_SHORT: tuple[float, ...] = (1, 2, 3, math.inf)
_EPISODE = 5  # steps of the hidden-task cases, whose histories are enumerated
_SMALLEST, _LARGEST = 1e-3, 1.0


def bound_table(
    eps_m: float,
    eps_m_prime: float,
    eps_pi: float,
    gamma: float = 0.99,
    r_max: float = 1.0,
    ks: Sequence[float] = LENGTHS,
) -> pd.DataFrame:
    """Every bound for each rollout length.

    With one error 1, the others 0 and ``r_max`` 1 the entries are coefficients of that error.

    Args:
        eps_m: Model error under pi_D, in [0, 1].
        eps_m_prime: Model error under pi, in [0, 1].
        eps_pi: Policy shift, in [0, 1].
        gamma: Discount, in [0, 1).
        r_max: Rewards lie in [-r_max, r_max].
        ks: Rollout lengths; ``math.inf`` for full rollouts.

    Returns:
        A row for each length (index ``k``, as text), and the columns ``B2``, ``MBPO 4.2`` and
        ``conjectured``, from ``eps_m``, and ``B3`` and ``MBPO 4.3``, from ``eps_m_prime``; all in
        units of reward. The full rollout's row has MBPO's Theorem 4.1 under ``MBPO 4.2``, and
        nothing under ``MBPO 4.3``.
    """
    import pandas as pd

    data = (eps_m, eps_pi, gamma, r_max)
    current = (eps_m_prime, eps_pi, gamma, r_max)
    rows = [
        {
            "k": named(k),
            "B2": float(branched_bound(*data, k)),
            "MBPO 4.2": float(mbpo_4_2(*data, k) if k < math.inf else full_rollout_bound(*data)),
            "conjectured": float(conjectured_branched_bound(*data, k)),
            "B3": float(branched_bound_current_policy(*current, k)),
            "MBPO 4.3": float(mbpo_4_3(*current, k)) if k < math.inf else math.nan,
        }
        for k in ks
    ]
    return pd.DataFrame(rows).set_index("k")


def discrepancy_figure(rng: Generator, gamma: float = 0.9, cases: int = 90) -> bytes:
    """B2 against the model error, and the exact discrepancies of tabular cases below it.

    Left, endless MDPs with known rewards, k = 1 to 50 and full; right, hidden tasks that may change
    within an episode of 5 steps, rewards predicted by the meta-model. The data are the current
    policy's own (``eps_pi`` = 0), so each bound is a line. Dots are random cases, diamonds
    ``leaky_chain`` and ``unseen_switches``.

    Args:
        rng: Draws the cases.
        gamma: Discount, in [0, 1).
        cases: Random cases in each panel.

    Returns:
        A PNG image.
    """
    figure, (left, right) = canvas((11.0, 5.4), 2)
    errors = np.geomspace(_SMALLEST, _LARGEST, 7)
    horizon = endless_horizon(gamma)
    mdps = [_on_policy(random_mdp(rng)) for _ in range(cases)]
    chains = [leaky_chain(float(e)) for e in errors]
    _discrepancies(left, mdps, chains, LENGTHS, gamma, horizon, {})
    left.set_title("MDPs, known rewards")
    tasks = [_on_policy(random_hidden_tasks(rng, _EPISODE)) for _ in range(cases)]
    switches = [unseen_switches(float(e), _EPISODE) for e in errors[:-1]]
    finite = {"model_rewards": True, "horizon": _EPISODE}
    _discrepancies(right, tasks, switches, _SHORT, gamma, _EPISODE, finite)
    right.set_title(f"Hidden tasks, {_EPISODE} steps, predicted rewards")
    return as_png(figure)


def coefficients_figure(gamma: float = 0.99) -> bytes:
    """What one unit of model error costs, by rollout length: ours, MBPO's and full rollouts.

    Args:
        gamma: Discount, in (0, 1).

    Returns:
        A PNG image.
    """
    import seaborn as sns

    figure, (ax,) = canvas((6.4, 4.4), 1)
    ks = np.unique(np.geomspace(1, 10 * gamma / (1 - gamma), 80).round())
    one = (1.0, 0.0, gamma, 1.0)
    full = float(full_rollout_bound(*one))
    blue, orange, green = sns.color_palette("colorblind", 3)
    ax.plot(ks, mbpo_4_2(*one, ks), color=orange, ls="--", lw=2, label="MBPO 4.2 and 4.3")
    ax.plot(ks, branched_bound(*one, ks), color=blue, lw=2.4, label="B2 and B3")
    ax.axhline(full, color=green, ls=":", lw=2, label="full model rollouts (MBPO 4.1)")
    crossing = gamma / (1 - gamma)
    ax.plot([crossing], [full], "o", color="black", ms=5)
    ax.annotate(
        rf"$k = \gamma / (1 - \gamma) = {crossing:.0f}$", (crossing, full), (-8, 8),
        textcoords="offset points", ha="right",
    )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="rollout length k")
    ax.set_ylabel(r"coefficient of the model error / $r_{\max}$")
    ax.set_title(rf"$\gamma = {gamma:g}$")
    ax.legend(loc="lower right")
    return as_png(figure)


def best_length_figure(gamma: float = 0.9, cells: int = 41) -> bytes:
    """The best rollout length for each model error and policy shift, by MBPO 4.3 and by B3.

    Args:
        gamma: Discount, in (0, 1).
        cells: Cells along each axis.

    Returns:
        A PNG image.
    """
    import seaborn as sns
    from matplotlib.colors import BoundaryNorm, ListedColormap

    figure, axes = canvas((10.5, 4.6), 2)
    errors = np.geomspace(_SMALLEST, _LARGEST, cells)
    finite = LENGTHS[:-1]
    colours = ListedColormap(sns.color_palette("rocket_r", len(LENGTHS)).as_hex())
    norm = BoundaryNorm(np.arange(len(LENGTHS) + 1) - 0.5, len(LENGTHS))
    panels: list[tuple[str, Callable[..., Any], Sequence[float]]] = [
        ("MBPO 4.3", mbpo_4_3, finite),
        ("B3", branched_bound_current_policy, LENGTHS),
    ]
    for ax, (title, bound, candidates) in zip(axes, panels, strict=True):
        best = [
            [
                LENGTHS.index(
                    best_rollout_length(e, s, gamma, candidates=candidates, bound=bound).k
                )
                for e in errors.tolist()
            ]
            for s in errors.tolist()
        ]
        mesh = ax.pcolormesh(errors, errors, np.asarray(best), cmap=colours, norm=norm)
        ax.set(xscale="log", yscale="log", title=title, aspect="equal")
        ax.set_xlabel(r"model error under the current policy, $\epsilon_m'$")
        ax.set_ylabel(r"policy shift, $\epsilon_\pi$")
    bar = figure.colorbar(mesh, ax=axes, ticks=range(len(LENGTHS)), shrink=0.9)
    bar.ax.set_yticklabels([named(k) for k in LENGTHS])
    bar.set_label(rf"best k, $\gamma = {gamma:g}$")
    return as_png(figure)


def write_figures(folder: Path, seed: int = 0) -> list[Path]:
    """Write ``theory_*.png`` into a folder, which is made if it is missing.

    Args:
        folder: Where to.
        seed: Draws the random cases.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "theory_discrepancy.png": discrepancy_figure(np.random.default_rng(seed)),
        "theory_coefficients.png": coefficients_figure(),
        "theory_best_length.png": best_length_figure(),
    }
    for name, image in images.items():
        (folder / name).write_bytes(image)
    return [folder / name for name in images]


def _on_policy(case: Case) -> Case:
    return replace(case, policy=case.data_policy)


def _discrepancies(
    ax: Axes,
    drawn: Sequence[Case],
    worst: Sequence[Case],
    ks: Sequence[float],
    gamma: float,
    horizon: int,
    options: dict[str, Any],
) -> None:
    import seaborn as sns

    colours = sns.color_palette("plasma_r", len(ks) + 1)[1:]
    predicted = bool(options.get("model_rewards", False))
    grid = np.geomspace(_SMALLEST, _LARGEST, 50)
    for k, colour in zip(ks, colours, strict=True):
        bound = branched_bound(grid, 0.0, gamma, 1.0, k, **options)
        ax.plot(grid, bound, color=colour, lw=1.8, label=f"k = {k:g}" if k < math.inf else "full")
    for cases, marker, size, rim in ((drawn, "o", 16, 0.0), (worst, "D", 26, 0.6)):
        for case in cases:
            exact = measure(case, gamma, ks, horizon, model_rewards=predicted)
            if exact.eps_m >= _SMALLEST:
                x = np.full(len(ks), exact.eps_m)
                ax.scatter(
                    x, np.abs(exact.gaps), c=colours, marker=marker, s=size, zorder=3,
                    edgecolor="black", linewidth=rim,
                )  # fmt: skip
    trivial = 2 * (1 - gamma**horizon) / (1 - gamma)
    ax.axhline(trivial, color="0.4", ls="--", lw=1.2, label="largest possible")
    ax.set(xscale="log", yscale="log", xlabel=r"model error $\epsilon_m$")
    ax.set_ylabel(r"|real $-$ branched return| / $r_{\max}$")
    ax.set_ylim(1e-3, 15 * trivial)
    ax.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def canvas(size: tuple[float, float], columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels, row by row, that no display is needed for."""
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def named(k: float) -> str:
    """A rollout length as text; ``full`` for full rollouts."""
    return f"{k:g}" if k < math.inf else "full"


if __name__ == "__main__":
    write_figures(Path(sys.argv[1]))
