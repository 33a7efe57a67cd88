"""Published results pass; whatever is wrong with a folder is one line, never an exception."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3po_bench.leaderboard.checksums import KEY, sealed
from m3po_bench.leaderboard.files import compressed
from m3po_bench.leaderboard.grid import config_hash
from m3po_bench.leaderboard.report import write_report
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, EVALUATION, MODEL, RUN, SUITE, Store
from m3po_bench.leaderboard.verify import MAX_BYTES, verify

RESULTS = Path(__file__).parents[2] / "results"
NAME = "PointFwdBwd-hazard/SAC/seed1"


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in RESULTS.glob("*/suite.json")))
def test_published_results_pass(suite: str) -> None:
    runs, problems = verify(RESULTS / suite)
    assert problems == []
    assert runs == len(list((RESULTS / suite).rglob(RUN))) > 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of a published entry."""
    for seed in (0, 1):
        name = NAME.replace("seed1", f"seed{seed}")
        shutil.copytree(RESULTS / "quick" / name, tmp_path / name)
    return tmp_path


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        record = json.loads((run / RUN).read_text())
        change(record)
        (run / RUN).write_text(json.dumps(record))

    return apply


def honest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Another configuration, with the hash that belongs to it."""

    def both(record: dict[str, Any]) -> None:
        change(record["config"])
        record["config_hash"] = config_hash(record["config"])

    return edited(both)


def read(run: Path) -> str:
    return gzip.decompress((run / EVALUATION).read_bytes()).decode()


def write(run: Path, text: str) -> None:
    (run / EVALUATION).write_bytes(compressed(text.encode(errors="replace")))


def rows(old: str, new: str) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        text = read(run)
        assert old in text
        write(run, text.replace(old, new, 1))

    return apply


def moved(run: Path) -> None:
    run.rename(run.with_name("seed7"))


def linked(run: Path) -> None:
    (run / "model.zip").symlink_to("/etc/passwd")


def cut(run: Path) -> None:
    (run / EVALUATION).write_bytes((run / EVALUATION).read_bytes()[:-20])


def with_column(name: str, value: str) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        header, *lines = read(run).splitlines()
        write(run, "\n".join([f"{header},{name}", *(f"{line},{value}" for line in lines)]) + "\n")

    return apply


def test_what_an_env_reports_may_follow(folder: Path) -> None:
    with_column("directional_velocity", "0.5")(folder / NAME)
    _, problems = verify(folder)
    assert all("not as it was written" in problem for problem in problems), problems


def table(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(compressed(content))


AGES = b"age,changes,reward\n"


def generous(run: Path) -> None:
    lines = read(run).splitlines()
    paid = [",".join([*cells[:4], "900.0", *cells[5:]]) for cells in
            (line.split(",") for line in lines[1:])]  # fmt: skip
    write(run, "\n".join([lines[0], *paid]) + "\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (edited(lambda r: r.update(protocol="P0")), "protocol says protocol 'P0', expected P1"),
        (edited(lambda r: r["config"].update(steps=2999)), "is not its config's"),
        (honest(lambda c: c.update(kwargs={"gamma": 0.5})), "configured unlike other seeds"),
        (edited(lambda r: r.update(seed="1")), "seed = '1', expected a whole number"),
        (edited(lambda r: r.pop("config")), "config = None, expected an object"),
        (edited(lambda r: r.update(env_steps=12)), "12 env steps of 3,000"),
        (edited(lambda r: r.update(agent="Mine")), "config is for agent 'SAC'"),
        (edited(lambda r: r.update(env="M3PO/Nowhere-v0")), "is no meta-env known here"),
        (edited(lambda r: r.update(env="CartPole-v1")), "is no meta-env known here"),
        (edited(lambda r: r.update(env="Ant-v2")), "is no meta-env known here"),
        (edited(lambda r: r.update(env="phys2d/CartPole-v1")), "is no meta-env known here"),
        (edited(lambda r: r["training_seconds"].update(cpu=-1)), "training_seconds.cpu = -1"),
        (honest(lambda c: c["env_kwargs"].update(schedule="static")), "is for schedule 'static'"),
        (honest(lambda c: c.update(env_kwargs=[1])), "is for schedule None"),
        (lambda run: (run / CHANGES).write_bytes(b"garbage"), "changes.csv.gz: cannot be read"),
        (table(CHANGES, b""), "changes.csv.gz: expected the columns episode,step,length,drop"),
        (table(BY_AGE, b"age,reward\n0,1\n"), "by_age.csv.gz: expected the columns age,changes,"),
        (table(BY_AGE, AGES + b"0,5,x\n"), "by_age.csv.gz: expected the columns"),
        (table(BY_AGE, AGES + b"0,5,inf\n"), "of finite numbers"),
        (table(BY_AGE, AGES + b"0,5,\n"), "of finite numbers"),
        (table(BY_AGE, AGES + b"1,0,5,1\n"), "by_age.csv.gz: expected the columns"),
        (honest(lambda c: c.update(checkpoints=10**9)), "config.checkpoints = 1000000000"),
        (moved, f"its run.json is that of '{NAME}'"),
        (linked, "a link; links are not followed"),
        (rows("return", "score"), "expected the columns step,setting"),
        (with_column("<b>", "1"), "expected the columns step,setting"),
        (with_column("return", "1"), "expected the columns step,setting"),
        (with_column("seed", "1"), "expected the columns step,setting"),
        (with_column("speed", "nan"), "a number that is not finite"),
        (with_column("speed", "fast"), "could not convert string to float"),
        (rows("300,online,test,0,", "300,online,test,1,"), "step 300: episodes [1, 1, 2"),
        (rows("300,online,test,0,", "301,online,test,0,"), "checkpoints at [300, 301, 600"),
        (rows("300,online,test,0,", "300,offline,test,0,"), "setting 'offline'"),
        (rows("300,online,test,0,", "300,online,test,0,inf,100,1\n300,online,test,0,"), "inf"),
        (rows("300,online,test,0,", "300,online,test,zero,"), "invalid literal for int"),
        (rows(",100,", ",101,"), "length 101: impossible"),
        (lambda run: (run / EVALUATION).unlink(), "evaluation.csv.gz: missing"),
        (lambda run: (run / EVALUATION).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda run: (run / EVALUATION).write_bytes(compressed(b"\xff\xfe")), "not a text file"),
        (cut, "cannot be read"),
        (lambda run: write(run, "0" * (MAX_BYTES + 1)), "more than 50,000,000 bytes"),
        (lambda run: (run / RUN).write_text("[" * 100_000), "run.json:"),
        (lambda run: (run / RUN).write_text('{"seed": NaN}'), "NaN is not JSON"),
        (lambda run: (run / RUN).write_text("[]"), "expected an object"),
        (lambda run: shutil.rmtree(run.parents[2] / "PointFwdBwd-hazard"), "no finished run"),
        (generous, "is not believed"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    assert verify(folder) == (2, [])
    spoil(folder / NAME)
    _, problems = verify(folder)
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rows(",100,", ",99,"), "evaluation.csv.gz is not as it was written"),
        (edited(lambda r: r.update(cpu="faster")), "run.json is not as it was written"),
        (edited(lambda r: r[KEY].update({"../x": "0"})), "no table of checksums by file name"),
        (edited(lambda r: r[KEY].update(more=1)), "more is missing"),
        (edited(lambda r: r.update({KEY: [1]})), "no table of checksums by file name"),
    ],
)
def test_checksums_are_held_against_the_files(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    run = folder / NAME
    (run / MODEL).write_bytes(b"any")
    record = json.loads((run / RUN).read_text())
    del record[KEY]
    record = sealed(record, run, RUN, [EVALUATION, MODEL])
    (run / RUN).write_text(json.dumps(record))
    (run / MODEL).write_bytes(b"not opened, so not missed")
    assert verify(folder) == (2, [])
    spoil(run)
    _, problems = verify(folder)
    assert len(problems) == 1
    assert said in problems[0]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder, tables and all, cut down to one env."""
    root = tmp_path_factory.mktemp("reported") / "quick"
    for agent in ("M3PO", "SAC"):
        name = f"PointFwdBwd-hazard/{agent}"
        shutil.copytree(RESULTS / "quick" / name, root / name)
    shutil.copy(RESULTS / "quick" / SUITE, root)
    write_report(Store(root))
    return root


def test_what_is_reported_passes(reported: Path) -> None:
    assert "<img" in (reported / "leaderboard.html").read_text()
    assert verify(reported) == (6, [])


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: shutil.rmtree(root / NAME), f"'{NAME}': no finished run, but runs.csv lists"),
        (lambda root: (root / NAME / RUN).unlink(), f"'{NAME}': no finished run, but runs.csv"),
        (replaced("leaderboard.md", "| M3PO ", "| Mine "), "leaderboard.md: line"),
        (replaced("leaderboard.csv", "hazard,online", "hazard,offline"), "leaderboard.csv: line"),
        (replaced("leaderboard.html", "<td>SAC<", "<td>Best<"), "leaderboard.html: line"),
        (replaced("leaderboard.tex", "SAC", "Best"), "leaderboard.tex: line"),
        (replaced("pairs.csv", "SAC", "Best"), "pairs.csv: line 2 is not what the runs give"),
        (replaced("runs.csv", "3000", "300"), "runs.csv: line 2 is not what the runs give"),
        (lambda root: (root / "runs.csv").unlink(), "runs.csv: missing"),
        (lambda root: (root / "runs.csv").write_text("a,b\n"), "expected the columns agent, env"),
        (lambda root: (root / "runs.csv").write_bytes(b"\xff"), "runs.csv: not a text file"),
        (lambda root: (root / "over_envs.csv").touch(), "over_envs.csv: the runs give no such"),
        (replaced(SUITE, '"seeds": 3', '"seeds": 5'), "leaderboard.md: line"),
        (lambda root: (root / SUITE).write_text("[" * 100_000), "suite.json: not JSON"),
    ],
)
def test_what_was_taken_away_or_written_into_a_table_is_said(
    reported: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    root = tmp_path / "quick"
    shutil.copytree(reported, root)
    spoil(root)
    _, problems = verify(root)
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_strange_values_that_no_table_can_be_made_of_are_said(
    reported: Path, tmp_path: Path
) -> None:
    root = tmp_path / "quick"
    shutil.copytree(reported, root)
    record = json.loads((root / NAME / RUN).read_text())
    record["training_seconds"]["wall"] = "long"
    del record[KEY]
    (root / NAME / RUN).write_text(json.dumps(record))
    assert "no tables can be made of its runs: ValueError" in verify(root)[1][0]


def test_what_was_set_aside_is_not_looked_at(folder: Path) -> None:
    run = folder / NAME
    shutil.copytree(run, run.with_name("seed1.0123456789ab"))
    shutil.copytree(run, run.with_name("seed1.damaged-2"))
    assert verify(folder) == (2, [])


def test_a_folder_behind_a_link_is_as_good_as_any(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    (folder / "PointFwdBwd-hazard").rename(tmp_path / "real" / "PointFwdBwd-hazard")
    link.symlink_to(tmp_path / "real")
    assert verify(link) == (2, [])
    (tmp_path / "real" / "Other-hazard").symlink_to(tmp_path / "real" / "PointFwdBwd-hazard")
    runs, problems = verify(link)
    assert (runs, len(problems)) == (2, 1)
    assert "Other-hazard: a link; links are not followed" in problems[0]


def test_what_is_too_deep_to_read_or_to_write_again_is_said(folder: Path) -> None:
    shutil.rmtree(folder / NAME.replace("seed1", "seed0"))
    path = folder / NAME / RUN
    text = path.read_text()
    for depth in range(880, 1000):  # between them, what can be read cannot be hashed
        deep = "[" * depth + "]" * depth
        path.write_text(text.replace('"config": {', f'"config": {{"deep": {deep},'))
        assert Store(folder).damaged()
        runs, problems = verify(folder)
        assert runs == 1
        assert any(said in " ".join(problems) for said in ("nested too deeply", "is not its conf"))


def test_large_files_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3po_bench.leaderboard.verify.MAX_BYTES", 10)
    assert "run.json: more than 10 bytes" in verify(folder)[1][0]


hostile = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KEYS = ["agent", "env", "schedule", "seed", "config_hash", "config", "protocol", "env_steps",
        "training_seconds", "versions"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_anywhere_is_survived(folder: Path, key: str, value: Any) -> None:
    edited(lambda record: record.update({key: value}))(folder / NAME)
    try:
        runs, problems = verify(folder)
        assert runs == 2
        assert all(isinstance(problem, str) and "\n" not in problem for problem in problems)
    finally:
        shutil.copy(RESULTS / "quick" / NAME / RUN, folder / NAME / RUN)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=200), at=st.integers(0, 400))
def test_any_text_among_the_rows_is_survived(folder: Path, text: str, at: int) -> None:
    whole = read(RESULTS / "quick" / NAME)
    write(folder / NAME, whole[:at] + text + whole[at:])
    assert all("\n" not in problem for problem in verify(folder)[1])
