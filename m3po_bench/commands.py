"""What the commands about suites and results take and do; ``cli`` parses."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from m3po_bench.leaderboard.grid import (
    RunSpec,
    SuiteError,
    check_envs,
    env_ids,
    load_suite,
    suite_names,
)
from m3po_bench.registry import agent_names, agent_spec, short_name, unknown_name

RESULTS = Path("results/runs")
"""Where runs go by default, in the current folder."""


@dataclass(frozen=True)
class Run:
    """Train every agent of a suite on its envs, evaluate, and write the leaderboard.

    Finished runs are skipped, so the same command goes on after an interruption.

    Try:
      m3po-bench run quick
      m3po-bench run quick --agents M3PO,SAC-PrevReward --seeds 5
      m3po-bench run my_suite.toml --workers 2 --out results/runs/mine
      m3po-bench run lite --executor ray --retries 2 --time-limit-min 90
    """

    suite: Annotated[Positional[str], arg(metavar="SUITE|FILE.toml")]
    """A suite of `m3po-bench list`, or a TOML file."""
    agents: str = ""
    """Only these, separated by commas; `all` for every registered agent."""
    envs: str = ""
    """Only these, separated by commas; short names do."""
    seeds: int | None = None
    """Number of seeds, instead of the suite's."""
    workers: int = 0
    """Runs at a time; 0 means one for each processor, or all that a cluster takes."""
    executor: str = "local"
    """Where runs are made: local, ray or slurm (docs/scale_out.md)."""
    gpus: float = 0.0
    """GPUs for each run, of a cluster; Ray hands out fractions too."""
    retries: int = 0
    """How often a run that fails is tried again at once; the same command later always does."""
    time_limit_min: float = 0.0
    """Minutes after which a run is ended, as failed; 0 means never."""
    memory_limit_gb: float = 0.0
    """Resident memory above which a run is ended, as failed; 0 means any."""
    out: Path | None = None
    """Results folder; by default results/runs/SUITE."""
    dry_run: bool = False
    """Only say what would be run."""
    json: bool = False
    """Print one JSON object instead of text."""
    quiet: bool = False
    """No progress."""

    def execute(self) -> int:
        """Run; see the class."""
        from m3po_bench.leaderboard.executors import make_executor
        from m3po_bench.leaderboard.progress import make_display
        from m3po_bench.leaderboard.scheduler import run_all
        from m3po_bench.leaderboard.store import Store
        from m3po_bench.leaderboard.supervision import Limits

        suite = load_suite(self.suite).select(_split(self.agents), _split(self.envs), self.seeds)
        if self.retries < 0:
            raise SuiteError(f"--retries {self.retries}: expected 0 or more")
        store = Store(self.out or RESULTS / suite.name)
        if store.root.exists() and not store.root.is_dir():
            raise SuiteError(f"--out {store.root}: is a file; expected a folder")
        limits = Limits(self.time_limit_min, self.memory_limit_gb)
        executor = make_executor(self.executor, store, self.workers, limits, self.gpus)
        check_envs(suite.envs, suite.schedules)
        runs = list(suite.runs())
        if self.dry_run:
            return self._list(runs, {run.run_id for run in runs if store.is_finished(run)})
        store.write_suite(suite)
        with make_display(runs, executor.slots, self.quiet) as display:
            state = run_all(runs, store, executor, display, self.retries)
        failed = {f.spec.run_id: f.reason for f in state.failures}
        try:
            if state.skipped + len(state.finished) or not failed:
                _print_report(store, self.json, failed)
        finally:  # a report that finds the disk full must not hide what failed
            for run_id, reason in failed.items():
                complain(f"{run_id} failed: {reason}")
        if failed:
            complain(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
        return 1 if failed else 0

    def _list(self, runs: list[RunSpec], finished: set[str]) -> int:
        rows = [
            {"run": r.run_id, "preset": r.budget.preset, "steps": r.budget.steps,
             "config": r.config_hash, "finished": r.run_id in finished}
            for r in runs
        ]  # fmt: skip
        if self.json:
            print(json.dumps(rows, indent=2))
        for row in [] if self.json else rows:
            mark = "finished" if row["finished"] else f"{row['steps']:,} steps, {row['preset']}"
            print(f"{row['run']:50} {mark}")
        return 0


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

        _print_report(Store(_results_folder(self.folder)), self.json, {})
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
            print(f"  {name:20} {about['paper']}{told}")
        print("envs")
        for name in env_ids():
            print(f"  {short_name(name):20} {name}")
        print("suites")
        for name, description in suites.items():
            print(f"  {name:20} {description}")
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
    """File to update; entries that the folder does not have stay. By default: print only."""

    def execute(self) -> int:
        """Compute; see the class."""
        from m3po_bench.leaderboard import references
        from m3po_bench.leaderboard.store import Store, write_atomically

        store = Store(_results_folder(self.folder))
        _name_damaged(store)
        found = references.compute_references(store)
        if self.out is None:
            print(references.dump_references(found), end="")
            return 0
        before = self.out.read_text(encoding="utf-8") if self.out.exists() else "{}"
        both = references.merged(references.parse_references(before), found)
        write_atomically(self.out, references.dump_references(both))
        print(self.out)
        return 0


@dataclass(frozen=True)
class Verify:
    """Check a results folder: schema, protocol, configuration hashes, episodes, plausibility.

    Reads JSON and CSV only; models are never opened.

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


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _results_folder(name: str) -> Path:
    """The results folder that a path or a suite's name stands for, or the newest one."""
    if not name:
        found = sorted(RESULTS.glob("*/suite.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise SuiteError(f"no results in {RESULTS}; make some with: m3po-bench run quick")
        return found[-1].parent
    for folder in (Path(name), RESULTS / name):
        if folder.is_dir():
            return folder
    raise unknown_name("results folder", name, [str(path) for path in RESULTS.glob("*")])


def _name_damaged(store: Any) -> None:
    for folder, problem in store.damaged():
        complain(f"{folder}: {problem}; left out")


def _print_report(store: Any, as_json: bool, failed: dict[str, str]) -> None:
    from m3po_bench.leaderboard.report import write_report
    from m3po_bench.theory import gap_figure

    _name_damaged(store)
    report = write_report(store, further_figures={"return_gap": gap_figure})
    if as_json:
        table = json.loads(report.table.to_json(orient="records"))
        paths = [str(path) for path in report.paths]
        print(json.dumps({"leaderboard": table, "files": paths, "failed": failed}, indent=2))
        return
    print(report.markdown)
    print(*report.paths, sep="\n")
