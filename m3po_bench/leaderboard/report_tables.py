"""All of a report that is text: what follows from finished runs, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from m3po_bench.leaderboard.aggregate import leaderboard, load_rows, over_envs, seed_returns
from m3po_bench.leaderboard.costs import run_costs
from m3po_bench.leaderboard.entry_metrics import ENTRY, entry_metrics
from m3po_bench.leaderboard.pages import Page, to_latex, to_markdown
from m3po_bench.leaderboard.pairs import pairs
from m3po_bench.leaderboard.references import References
from m3po_bench.leaderboard.store import CHANGES, Finished, Store
from m3po_bench.leaderboard.tables import make_page, to_csv
from m3po_bench.leaderboard.traces import load_table

RUNS, PAGE = "runs.csv", "leaderboard.html"


@dataclass(frozen=True)
class Tables:
    """Tables of a results folder.

    Attributes:
        suite: Its ``name`` and how many ``seeds`` it asks for.
        rows: Every evaluation row, from ``aggregate.load_rows``.
        changes: Every change of a task, from ``traces.load_table``.
        table: The leaderboard.
        page: The leaderboard for people.
        contents: By file name; None where there is nothing for that file.
    """

    suite: dict[str, Any]
    rows: pd.DataFrame
    changes: pd.DataFrame
    table: pd.DataFrame
    page: Page
    contents: dict[str, str | None]


def make_tables(store: Store, finished: Finished, references: References) -> Tables:
    """What finished runs give; nothing is written.

    Args:
        store: The results folder.
        finished: From ``store.finished``; at least one run.
        references: Scores to measure against.

    Raises:
        SuiteError: If a file is not what a run writes.
    """
    rows, changes = load_rows(finished), load_table(finished, CHANGES, references)
    suite = store.read_suite() or {"name": store.root.name, "seeds": int(rows["seed"].nunique())}
    configs = {
        (record["agent"], record["env"], record["schedule"]): record["config"]
        for _, record in finished
    }
    metrics = entry_metrics(rows, changes, references)
    table = leaderboard(rows, references, suite["seeds"]).merge(metrics, on=ENTRY, how="left")
    together, of_two = over_envs(rows, references), pairs(rows)
    page = make_page(table, seed_returns(rows), references, suite, configs, together)
    contents = {
        "leaderboard.md": to_markdown(page),
        "leaderboard.csv": to_csv(table),
        "leaderboard.tex": to_latex(page),
        RUNS: to_csv(run_costs(finished)),
        "over_envs.csv": None if together.empty else to_csv(together),
        "pairs.csv": None if of_two.empty else to_csv(of_two),
    }
    return Tables(suite, rows, changes, table, page, contents)
