"""The report of a results folder: table and figures, from finished runs only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from m3po_bench.leaderboard.aggregate import (
    leaderboard,
    load_measures,
    load_rows,
    over_envs,
    seed_returns,
)
from m3po_bench.leaderboard.entry_metrics import ENTRY, entry_metrics
from m3po_bench.leaderboard.plots import learning_curves
from m3po_bench.leaderboard.recovery_plots import recovery_curves
from m3po_bench.leaderboard.references import References, load_references
from m3po_bench.leaderboard.store import Store, write_atomically
from m3po_bench.leaderboard.tables import to_csv, to_markdown
from m3po_bench.leaderboard.traces import BY_AGE, CHANGES, digest_traces, load_table


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        table: The leaderboard.
        markdown: The leaderboard as Markdown.
        paths: Files, the leaderboard first.
    """

    table: pd.DataFrame
    markdown: str
    paths: tuple[Path, ...]


def write_report(
    store: Store,
    references: References | None = None,
    further_figures: Mapping[str, Callable[[pd.DataFrame], bytes | None]] | None = None,
) -> Report:
    """Write ``leaderboard.md``, ``leaderboard.csv`` and figures of a results folder.

    Where there are scores of several envs, ``over_envs.csv`` takes them together. Every file is
    replaced as a whole, so that no reader sees half of one.

    Args:
        store: The results folder.
        references: Scores to measure against; those that the package ships by default.
        further_figures: By file name, what draws a figure of ``load_measures``'s table, or
            nothing where the table does not hold what it needs.

    Raises:
        SuiteError: If no run is finished.
    """
    references = load_references() if references is None else references
    digest_traces(store, references)
    rows, changes = load_rows(store), load_table(store, CHANGES)
    suite = store.read_suite() or {
        "name": store.root.name,
        "seeds": int(rows["seed"].nunique()),
        "eval_episodes": 10,
    }
    steps = {
        (record["agent"], record["env"], record["schedule"]): int(record["config"]["steps"])
        for _, record in store.finished()
    }
    metrics = entry_metrics(rows, changes, references, suite["eval_episodes"])
    table = leaderboard(rows, references, suite["seeds"]).merge(metrics, on=ENTRY, how="left")
    together = over_envs(rows, references)
    markdown = to_markdown(table, seed_returns(rows), references, suite, steps, together)
    contents: dict[str, str | bytes] = {
        "leaderboard.md": markdown,
        "leaderboard.csv": to_csv(table),
    }
    if not together.empty:
        contents["over_envs.csv"] = to_csv(together)
    for schedule, group in rows.groupby("schedule"):
        contents[f"figures/learning_curves_{schedule}.png"] = learning_curves(
            group, references, suite["eval_episodes"], suite["seeds"]
        )
    ages = load_table(store, BY_AGE)
    for schedule, group in ages.groupby("schedule") if len(changes) else []:
        after = changes[changes["schedule"] == schedule]
        contents[f"figures/recovery_{schedule}.png"] = recovery_curves(group, after, references)
    measures = load_measures(store)
    for name, draw in (further_figures or {}).items():
        image = draw(measures)
        if image is not None:
            contents[f"figures/{name}.png"] = image
    (store.root / "figures").mkdir(exist_ok=True)
    for name, content in contents.items():
        write_atomically(store.root / name, content)
    return Report(table, markdown, tuple(store.root / name for name in contents))
