"""What the command ``run`` takes and does; ``cli`` parses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from m3po_bench.commands import RESULTS, complain, print_json, print_report, split_names
from m3po_bench.leaderboard.grid import RunSpec, Suite, SuiteError, check_envs, check_variants
from m3po_bench.leaderboard.options import RunOptions
from m3po_bench.leaderboard.places import check_folder
from m3po_bench.leaderboard.run_log import check_loggers
from m3po_bench.leaderboard.suite_files import load_suite

if TYPE_CHECKING:
    from m3po_bench.leaderboard.costs import Costs
    from m3po_bench.leaderboard.store import Store

PUBLISHED = Path("results")
"""Published results of a checkout, when the current folder is its root."""


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
    tensorboard: bool = False
    """Keep each agent's log for TensorBoard, in its run's folder."""
    wandb: str = ""
    """Project of Weights & Biases to send each agent's log to."""
    out: Path | None = None
    """Results folder; by default results/runs/SUITE."""
    continue_published: bool = False
    """Count runs that are finished in results/SUITE as done, and report them too."""
    dry_run: bool = False
    """Only say what would be run."""
    json: bool = False
    """Print one JSON object instead of text."""
    quiet: bool = False
    """No progress."""

    def execute(self) -> int:
        """Run; see the class."""
        from m3po_bench.leaderboard.costs import Costs
        from m3po_bench.leaderboard.executors import make_executor
        from m3po_bench.leaderboard.progress import make_display
        from m3po_bench.leaderboard.scheduler import run_all
        from m3po_bench.leaderboard.store import Store

        whole = load_suite(self.suite)
        suite = whole.select(split_names(self.agents), split_names(self.envs), self.seeds)
        if self.retries < 0:
            raise SuiteError(f"--retries {self.retries}: expected 0 or more")
        store = Store(self.out or RESULTS / suite.name)
        check_folder(store.root)
        options = RunOptions(
            self.time_limit_min, self.memory_limit_gb, self.tensorboard, self.wandb
        )
        check_loggers(options)
        executor = make_executor(self.executor, store, self.workers, options, self.gpus)
        check_variants(suite)
        check_envs(suite.envs, suite.schedules)
        runs = list(suite.runs())
        published = self._published(suite)
        if published:
            _name_misfits(published, runs)
        costs = Costs([store, *(Store(path.parent) for path in _results_folders())])
        if self.dry_run:
            stores = [store, published] if published else [store]
            done = [run for run in runs if any(s.is_finished(run) for s in stores)]
            return self._list(runs, done, costs)
        store.write_suite(whole)  # whose rows are marked where --seeds asked for fewer
        with make_display(runs, executor.slots, self.quiet) as display:
            state = run_all(
                runs, store, executor, display, self.retries, published, costs.core_seconds
            )
        failed = {f.spec.run_id: f.reason for f in state.failures}
        try:
            if state.skipped + len(state.finished) or not failed:
                print_report(store, self.json, failed)
            elif self.json:
                print_json([], [], failed)
        finally:  # a report that finds the disk full must not hide what failed
            for run_id, reason in failed.items():
                complain(f"{run_id} failed: {reason}")
        if failed:
            complain(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
        return 1 if failed else 0

    def _published(self, suite: Suite) -> Store | None:
        from m3po_bench.leaderboard.store import Store

        if not self.continue_published:
            return None
        root = PUBLISHED / suite.name
        if not root.is_dir():
            known = ", ".join(sorted(p.parent.name for p in PUBLISHED.glob("*/suite.json")))
            raise SuiteError(
                f"--continue-published: no {root} in the current folder; "
                f"expected the root of a checkout (published there: {known or 'nothing'})"
            )
        return Store(root)

    def _list(self, runs: list[RunSpec], finished: list[RunSpec], costs: Costs) -> int:
        done = {run.run_id for run in finished}
        rows: list[dict[str, Any]] = [
            {"run": r.run_id, "preset": r.budget.preset, "steps": r.budget.steps,
             "config": r.config_hash, "finished": r.run_id in done,
             "core_seconds": costs.core_seconds(r)}
            for r in runs
        ]  # fmt: skip
        if self.json:
            print(json.dumps({"runs": rows}, indent=2))
            return 0
        for row in rows:
            size = f"{row['steps']:,} steps, {row['preset']}"
            mark = "finished" if row["finished"] else size + _minutes(row["core_seconds"])
            print(f"{row['run']:50} {mark}")
        todo = [row["core_seconds"] for row in rows if not row["finished"]]
        print(f"{len(rows)} runs, {len(done)} finished; {_cost(todo)}")
        return 0


def _name_misfits(published: Store, runs: list[RunSpec]) -> None:
    """Say which published runs do not count because they were configured in another way."""
    from m3po_bench.leaderboard.store import RUN

    misfits = [
        run
        for run in runs
        if (published.folder(run) / RUN).is_file() and not published.is_finished(run)
    ]
    if misfits:
        entries = dict.fromkeys(run.run_id.rpartition("/")[0] for run in misfits)
        complain(
            f"{len(misfits)} published runs were made with another configuration than today's, so "
            f"they do not count: {', '.join(entries)}"
        )


def _results_folders() -> list[Path]:
    """Notes of results folders here, whose runs say what others may cost."""
    return [*PUBLISHED.glob("*/suite.json"), *RESULTS.glob("*/suite.json")]


def _cost(core_seconds: list[float | None]) -> str:
    """How many runs are to be made, and what they are likely to cost as far as that is known."""
    known = [cost for cost in core_seconds if cost is not None]
    time = f"in about {sum(known) / 3600:.1f} core-hours"
    to_make, unknown = f"{len(core_seconds)} to make", len(core_seconds) - len(known)
    if known and unknown:
        return f"{to_make}: {len(known)} {time}, {unknown} of unknown cost"
    if known:
        return f"{to_make} {time}"
    return f"{to_make}, of unknown cost" if unknown else to_make


def _minutes(core_seconds: float | None) -> str:
    return "" if core_seconds is None else f", about {core_seconds / 60:.1f} core-minutes"
