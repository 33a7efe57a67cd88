"""What the commands about results take and do; ``cli`` parses."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from m3po_bench.leaderboard.grid import SuiteError
from m3po_bench.leaderboard.places import check_file, check_folder
from m3po_bench.leaderboard.suite_files import load_suite, suite_names
from m3po_bench.registry import agent_names, agent_spec, env_ids, short_name, unknown_name

RESULTS = Path("results/runs")
"""Where runs go by default, in the current folder."""

_MAKE_SOME = "make some with: m3po-bench run quick"


@dataclass(frozen=True)
class Report:
    """Write leaderboard and figures of a results folder again, from its finished runs.

    Try:
      m3po-bench report
      m3po-bench report results/runs/quick --json
    """

    folder: Annotated[Positional[str], arg(metavar="FOLDER")] = ""
    """A results folder or a suite's name; by default the last one run from here."""
    json: bool = False
    """Print one JSON object instead of text."""

    def execute(self) -> int:
        """Report; see the class."""
        from m3po_bench.leaderboard.store import Store

        print_report(Store(_results_folder(self.folder)), self.json, {})
        return 0


@dataclass(frozen=True)
class List:
    """List agents, envs and suites.

    Try:
      m3po-bench list
      m3po-bench list --json
    """

    json: bool = False
    """Print one JSON object instead of text."""

    def execute(self) -> int:
        """List; see the class."""
        agents = {
            name: {"paper": agent_spec(name).paper, "is_told": list(agent_spec(name).privileges)}
            for name in agent_names()
        }
        suites = {name: load_suite(name).description for name in suite_names()}
        if self.json:
            print(json.dumps({"agents": agents, "envs": env_ids(), "suites": suites}, indent=2))
            return 0
        print("agents")
        for name, about in agents.items():
            told = f" (is told: {', '.join(about['is_told'])})" if about["is_told"] else ""
            print(f"  {name:24} {about['paper']}{told}")
        print("envs")
        for name in env_ids():
            print(f"  {short_name(name):24} {name}")
        print("suites")
        for name, description in suites.items():
            print(f"  {name:24} {description}")
        return 0


@dataclass(frozen=True)
class References:
    """Compute the scores that others are measured against, from finished runs of a folder.

    Try:
      m3po-bench run references
      m3po-bench references results/runs/references --out m3po_bench/leaderboard/references.json
    """

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    """Results folder with runs of Random, Oracle and SAC."""
    out: Path | None = None
    """File to update; entries that are not computed stay. By default: print only."""
    envs: str = ""
    """Envs, separated by commas; by default all that the folder has. Leave out one whose oracle has
    not learnt what it asks for."""

    def execute(self) -> int:
        """Compute; see the class."""
        from m3po_bench.leaderboard import references
        from m3po_bench.leaderboard.files import write_atomically
        from m3po_bench.leaderboard.store import Store

        store = Store(_results_folder(self.folder))
        if self.out is not None:
            check_file(self.out)
        before = references.read_references(self.out) if self.out else {}
        _name_damaged(store)
        found = references.compute_references(store, split_names(self.envs))
        if self.out is None:
            print(references.dump_references(found), end="")
            return 0
        both = references.merged(before, found)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out, references.dump_references(both))
        print(self.out)
        return 0


@dataclass(frozen=True)
class Verify:
    """Check a results folder: schema, protocol, hashes, episodes, plausibility, tables.

    Models are never opened.

    Try:
      m3po-bench verify results/quick
    """

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    """A results folder."""
    json: bool = False
    """Print one JSON object instead of text."""

    def execute(self) -> int:
        """Verify; see the class."""
        from m3po_bench.leaderboard.verify import verify

        root = _results_folder(self.folder)
        runs, problems = verify(root)
        if self.json:
            print(json.dumps({"folder": str(root), "runs": runs, "problems": problems}, indent=2))
        elif not problems:
            print(f"{root}: {runs} runs, nothing wrong")
        for problem in [] if self.json else problems:
            complain(problem)
        return 1 if problems else 0


@dataclass(frozen=True)
class Theory:
    """Performance bounds of branched rollouts for numbers of your own, as a table and figures.

    Try:
      m3po-bench theory
      m3po-bench theory --eps-m 0.02 --eps-m-prime 0.05 --eps-pi 0.01 --out theory
    """

    eps_m: float = 0.01
    """Model error on the collected data, a total variation from 0 to 1."""
    eps_m_prime: float = 0.02
    """Model error under the current policy, from 0 to 1."""
    eps_pi: float = 0.01
    """Policy shift, a total variation from 0 to 1."""
    gamma: float = 0.99
    """Discount, from 0 to below 1."""
    r_max: float = 1.0
    """Rewards lie in [-r_max, r_max]."""
    out: Path | None = None
    """Folder for figures; by default none are made."""
    json: bool = False
    """Print one JSON object instead of text."""

    def execute(self) -> int:
        """Compute; see the class."""
        from m3po_bench.theory import best_rollout_length, figures

        if self.out is not None:
            check_folder(self.out)
        try:
            table = figures.bound_table(
                self.eps_m, self.eps_m_prime, self.eps_pi, self.gamma, self.r_max
            )
            best = best_rollout_length(
                self.eps_m_prime, self.eps_pi, self.gamma, self.r_max, figures.LENGTHS
            )
        except ValueError as error:
            raise SuiteError(str(error)) from None
        written = [str(path) for path in figures.write_figures(self.out)] if self.out else []
        if self.json:
            bounds = json.loads(table.to_json(orient="index"))
            found = {"bounds": bounds, "best_k": figures.named(best.k), "files": written}
            print(json.dumps(found, indent=2))
            return 0
        print("Bounds on |real - imagined return| by rollout length k (docs/theory.md)\n")
        print(table.to_markdown(floatfmt=".4g"))
        print(f"\nBest length by B3: k = {figures.named(best.k)}, bound {best.bound:.4g}")
        print(*written, sep="\n")
        return 0


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"m3po-bench: {text}", file=sys.stderr)


def _results_folder(name: str) -> Path:
    """The results folder that a path or a suite's name stands for, or the newest one."""
    if not name:
        found = sorted(RESULTS.glob("*/suite.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise SuiteError(f"no results in {RESULTS}; {_MAKE_SOME}")
        return found[-1].parent
    for folder in (Path(name), RESULTS / name):
        if folder.is_dir():
            return folder
    known = [*RESULTS.glob("*/suite.json"), *RESULTS.parent.glob("*/suite.json")]
    if not known:
        raise SuiteError(f"unknown results folder {name!r}, and none in {RESULTS}; {_MAKE_SOME}")
    raise unknown_name("results folder", name, [str(path.parent) for path in known])


def _name_damaged(store: Any) -> None:
    for folder, problem in store.damaged():
        complain(f"{folder}: {problem}; left out")


def print_report(store: Any, as_json: bool, failed: dict[str, str]) -> None:
    """Write a results folder's report, and print it."""
    from m3po_bench.leaderboard.report import write_report
    from m3po_bench.theory import gap_figure

    _name_damaged(store)
    report = write_report(store, further_figures={"return_gap": gap_figure})
    for folder in report.outdated:
        complain(
            f"{folder}: its regret, recovery and savings were measured against other references "
            "than today's, and its trace.parquet is not there; they are left out"
        )
    if as_json:
        table = json.loads(report.table.to_json(orient="records"))
        print_json(table, [str(path) for path in report.paths], failed)
        return
    print(report.markdown)
    print(*report.paths, sep="\n")


def print_json(table: list[Any], paths: list[str], failed: dict[str, str]) -> None:
    """A leaderboard's rows, what was written, and which runs failed for which reason."""
    print(json.dumps({"leaderboard": table, "files": paths, "failed": failed}, indent=2))


def split_names(names: str) -> list[str]:
    """What a list of names separated by commas has; an empty text has none.

    Raises:
        SuiteError: If it is not empty, but has none.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    if names and not found:
        raise SuiteError(f"{names!r}: expected names, separated by commas")
    return found
