from __future__ import annotations

import contextlib
import gzip
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3po_bench.leaderboard.files import write_atomically
from m3po_bench.leaderboard.grid import RunSpec, SuiteError
from m3po_bench.leaderboard.lock import LostLockError
from m3po_bench.leaderboard.store import BY_AGE, CHANGES, EVALUATION, MODEL, ROWS, RUN, SUITE, Store
from m3po_bench.leaderboard.suite_files import parse_suite


@pytest.fixture
def spec(toys: Any) -> RunSpec:
    return parse_suite(tomllib.loads(toys.SUITE.text)).runs()[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def _finish(store: Store, spec: RunSpec) -> None:
    store.begin(spec)
    store.finish(spec, {})


def test_a_run_is_finished_when_its_record_is_there(store: Store, spec: RunSpec) -> None:
    store.begin(spec)
    assert not store.is_finished(spec)
    store.finish(spec, {})
    assert store.is_finished(spec)
    assert not store.is_finished(replace(spec, seed=1))


def test_beginning_again_forgets_an_unfinished_run(store: Store, spec: RunSpec) -> None:
    for _ in range(2):
        folder = store.begin(spec)
        store.add_rows(spec, [(1, "online", "test", 0, "0.5", 3, 0)])
    assert len((folder / ROWS).read_text().splitlines()) == 2
    store.finish(spec, {})
    store.begin(spec)
    assert not store.is_finished(spec)


@pytest.mark.parametrize("name", ["return", "seed", "a b", ""])
def test_an_env_cannot_report_under_a_name_that_is_taken(
    store: Store, spec: RunSpec, name: str
) -> None:
    with pytest.raises(ValueError, match="expected names of lower-case letters"):
        store.begin(spec, reported=(name,))
    assert not store.folder(spec).exists()


def test_other_configurations_are_set_aside_for_all_seeds(store: Store, spec: RunSpec) -> None:
    old = replace(spec, budget=replace(spec.budget, steps=99))
    for seed in range(3):
        _finish(store, replace(old, seed=seed))
    other_agent = replace(old, agent="Toy")
    _finish(store, other_agent)
    moved = [path for _, _, path in store.set_aside_misfits(spec)]
    assert [path.name for path in moved] == [f"seed{i}.{old.config_hash}" for i in range(3)]
    assert all((path / RUN).exists() for path in moved)
    assert [record["agent"] for _, record in store.finished()] == ["Toy"]
    _finish(store, old)
    assert store.set_aside_misfits(spec)[0][2].name == f"seed0.{old.config_hash}-2"
    assert store.set_aside_misfits(spec) == []


def test_a_run_that_another_process_finished_a_moment_ago_is_set_aside(
    store: Store, spec: RunSpec
) -> None:
    """Of another configuration, after everybody's were looked at: its maker waited for this one."""
    other = replace(spec, budget=replace(spec.budget, steps=99))
    assert store.set_aside_misfits(spec) == []
    _finish(store, other)
    _finish(store, spec)
    assert store.is_finished(spec)
    kept = store.folder(spec).with_name(f"seed0.{other.config_hash}")
    assert (kept / RUN).exists()
    assert (kept / EVALUATION).exists()


def test_equal_configurations_stay(store: Store, spec: RunSpec) -> None:
    _finish(store, spec)
    assert store.set_aside_misfits(replace(spec, seed=1)) == []
    assert store.is_finished(spec)


def test_who_has_lost_the_lock_writes_no_more_rows(store: Store, spec: RunSpec) -> None:
    store.lock = store.acquire(spec)
    assert store.lock is not None
    store.begin(spec)
    store.add_rows(spec, [(1, "online", "test", 0, "0.5", 3, 0)])
    store.lock.release()
    assert store.acquire(spec) is not None
    with pytest.raises(LostLockError, match="has taken this run over"):
        store.add_rows(spec, [(2, "online", "test", 0, "0.5", 3, 0)])
    with pytest.raises(LostLockError):
        store.finish(spec, {})
    assert len((store.folder(spec) / ROWS).read_text().splitlines()) == 2
    assert not store.is_finished(spec)


def test_what_somebody_makes_is_not_set_aside(store: Store, spec: RunSpec) -> None:
    _finish(store, replace(spec, budget=replace(spec.budget, steps=99)))
    lock = store.acquire(spec)
    assert lock is not None
    assert store.set_aside_misfits(spec) == []
    lock.release()
    assert len(store.set_aside_misfits(spec)) == 1


def test_a_failed_write_leaves_nothing(store: Store, spec: RunSpec) -> None:
    folder = store.begin(spec)

    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.keep_model(spec, half)
    assert [path.name for path in folder.iterdir()] == [ROWS]


def _leave_half_written(folder: Path) -> list[Path]:
    """What a kill may leave in a run's folder, and beside it."""
    half = folder.with_name(f".{folder.name}.123")
    half.mkdir(parents=True)
    files = [half / RUN, *(folder / name for name in (f".123.{MODEL}", f".{CHANGES}.123"))]
    for path in files:
        path.write_text("half")
    return [half, *files]


def test_what_a_kill_left_goes_when_the_run_is_made_anew(store: Store, spec: RunSpec) -> None:
    left = _leave_half_written(store.begin(spec))
    other = store.begin(replace(spec, seed=10)) / ".of another run, which may be live"
    other.touch()
    store.begin(spec)
    assert [path for path in left if path.exists()] == []
    assert other.exists()


def test_what_a_kill_left_is_not_copied(store: Store, spec: RunSpec, tmp_path: Path) -> None:
    published = Store(tmp_path / "published")
    _finish(published, spec)
    _leave_half_written(published.folder(spec))
    left = _leave_half_written(store.begin(spec))
    assert store.adopt(spec, published)
    assert [path for path in left if path.exists()] == []
    assert sorted(path.name for path in store.folder(spec).iterdir()) == [EVALUATION, RUN]
    assert [path.name for path in store.folder(spec).parent.iterdir()] == ["seed0"]


def test_writing_replaces_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_of_a_finished_run_are_compressed_and_the_same_for_the_same(
    store: Store, spec: RunSpec
) -> None:
    for seed in (0, 1):
        store.begin(replace(spec, seed=seed))
        store.add_rows(replace(spec, seed=seed), [(1, "online", "test", 0, "0.5", 3, 0)])
        store.finish(replace(spec, seed=seed), {})
    first, second = (store.folder(replace(spec, seed=seed)) / EVALUATION for seed in (0, 1))
    assert gzip.decompress(first.read_bytes()).decode().splitlines()[1:] == [
        "1,online,test,0,0.5,3,0"
    ]
    assert first.read_bytes() == second.read_bytes()
    assert not first.with_name(ROWS).exists()


def test_what_is_finished_elsewhere_is_taken_over(
    store: Store, spec: RunSpec, tmp_path: Path
) -> None:
    other = Store(tmp_path / "published")
    _finish(other, spec)
    other.begin(replace(spec, seed=1))  # not finished
    store.begin(spec)  # nor this one here
    assert store.adopt(spec, other)
    assert store.is_finished(spec)
    assert not store.adopt(spec, other)
    assert not store.adopt(replace(spec, seed=1), other)
    _finish(other, replace(spec, seed=2))
    lock = store.acquire(replace(spec, seed=2))  # somebody makes it
    assert lock is not None
    assert not store.adopt(replace(spec, seed=2), other)
    changed = replace(spec, seed=3, budget=replace(spec.budget, steps=99))
    _finish(store, changed)
    _finish(other, replace(spec, seed=3))
    assert not store.adopt(replace(spec, seed=3), other)  # a finished one is never overwritten
    assert store.is_finished(changed)


def test_a_run_finished_while_the_lock_was_awaited_is_not_replaced(
    store: Store, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Store(tmp_path / "published")
    _finish(other, spec)
    acquire = Store.acquire

    def finish_first(self: Store, spec: RunSpec) -> Any:
        _finish(store, spec)
        (store.folder(spec) / MODEL).write_bytes(b"own")
        return acquire(self, spec)

    monkeypatch.setattr(Store, "acquire", finish_first)
    assert not store.adopt(spec, other)
    assert (store.folder(spec) / MODEL).read_bytes() == b"own"


@pytest.mark.parametrize("kill_at", [None, 1, 2, 3, 4])
def test_tables_are_replaced_under_their_checksums_whenever_it_is_killed(
    store: Store, spec: RunSpec, kill_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.begin(spec)
    write_atomically(folder / CHANGES, b"old")
    store.keep_model(spec, lambda path: path.write_text("model"))
    store.finish(spec, {})
    (folder / MODEL).unlink()  # as where it was published
    tables, written = {CHANGES: b"new", BY_AGE: b"more"}, []

    def write(path: Path, content: str | bytes) -> None:
        written.append(path.name)
        if len(written) == kill_at:
            raise KeyboardInterrupt
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("m3po_bench.leaderboard.store.write_atomically", write)
        with contextlib.suppress(KeyboardInterrupt):
            store.replace_tables(folder, tables)
    assert store.is_finished(spec)
    if kill_at is None:
        assert written == [RUN, CHANGES, BY_AGE, RUN]
        assert {name: (folder / name).read_bytes() for name in tables} == tables
        (folder / BY_AGE).write_bytes(b"other")
        assert store.damaged() == [(folder, f"{BY_AGE} is not as it was written")]


def test_tables_of_a_run_that_somebody_makes_are_left(store: Store, spec: RunSpec) -> None:
    folder = store.begin(spec)
    store.replace_tables(folder, {CHANGES: b"new"})  # not finished
    store.finish(spec, {})
    lock = store.acquire(spec)
    assert lock is not None
    store.replace_tables(folder, {CHANGES: b"new"})
    assert not (folder / CHANGES).exists()
    lock.release()
    store.replace_tables(folder, {CHANGES: b"new"})
    assert (folder / CHANGES).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object"),
        ('{"name": "toys"}', "seeds = 'None'"),
        ('{"name": "toys", "seeds": true}', "seeds = 'True'"),
        ('{"name": 3, "seeds": 1}', "name = '3'"),
    ],
)
def test_what_is_no_suite_is_said_in_one_line(store: Store, content: str, said: str) -> None:
    assert store.read_suite() is None
    store.root.mkdir()
    (store.root / SUITE).write_text(content)
    with pytest.raises(SuiteError, match="run the suite again") as caught:
        store.read_suite()
    assert f"{SUITE}: {said}; expected" in str(caught.value)
