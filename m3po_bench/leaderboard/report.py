"""The report of a results folder: table and figures, from finished runs only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from m3po_bench.leaderboard.aggregate import measures_of, scores_by_group
from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.leaderboard.pages import to_html, to_markdown
from m3po_bench.leaderboard.plots import RETURN, agent_colours, learning_curves
from m3po_bench.leaderboard.recovery_plots import recovery_curves
from m3po_bench.leaderboard.references import References, load_references
from m3po_bench.leaderboard.report_tables import PAGE, make_tables
from m3po_bench.leaderboard.settings import ONLINE, TEST
from m3po_bench.leaderboard.store import BY_AGE, COLUMNS, OF_RUN, Store
from m3po_bench.leaderboard.summary_plots import model_errors, performance_profiles, score_map
from m3po_bench.leaderboard.traces import digest_traces, is_outdated, load_table

FurtherFigure = Callable[[pd.DataFrame, Mapping[str, Any]], bytes | None]
"""Draws a PNG image of ``measures_of``'s table, given a colour for each agent; or nothing."""

_CURVES, _RECOVERY, _SCORES, _PROFILES = (
    "learning_curves", "recovery", "scores", "performance_profiles",
)  # fmt: skip
"""How names of figures begin that are drawn for each schedule; the schedule's follows."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        table: The leaderboard.
        markdown: The leaderboard as Markdown.
        paths: Files, the leaderboard first.
        outdated: Folders of runs whose regret, recovery and savings are left out: they were
            measured against other references, and their traces are not there.
    """

    table: pd.DataFrame
    markdown: str
    paths: tuple[Path, ...]
    outdated: tuple[Path, ...]


def write_report(
    store: Store,
    references: References | None = None,
    further_figures: Mapping[str, FurtherFigure] | None = None,
) -> Report:
    """Write ``leaderboard.md``, ``.csv``, ``.tex``, ``.html`` and figures of a results folder.

    ``runs.csv`` says what each run took. Where there are scores of several envs, ``over_envs.csv``
    takes them together; ``pairs.csv`` compares agents two by two. Every file is replaced as a
    whole, so that no reader sees half of one; those of an earlier report that this one has nothing
    for are removed.

    Args:
        store: The results folder.
        references: Scores to measure against; those that the package ships by default.
        further_figures: By file name, what draws a figure of ``measures_of``'s table in the
            agents' colours, or nothing where the table does not hold what it needs.

    Raises:
        SuiteError: If no run is finished.
    """
    references = load_references() if references is None else references
    finished = store.finished()  # once: each time compares every file's checksum
    if not finished:
        raise SuiteError(f"no finished runs in {store.root}")
    digest_traces(store, finished, references)
    tables = make_tables(store, finished, references)
    rows, changes, suite = tables.rows, tables.changes, tables.suite
    measures, colours = measures_of(finished, rows), agent_colours(rows["agent"])
    drawn: dict[str, bytes | None] = {
        **_curves(rows, references, suite, colours),
        **_recoveries(changes, load_table(finished, BY_AGE), references, colours),
        **_summaries(tables.table, rows, references, colours),
        "model_error": model_errors(measures, colours),
        **{name: draw(measures, colours) for name, draw in (further_figures or {}).items()},
    }
    figures = {name: image for name, image in drawn.items() if image is not None}
    contents: dict[str, str | bytes | None] = {
        **tables.contents,
        PAGE: to_html(tables.page, figures),
        **{f"figures/{name}.png": image for name, image in drawn.items()},
    }
    for name in _earlier_figures(store.root, rows):
        contents.setdefault(name, None)
    outdated = tuple(folder for folder, record in finished if is_outdated(record, references))
    written = _written(store.root, contents)
    return Report(tables.table, to_markdown(tables.page), written, outdated)


def _earlier_figures(root: Path, rows: pd.DataFrame) -> list[str]:
    """Names of figures that are drawn for each schedule, of any schedule, where there are some."""
    kinds = (_CURVES, _RECOVERY, _SCORES, _PROFILES, *_reported(rows))
    found = [path for kind in kinds for path in (root / "figures").glob(f"{kind}_*.png")]
    return [path.relative_to(root).as_posix() for path in found]


def _reported(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.columns if name not in (*OF_RUN, *COLUMNS)]


def _written(root: Path, contents: Mapping[str, str | bytes | None]) -> tuple[Path, ...]:
    """The files that have contents; the others are removed."""
    (root / "figures").mkdir(exist_ok=True)
    written = []
    for name, content in contents.items():
        if content is None:
            (root / name).unlink(missing_ok=True)
        else:
            write_atomically(root / name, content)
            written.append(root / name)
    return tuple(written)


def _curves(
    rows: pd.DataFrame,
    references: References,
    suite: Mapping[str, Any],
    colours: Mapping[str, Any],
) -> dict[str, bytes]:
    return {
        f"{name}_{schedule}": learning_curves(group, references, suite["seeds"], colours, value)
        for schedule, group in rows.groupby("schedule")
        for name, value in [(_CURVES, RETURN), *((name, name) for name in _reported(rows))]
        if group[value].notna().any()
    }


def _recoveries(
    changes: pd.DataFrame,
    ages: pd.DataFrame,
    references: References,
    colours: Mapping[str, Any],
) -> dict[str, bytes]:
    if changes.empty or ages.empty:
        return {}
    return {
        f"{_RECOVERY}_{schedule}": recovery_curves(
            group, changes[changes["schedule"] == schedule], references, colours
        )
        for schedule, group in ages.groupby("schedule")
    }


def _summaries(
    table: pd.DataFrame,
    rows: pd.DataFrame,
    references: References,
    colours: Mapping[str, Any],
) -> dict[str, bytes | None]:
    online = table[(table["setting"] == ONLINE) & (table["split"] == TEST)]
    groups = scores_by_group(rows, references)
    found: dict[str, bytes | None] = {}
    for schedule, group in online.groupby("schedule"):
        found[f"{_SCORES}_{schedule}"] = score_map(group)
        strata = {
            agent: scores
            for (agent, *others), scores in groups.items()
            if others == [schedule, ONLINE, TEST]
        }
        found[f"{_PROFILES}_{schedule}"] = performance_profiles(strata, colours)
    return found
