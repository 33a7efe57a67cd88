from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., tuple[Any, str, str]]
RESULTS = Path(__file__).parents[1] / "results"
RUN = RESULTS / "quick" / "PointFwdBwd-hazard" / "SAC" / "seed0"
AGENT = RESULTS / "zoo" / "PointFwdBwd-hazard" / "SAC"
SUITE = """\
name = "mine"
envs = ["PointFwdBwd"]
schedule = "hazard"
agents = ["SAC"]
seeds = 1
steps = 100
checkpoints = 2
"""


pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "quick"], "unknown command 'rnu'; nearest: run"),
        ([], "run, report, list, train, eval"),
        (["run"], "Missing from m3po-bench run"),
        (["run", "qick"], "unknown suite 'qick'; nearest: quick"),
        (["run", "quick", "--agents", "M3P0"], "unknown agent 'M3P0'; nearest: M3PO"),
        (["run", "quick", "--envs", "PointFwd"], "nearest: PointFwdBwd"),
        (["run", "quick", "--wrkers", "2"], "nearest: --workers"),
        (["run", "quick", "--workers", "two"], "'two'"),
        (["run", "quick", "--workers", "-1"], "--workers -1"),
        (["run", "quick", "--seeds", "0"], "seeds = 0"),
        (["run", "quick", "--executor", "locl"], "nearest: local"),
        (["run", "quick", "--gpus", "1"], "only --executor ray and slurm"),
        (["run", "quick", "--gpus", "-1"], "--gpus -1"),
        (["run", "quick", "--retries", "-1"], "--retries -1"),
        (["run", "quick", "--time-limit-min", "-5"], "--time-limit-min -5"),
        (["run", "quick", "--continue-published"], "no results/quick in the current folder"),
        (["run", "quick", "--time-limit-min", "nan"], "--time-limit-min nan"),
        (["run", "quick", "--memory-limit-gb", "inf"], "--memory-limit-gb inf"),
        (["run", "quick", "--memory-limit-gb", "much"], "'much'"),
        (["run", "none.toml"], "none.toml: No such file"),
        (["report", "nowhere"], "unknown results folder 'nowhere', and none in results/runs; make"),
        (["report"], "no results in results/runs"),
        (["train", "--agent", "SAX", "--env", "PointFwdBwd", "--steps", "1", "--out", "m"],
         "unknown agent 'SAX'; nearest: SAC"),
        (["train", "--agent", "SAC", "--env", "PointFwdBwd", "--steps", "0", "--out", "m"],
         "steps = 0"),
        (["train", "--agent", "SAC", "--env", "Pendlum", "--steps", "1", "--out", "m"],
         "unknown env 'Pendlum'"),
        (["train", "--agent", "SAC", "--env", "PointFwdBwd", "--steps", "1", "--out", "m",
          "--schedule", "hazrd"], "unknown schedule 'hazrd'; nearest: hazard"),
        (["train", "--agent", "SAC", "--env", "PointFwdBwd", "--steps", "1", "--out", "m",
          "--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
        (["train", "--agent", "SAC", "--env", "PointFwdBwd", "--steps", "1", "--out", "m.json"],
         "--out m.json: expected a name that ends in .zip"),
        (["eval", "none.zip"], "no model at none.zip"),
        (["eval", ".."], "agent.json: missing"),
        (["play", "none.zip"], "no model at none.zip"),
        (["play", "none.zip", "--out", "x.avi"], "format '.avi'; expected .gif or .mp4"),
        (["run", "quick", "--seeds", "zero"], "--seeds 'zero': expected a whole number"),
        (["run", "quick", "--workers", "1.5"], "--workers '1.5': expected a whole number"),
        (["theory", "--gamma", "x"], "--gamma 'x': expected a number"),
        (["eval", str(AGENT), "--episodes", "1000"],
         "--episodes 1000: M3PO/PointFwdBwd-v0 has 40 test episodes; expected no more, or 0 for"),
        (["train", "--agent", "SAC", "--env", "Pendulum-v1", "--steps", "9", "--out", "m.zip"],
         "Pendulum-v1 with schedule 'hazard': it takes no split and no schedule"),
        (["export", "none.zip"], "no model at none.zip"),
        (["export", ".."], "no model at .."),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_starts_nothing(
    arguments: list[str],
    message: str,
    empty_folder: Path,
    call: Call,
) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(empty_folder.iterdir())


TRAIN = ["train", "--agent", "Random", "--env", "PointFwdBwd", "--steps", "9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smoke", "--out", "file"], "--out file: file is a file; expected a folder"),
        (["run", "smoke", "--out", "file/x"], "--out file/x: file is a file; expected a folder"),
        ([*TRAIN, "--out", "file/x.zip"], "--out file/x.zip: file is a file; expected a folder"),
        ([*TRAIN, "--out", "folder.zip"], "--out folder.zip: is a folder; expected a file"),
        ([*TRAIN, "--out", "note.zip"], "--out note.json: is a folder; expected a file"),
        (["theory", "--out", "file"], "--out file: file is a file; expected a folder"),
        (["play", str(AGENT), "--out", "file/x.gif"], "--out file/x.gif: file is a file"),
        (["references", "note.json", "--out", "file/x.json"], "--out file/x.json: file is a file"),
        (["references", "note.json", "--out", "folder.zip"], "folder.zip: is a folder"),
        (["references", "note.json", "--out", "file"], "file: no references; expected JSON"),
        (["eval", str(RUN)], f"no model.zip in {RUN}: published runs keep none; expected an agent"),
        (["export", str(RUN)], "published runs keep none"),
        (["eval", "list.zip"], "list.json: expected an object that tells of list.zip"),
        (["export", "list.zip"], "list.json: expected an object that tells of list.zip"),
        (["eval", "broken.zip"], "broken.json: not JSON; expected an object"),
        (["play", "broken.zip"], "broken.json: not JSON; expected an object"),
        (["export", "broken.zip"], "broken.json: not JSON; expected an object"),
        (["eval", "number.zip"], "number.json: agent = 3, expected text"),
    ],
)
def test_what_is_in_the_way_is_one_line_and_starts_nothing(
    arguments: list[str],
    message: str,
    empty_folder: Path,
    call: Call,
) -> None:
    Path("file").write_text("no JSON")
    for folder in ("folder.zip", "note.json"):
        Path(folder).mkdir()
    for name, note in (("list", "[1]"), ("broken", "{"), ("number", '{"agent": 3}')):
        Path(f"{name}.zip").touch()
        Path(f"{name}.json").write_text(note)
    before = {path: path.stat().st_mtime_ns for path in empty_folder.rglob("*")}
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in empty_folder.rglob("*")} == before


@pytest.mark.parametrize(("content", "said"), [("{", "not JSON"), ("{}", "name = 'None'")])
def test_a_broken_note_of_a_suite_is_one_line(
    content: str, said: str, empty_folder: Path, call: Call
) -> None:
    shutil.copytree(RUN, empty_folder / "quick" / Path(*RUN.parts[-3:]))
    Path("quick/suite.json").write_text(content)
    status, out, err = call("report", "quick")
    assert (status, out) == (2, "")
    assert f"quick/suite.json: {said}; expected a suite's name and number of seeds" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "train"])
def test_only_a_suite_goes_on_where_it_was_interrupted(
    command: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("m3po_bench.run_command.check_envs", interrupted)
    monkeypatch.setattr("m3po_bench.model_commands.check_envs", interrupted)
    arguments = ["run", "smoke"] if command == "run" else [*TRAIN, "--out", "m.zip"]
    status, _, err = call(*arguments)
    assert status == 130
    assert ("finished runs are kept" in err) == (command == "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(200, 256)), "not a text file"),
        (b"name = [", "not valid TOML"),
        (SUITE.replace("steps", "stepz").encode(), "unknown key 'stepz'; nearest: steps"),
        (SUITE.replace("hazard", "hazrd").encode(), "unknown schedule 'hazrd'; nearest: hazard"),
        (SUITE.replace("SAC", "SACK").encode(), "unknown agent 'SACK'; nearest: SAC"),
        (SUITE.replace("PointFwdBwd", "PointFwd").encode(), "unknown env 'PointFwd'"),
    ],
)
def test_bad_suite_file_is_one_line_and_starts_nothing(
    content: bytes, message: str, tmp_path: Path, empty_folder: Path,
    call: Call,
) -> None:  # fmt: skip
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    status, out, err = call("run", str(path))
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(empty_folder.iterdir())


@pytest.mark.parametrize(("extra", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_one_line_and_starts_nothing(
    extra: str, package: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:  # fmt: skip
    monkeypatch.setattr("m3po_bench.leaderboard.options.find_spec", lambda name: None)
    status, out, err = call("run", "quick", "--executor", extra)
    assert (status, out) == (2, "")
    assert f'needs {package}; install it with: pip install "m3po-bench[{extra}]"' in err
    assert err.count("\n") == 1
    assert not list(empty_folder.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "needs --time-limit-min"),
        (("--time-limit-min", "9", "--gpus", "0.5"), "--gpus 0.5: Slurm hands out whole GPUs"),
        (("--time-limit-min", "9"), "no srun here"),
    ],
)
def test_what_slurm_needs_is_said_before_anything_starts(
    options: tuple[str, ...], message: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:  # fmt: skip
    monkeypatch.setattr("m3po_bench.leaderboard.options.find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(empty_folder))
    status, out, err = call("run", "quick", "--executor", "slurm", *options)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(empty_folder.iterdir())


def test_dry_run_lists_and_starts_nothing(empty_folder: Path, call: Call) -> None:
    arguments = ("run", "quick", "--envs", "PointFwdBwd", "--seeds", "1", "--dry-run")
    status, out, _ = call(*arguments)
    assert status == 0
    *lines, total = out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "PointFwdBwd-hazard/M3PO/seed0",
        "PointFwdBwd-hazard/SAC/seed0",
    ]
    assert total == "2 runs, 0 finished; 2 to make, of unknown cost"
    runs = json.loads(call(*arguments, "--json")[1])["runs"]
    assert [run["finished"] for run in runs] == [False, False]
    assert not list(empty_folder.iterdir())


def test_list_names_everything(call: Call) -> None:
    status, out, _ = call("list")
    found = json.loads(call("list", "--json")[1])
    assert status == 0
    for name in ("M3PO", "SAC", "M3PO/PointFwdBwd-v0", "quick"):
        assert name in out
    assert {"M3PO", "SAC", "Oracle", "Random"} <= set(found["agents"])
    assert found["agents"]["Oracle"]["is_told"]
    assert "M3PO/HalfCheetahFwdBwd-v0" in found["envs"]
    assert {"smoke", "quick", "lite"} <= set(found["suites"])


@pytest.mark.parametrize(
    "command",
    ["", "run", "report", "list", "train", "eval", "play", "export", "references", "theory"],
)
def test_help_shows_examples(command: str, call: Call) -> None:
    status, out, _ = call(*command.split(), "--help")
    assert status == 0
    assert f"  m3po-bench {command or 'run'}" in out


def test_run_and_report_print_the_leaderboard(
    tmp_path: Path, empty_folder: Path, call: Call
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE.replace("SAC", "Random"))
    status, out, err = call("run", str(path), "--quiet", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["failed"] == {}
    assert said["leaderboard"][0]["agent"] == "Random"
    assert all(Path(name).exists() for name in said["files"])
    assert Path("results/runs/mine/leaderboard.csv").exists()
    run = "results/runs/mine/PointFwdBwd-hazard/Random/seed0"
    assert call("export", run)[1] == "results/zoo/PointFwdBwd-hazard/Random\n"
    recipe = json.loads(Path("results/zoo/PointFwdBwd-hazard/Random/agent.json").read_text())
    assert recipe["origin"]["env_steps"] == 100
    assert call("eval", run, "--episodes", "1")[0] == 0
    for arguments in (("report",), ("report", "mine"), ("report", "results/runs/mine")):
        status, out, _ = call(*arguments)
        assert status == 0
        assert "| Random" in out
        assert "results/runs/mine/leaderboard.csv" in out


def test_list_and_help_need_no_heavy_imports() -> None:
    for arguments in (["list"], ["--help"]):
        code = (
            "import contextlib, sys\nfrom m3po_bench.cli import main\n"
            f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
            "heavy = {'torch', 'mujoco', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_torch_has_one_thread_unless_more_are_asked_for(asked: str | None, threads: int) -> None:
    code = (
        "import contextlib\nfrom m3po_bench.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['list'])\n"
        f"import torch\nassert torch.get_num_threads() == {threads}, torch.get_num_threads()\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    env |= {} if asked is None else {"OMP_NUM_THREADS": asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_theory_prints_bounds_and_draws_them(empty_folder: Path, call: Call) -> None:
    status, out, _ = call("theory")
    assert status == 0
    assert "| full |" in out
    assert "Best length by B3: k = 1" in out  # the model error exceeds the policy shift
    arguments = ("theory", "--eps-m-prime", "0.001", "--json", "--out", "drawn")
    status, out, _ = call(*arguments)
    found = json.loads(out)
    assert (status, found["best_k"]) == (0, "full")
    assert found["bounds"]["1"]["B2"] == pytest.approx(2 * 0.99 * (0.01 * 0.01 + 0.01) / 0.01**2)
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in found["files"])
    status, out, err = call("theory", "--gamma", "1")
    assert (status, out, err) == (2, "", "m3po-bench: gamma is 1; expected in [0, 1)\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from m3po_bench.cli import main; main(['run', 'nonstationary', '--dry-run'])"
    command = f'"{sys.executable}" -c "{code}" | head -n 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ})
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_option_of_another_command_is_not_its_own_nearest(call: Call) -> None:
    status, _, err = call("report", "quick", "--quiet")
    assert status == 2
    assert "--quiet" in err
    assert "nearest" not in err


def test_it_says_its_version(call: Call) -> None:
    code, out, _ = call("--version")
    assert not code
    assert re.fullmatch(r"m3po-bench \d+\.\d+\.\d+\n", out)
