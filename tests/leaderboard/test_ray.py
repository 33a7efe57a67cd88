"""Runs on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from m3po_bench.leaderboard.store import EVALUATION, RUN, Store
from m3po_bench.leaderboard.suite_files import load_suite

ray = pytest.importorskip("ray", reason="needs the extra ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def pids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where toys leave the ids of the processes that learnt."""
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def cluster(python_path: str, pids: Path) -> Iterator[Any]:
    """Two nodes with a processor each; their processes find the toys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path)
        patch.setenv("TOY_PIDS", str(pids))
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture
def on_the_cluster(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--executor ray`` finds it."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)


def _wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.mark.usefixtures("on_the_cluster")
def test_smoke_gives_the_rows_of_this_machine(
    command_line: Any, tmp_path: Path, outcomes: Any
) -> None:
    command_line.suite = "smoke"
    tables = []
    for executor in ("ray", "local"):
        out = tmp_path / executor
        status, _, stderr = command_line.run(out, "--executor", executor)
        assert status == 0, stderr
        tables.append({k: v for k, v in outcomes.of(out).items() if not k.endswith(".zip")})
    assert len(tables[0]) == 2 + len(load_suite("smoke").runs())
    assert tables[0] == tables[1]


@pytest.mark.usefixtures("on_the_cluster")
def test_a_node_that_dies_loses_nothing(
    cluster: Any, command_line: Any, pids: Path, tmp_path: Path, outcomes: Any
) -> None:
    text = command_line.suite.read_text().replace("steps = 60", "steps = 200")
    command_line.suite.write_text(text)
    before, out = len(list(pids.iterdir())), tmp_path / "out"
    runs = load_suite(str(command_line.suite)).runs()
    process = command_line.start(out, "--executor", "ray", "--workers", "4")
    _wait_for(lambda: len(list(pids.iterdir())) >= before + 2)  # one on each node
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    finished = {path.parent: path.read_bytes() for path in out.rglob(RUN)}
    cluster.add_node(**NODE)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert len(list(pids.iterdir())) > before + len(runs)  # the dead node's run was made again
    assert all((folder / RUN).read_bytes() == record for folder, record in finished.items())
    store = Store(out)
    assert all(store.is_finished(spec) for spec in runs)
    assert outcomes.of(out) == outcomes.undisturbed(command_line.suite, tmp_path / "calm")


@pytest.mark.usefixtures("on_the_cluster")
def test_a_killed_worker_and_a_failing_run_hurt_nobody_else(
    command_line: Any, pids: Path, tmp_path: Path
) -> None:
    before, out = {path.name for path in pids.iterdir()}, tmp_path / "out"
    text = command_line.suite.read_text().replace('"Toy"', '"ToyFails"').replace("= 60", "= 200")
    command_line.suite.write_text(text)
    process = command_line.start(out, "--executor", "ray", "--seeds", "1")
    learner = int(_wait_for(lambda: {path.name for path in pids.iterdir()} - before).pop())
    worker = int(Path(f"/proc/{learner}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, 9)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "ToyFails/seed0 failed: ArithmeticError: the toy broke" in stderr
    assert "| ToySlow " in stdout
    rows = pd.read_csv(out / "Line-hazard/ToySlow/seed0" / EVALUATION)
    assert len(rows) == 2 + 2 + 6


def test_no_cluster_at_the_address_is_one_line(
    command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    status, stdout, stderr = command_line.run(tmp_path / "out", "--executor", "ray", "--quiet")
    assert (status, stdout) == (2, "")
    assert stderr.splitlines()[-1].startswith("m3po-bench: --executor ray: ")
    assert "Traceback" not in stderr
