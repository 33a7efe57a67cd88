"""Storms of faults over suites of toys: nothing finished is lost, doubled or changed."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.checksums import KEY
from m3po_bench.leaderboard.files import compressed
from m3po_bench.leaderboard.grid import RunSpec
from m3po_bench.leaderboard.runner import Run
from m3po_bench.leaderboard.store import ERROR, EVALUATION, MODEL, RUN, TRACE, Store
from m3po_bench.leaderboard.suite_files import load_suite

FUSES = ("kill", "raise", "nan", "full")
SCHEDULER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from m3po_bench.leaderboard.executors import LocalExecutor
from m3po_bench.leaderboard.suite_files import load_suite
from m3po_bench.leaderboard.scheduler import run_all
from m3po_bench.leaderboard.store import Store
from m3po_bench.leaderboard.options import RunOptions

store = Store(Path(sys.argv[2]))
display = SimpleNamespace(update=lambda state: None, message=lambda text: None)
executor = LocalExecutor(store, 2, RunOptions())
run_all(load_suite(sys.argv[1]).runs(), store, executor, display, retries=1)
"""
"""``m3po-bench run`` without its report, which costs more than all of these runs."""


class Storm:
    """Schedulers on one folder while processes are killed, fail and lose their files."""

    kills: Iterator[str] = itertools.cycle(("worker", "scheduler", "group"))

    def __init__(self, command_line: Any, out: Path, faults: Path, rng: random.Random) -> None:
        self.command_line, self.out, self.faults, self.rng = command_line, out, faults, rng
        self.store = Store(out)
        self.runs: tuple[RunSpec, ...] = load_suite(str(command_line.suite)).runs()
        self.struck: Counter[str] = Counter()
        self.schedulers: list[subprocess.Popen[str]] = []
        self.finished: dict[str, bytes] = {}

    def lay(self, n: int) -> None:
        """Leave faults for the processes to come."""
        for _ in range(n):
            number = sum(self.struck[kind] for kind in FUSES)
            kind, step = FUSES[number % len(FUSES)], self.rng.randint(1, 60)
            (self.faults / f"{kind}-{step}-{number}").touch()
            self.struck[kind] += 1  # before the round ends

    def blow(self, seconds: float) -> None:
        """Two schedulers, in the middle of which something is killed."""
        command = [sys.executable, "-c", SCHEDULER, str(self.command_line.suite), str(self.out)]
        self.schedulers = [
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
            for _ in range(2)
        ]
        time.sleep(self.rng.uniform(0.3, seconds))
        self.kill(next(self.kills))
        for scheduler in self.schedulers:
            _, stderr = scheduler.communicate(timeout=900)
            assert "Traceback" not in stderr, stderr
        self.look()

    def kill(self, what: str) -> None:
        """Kill a scheduler, with or without its group, or a worker; if they have not all ended."""
        while living := [process for process in self.schedulers if process.poll() is None]:
            victim = self.rng.choice(living)
            workers = _children(victim.pid)
            if what == "worker" and not workers:
                time.sleep(0.02)
                continue
            if what == "group":
                os.killpg(victim.pid, signal.SIGKILL)
            else:
                pid = self.rng.choice(workers) if what == "worker" else victim.pid
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.struck[f"kill {what}"] += 1
            return

    def look(self) -> None:
        """What was finished is still there as it was; take note of what is finished now."""
        for spec in self.runs:
            rows = self.store.folder(spec) / EVALUATION
            if spec.run_id in self.finished:
                assert self.store.is_finished(spec), f"{spec.run_id} was lost"
                assert rows.read_bytes() == self.finished[spec.run_id]
            elif self.store.is_finished(spec):
                self.finished[spec.run_id] = rows.read_bytes()

    def damage(self) -> None:
        """Cut a file of a finished run short, or edit it."""
        if not self.finished:
            return
        run_id = self.rng.choice(sorted(self.finished))
        path = self.out / run_id / self.rng.choice((EVALUATION, RUN, MODEL))
        content = path.read_bytes()
        at = self.rng.randrange(len(content) - 1)
        edited = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        path.write_bytes(self.rng.choice((content[:at], edited)))
        del self.finished[run_id]
        assert [str(folder) for folder, _ in self.store.damaged()] == [str(self.out / run_id)]
        self.struck["damage"] += 1


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _weather(
    command_line: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: Any,
    n_faults: int,
    gusts: int,
    laid: int,
) -> Counter[str]:
    """Rounds of storm until so many faults have struck; each must end as if nothing had been.

    Args:
        gusts: In each round.
        laid: Faults laid for the processes of a gust.
    """
    rng = random.Random(n_faults)
    expected = outcomes.undisturbed(command_line.suite, tmp_path / "calm")
    faults, alone = tmp_path / "faults", tmp_path / "alone"
    for name, folder in (("TOY_FAULTS", faults), ("TOY_ALONE", alone)):
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    struck: Counter[str] = Counter()
    number = 0
    while struck.total() < n_faults:
        storm = Storm(command_line, tmp_path / f"storm{number}", faults, rng)
        for _ in range(gusts):
            storm.damage()
            storm.lay(laid)
            storm.blow(3.0)
        while len(storm.finished) < len(storm.runs) or any(faults.iterdir()):
            if any(faults.iterdir()):  # somebody must meet them
                storm.damage()
            storm.blow(3.0)
        status, _, stderr = command_line.run(storm.out)
        assert status == 0, stderr
        storm.look()
        assert outcomes.of(storm.out) == expected
        struck += storm.struck
        number += 1
    assert not list(alone.glob("overlap-*"))
    return struck


def test_a_few_faults_change_nothing(
    command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: Any
) -> None:
    struck = _weather(command_line, tmp_path, monkeypatch, outcomes, n_faults=6, gusts=2, laid=2)
    assert {"kill", "raise", "nan", "full"} <= set(struck)


@pytest.mark.slow
def test_two_hundred_faults_change_nothing(
    command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: Any
) -> None:
    text = command_line.suite.read_text().replace("seeds = 2", "seeds = 6")
    command_line.suite.write_text(text)
    struck = _weather(
        command_line, tmp_path, monkeypatch, outcomes, n_faults=220, gusts=5, laid=8
    )  # more than 200: some wait for a step that their process, killed before, never makes
    assert {*FUSES, "kill group", "kill scheduler", "kill worker", "damage"} <= set(struck)


def test_a_failed_run_is_tried_again(
    command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, faults = tmp_path / "out", tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setenv("TOY_FAULTS", str(faults))
    select = ("--agents", "Toy", "--seeds", "1")
    for number in range(3):
        (faults / f"raise-5-{number}").touch()
    status, _, stderr = command_line.run(out, *select, "--retries", "1")
    assert status == 1
    assert stderr.count("the toy broke (") == 2
    assert "trying again, 0 retries left" in stderr
    status, _, stderr = command_line.run(out, *select, "--retries", "1")
    assert (status, list(faults.iterdir())) == (0, [])
    assert "1 finished" in stderr
    assert not list(out.rglob(ERROR))


def test_a_run_over_the_time_limit_is_ended(command_line: Any, tmp_path: Path) -> None:
    long = command_line.suite.read_text().replace("steps = 60", "steps = 100_000")
    command_line.suite.write_text(long)
    out, select = tmp_path / "out", ("--agents", "ToySlow", "--seeds", "1")
    status, _, stderr = command_line.run(out, *select, "--time-limit-min", "0.03")
    reason = "ended after 0.03 minutes, the limit of --time-limit-min"
    assert status == 1
    assert f"Line-hazard/ToySlow/seed0 failed: {reason}" in stderr
    assert reason in (out / "Line-hazard/ToySlow/seed0" / ERROR).read_text()


def test_a_run_over_the_memory_limit_is_ended_and_others_are_not(
    command_line: Any, tmp_path: Path
) -> None:
    text = command_line.suite.read_text().replace('"ToySlow"', '"ToyHoards"')
    command_line.suite.write_text(f"{text}\n[budgets.ToyHoards]\nsteps = 100_000\n")
    out = tmp_path / "out"
    status, stdout, stderr = command_line.run(out, "--seeds", "1", "--memory-limit-gb", "0.3")
    assert status == 1
    assert "Line-hazard/ToyHoards/seed0 failed: ended at 0." in stderr
    error = (out / "Line-hazard/ToyHoards/seed0" / ERROR).read_text()
    assert "over --memory-limit-gb 0.3" in error
    assert "| Toy " in stdout


def test_limits_that_are_kept_change_nothing(command_line: Any, tmp_path: Path) -> None:
    limits = ("--time-limit-min", "2", "--memory-limit-gb", "2")
    status, _, stderr = command_line.run(tmp_path / "out", "--agents", "Toy", *limits)
    assert status == 0, stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_that_meets_it(command_line: Any, small_disk: Path) -> None:
    out = small_disk / "out"
    status, _, stderr = command_line.run(out, "--agents", "ToyLarge,Toy", "--seeds", "1")
    assert status == 1
    assert "ToyLarge/seed0 failed: OSError: [Errno 28] No space left on device" in stderr
    assert "Traceback" not in stderr
    assert Store(out).finished()[0][1]["agent"] == "Toy"
    assert not list(out.rglob(f"*{MODEL}.*"))
    assert len(list(out.glob(f"*/ToyLarge/*/*{MODEL}"))) == 0  # half a model would fill the disk


def test_on_a_full_disk_every_run_fails_with_that_reason(
    command_line: Any, small_disk: Path
) -> None:
    out = small_disk / "out"
    ballast = small_disk / "ballast"
    out.mkdir()
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(10**6))
    status, _, stderr = command_line.run(out, "--agents", "Toy")
    assert status == 1
    assert "No space left on device" in stderr
    assert "Traceback" not in stderr
    ballast.unlink()
    status, _, stderr = command_line.run(out, "--agents", "Toy", "--seeds", "1")
    assert status == 0, stderr


def test_damaged_runs_are_named_and_left_out_then_set_aside(
    command_line: Any, tmp_path: Path, outcomes: Any
) -> None:
    out, select = tmp_path / "out", ("--agents", "Toy")
    assert command_line.run(out, *select)[0] == 0
    before = outcomes.of(out)
    rows = out / "Line-hazard/Toy/seed1" / EVALUATION
    text = gzip.decompress(rows.read_bytes())
    rows.write_bytes(compressed(text.replace(b"-0.", b"-0.0")))
    report = _report(out)
    assert f"{rows.parent}: {EVALUATION} is not as it was written; left out" in report.stderr
    assert "| 1 of 2" in report.stdout
    status, _, stderr = command_line.run(out, *select)
    assert status == 0
    assert f"not as it was written; now in {rows.parent}.damaged" in stderr
    assert stderr.count("started ") == 1
    assert outcomes.of(out) == before


def _report(out: Path) -> subprocess.CompletedProcess[str]:
    code = "from m3po_bench.cli import main; main()"
    command = [sys.executable, "-c", code, "report", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_records_tell_what_they_were_written_with(command_line: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    spec = load_suite(str(command_line.suite)).runs()[0]
    Run(spec, store).execute()
    path = store.folder(spec) / RUN
    record = json.loads(path.read_text())
    assert set(record[KEY]) == {RUN, EVALUATION, MODEL, TRACE}
    assert store.damaged() == []
    (store.folder(spec) / MODEL).unlink()  # as in what is published
    assert store.is_finished(spec)
    for spoilt, said in (
        ({**record, "env_steps": 61}, "run.json is not as it was written"),
        ({**record, KEY: {**record[KEY], "../x": ""}}, "no table of checksums"),
        ({**record, KEY: []}, "no table of checksums"),
        ([], "not a run's record"),
    ):
        path.write_text(json.dumps(spoilt))
        assert not store.is_finished(spec)
        assert store.finished() == []
        ((folder, problem),) = store.damaged()
        assert (folder, said in problem) == (path.parent, True)
    path.write_text(json.dumps(record)[:-20])
    assert store.damaged() == [(path.parent, "run.json is not JSON")]
    path.write_text(json.dumps({key: record[key] for key in record if key != KEY}))
    assert store.is_finished(spec)  # made before there were checksums
