"""What is noted of chunks whose tries die: a row that kills engines is found in a bounded number of deaths."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.output.names import notes_name
from headrace.pipelines.output.plan import Chunk, CommitInfo
from headrace.pipelines.output.poison_rows import (
    LEAST_POISON_ROWS,
    MOST_CONTROLS,
    MOST_STUCK,
    MOST_UNEXPLAINED,
    Attempt,
    Notes,
    Owner,
    members,
    ranges,
    settle,
    sweep_notes,
)
from headrace.pipelines.storage.local import LocalStore

INFO = CommitInfo("0" * 16, pa.schema([("x", pa.int64())]))
CHUNK = Chunk(1, 0, "a.parquet", 0, 1000)

OURS = Owner("run", "host", 1, "")


class Died(Exception):
    """The simulated engine is gone."""


def try_chunk(
    notes: Notes, rows: Iterable[int], dies: Callable[[set[int]], bool], *, seen: int | None, owner: Owner = OURS
) -> tuple[Notes, bool]:
    """A try as the worker makes it: the notes after it, and whether it came to its end.

    ``seen`` is how many rows around the poison row are known to be in flight; None where the death leaves no word.
    """

    def run(group: list[int], phase: str) -> None:
        nonlocal notes
        notes = notes.begin(phase, group, owner)  # type: ignore[arg-type]
        if dies(set(group)):
            fatal = next((row for row in group if dies({row})), min(group, default=0))
            flight = {row for row in group if abs(row - fatal) <= seen // 2} if seen is not None else None
            notes = notes.died(owner.run if owner is OURS else "another", flight)
            raise Died

    given_up = {found.row for found in notes.poison_rows}
    left = [row for row in rows if row not in given_up]
    try:
        if notes.deaths:
            suspects = set(members(notes.suspects))
            wanted = 0 if notes.last_control else int(bool(suspects))
            controls = notes.controls_among([row for row in left if row not in suspects], wanted)
            for control in controls:
                run([control], "control")
            if suspects and not controls:
                run([], "control")  # a text that is no row's
            for group in notes.groups():
                run(group, "group")
            notes = notes.cleared()
            run([row for row in left if row not in suspects], "rest")
        else:
            run(left, "chunk")
    except Died:
        return notes, False
    return notes, True


def through(rows: int, dies: Callable[[set[int]], bool], *, seen: int | None) -> tuple[Notes, str]:
    """Try until the chunk is through, or hopeless; the notes, and why it is hopeless."""
    notes = Notes()
    for _ in range(1000):
        if why := notes.hopeless(5):
            return notes, why
        notes, done = try_chunk(notes, range(rows), dies, seen=seen)
        if done:
            return notes, ""
    raise AssertionError("it never ends")


@settings(deadline=None)
@given(rows=st.integers(2, 3000), at=st.integers(0, 2999), seen=st.sampled_from([None, 0, 1, 8, 100]))
def test_one_row_that_kills_is_found_in_about_log2_of_the_suspects(rows: int, at: int, seen: int | None) -> None:
    at %= rows
    notes, why = through(rows, lambda group: at in group, seen=seen)
    assert not why
    assert [found.row for found in notes.poison_rows] == [at]
    suspects = rows if seen is None else min(rows, seen + 1)
    assert notes.deaths <= math.ceil(math.log2(suspects)) + 3
    assert notes.poison_rows[0].deaths == notes.deaths


@settings(deadline=None)
@given(st.sets(st.integers(0, 999), max_size=5), st.sampled_from([None, 8]))
def test_several_rows_that_kill_are_found_and_no_other(at: set[int], seen: int | None) -> None:
    notes, why = through(1000, lambda group: bool(at & group), seen=seen)
    assert not why
    assert {found.row for found in notes.poison_rows} == at
    assert notes.deaths <= len(at) * 13


@settings(deadline=None)
@given(rows=st.integers(1, 8), seen=st.sampled_from([None, 0, 1]), data=st.data())
def test_a_small_chunk_may_be_mostly_killers(rows: int, seen: int | None, data: st.DataObject) -> None:
    at = data.draw(st.sets(st.integers(0, rows - 1), max_size=LEAST_POISON_ROWS))
    notes, why = through(rows, lambda group: bool(at & group), seen=seen)
    assert not why
    assert {found.row for found in notes.poison_rows} == at


def test_an_engine_that_dies_of_everything_condemns_no_row() -> None:
    for seen in (None, 0, 1, 50):
        notes, why = through(1000, lambda _: True, seen=seen)
        assert "the cause is the engine and not a row" in why
        assert not notes.poison_rows
        assert notes.deaths <= 3 + MOST_CONTROLS


def test_an_engine_that_dies_under_load_alone_condemns_no_row() -> None:
    notes, why = through(1000, lambda group: len(group) > 700, seen=100)
    assert "no single row causes it" in why
    assert not notes.poison_rows
    assert notes.deaths == MOST_UNEXPLAINED


def test_two_rows_that_kill_only_together_are_both_answered() -> None:
    notes, why = through(1000, lambda group: {3, 900} <= group, seen=None)
    assert (why, notes.poison_rows) == ("", ())
    # Unless they fall into one half: then the halves tell them apart.
    notes, why = through(1000, lambda group: {3, 4} <= group, seen=None)
    assert notes.poison_rows == ()


def test_hopeless_corpora_are_told_from_a_few_bad_rows() -> None:
    notes, why = through(1000, lambda group: any(row % 10 == 7 for row in group), seen=0)
    assert "6 rows kill the engine" in why
    assert notes.hopeless(100) == ""


def test_deaths_that_took_the_whole_run_along_weigh_less() -> None:
    """Somebody who kills runs must not make a dead letter of the row that was being asked."""
    other = Owner("earlier", "host", 1, "")
    notes = replace(Notes(), deaths=2, suspects=((7, 8),), suspect_deaths=2)
    for died in range(1, 4):
        notes, _ = try_chunk(notes, [1, 7], lambda group: 7 in group, seen=None, owner=other)
        assert (len(notes.poison_rows), notes.points) == (0, died)
    notes, _ = try_chunk(notes, [1, 7], lambda group: 7 in group, seen=None, owner=other)
    assert [found.row for found in notes.poison_rows] == [7]
    assert notes.unexplained == notes.controls == 0


def test_notes_are_as_they_were_written() -> None:
    notes = Notes(3, ((5, 9),), 2, 1, (), 1, 1, 2, run="x").begin("group", [5, 6, 8], OURS)
    assert Notes.from_json(notes.to_json()) == notes
    given_up = replace(notes, points=2, suspects=((5, 6),)).begin("group", [5], OURS).died("run", hung=True)
    assert Notes.from_json(given_up.to_json()) == given_up
    assert given_up.poison_rows[0].reason == "the row hung the engine 3 times, the last time alone"
    for damaged in (b"", b"{}", b"[1]", notes.to_json()[:50], b'{"running": 5}'):
        assert Notes.from_json(damaged) == Notes()


@settings(deadline=None)
@given(st.sets(st.integers(0, 50)))
def test_ranges_hold_the_rows(rows: set[int]) -> None:
    assert list(members(ranges(rows))) == sorted(rows)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def dead_owner(run: str) -> Owner:
    child = subprocess.Popen(["true"])
    owner = replace(Owner.me(run), pid=child.pid, born="1")
    child.wait()
    return owner


def test_a_try_that_left_no_word_has_died_and_one_that_is_under_way_has_not(store: LocalStore) -> None:
    gone = Attempt.of(store, INFO, CHUNK, dead_owner("run"))
    gone.begin("chunk", range(1000))
    next_try = Attempt.of(store, INFO, CHUNK, Owner.me("run"))
    assert (next_try.notes.deaths, next_try.notes.suspects, next_try.notes.unexplained) == (1, ((0, 1000),), 1)
    next_try.begin("rest", range(1000))
    beside = Attempt.of(store, INFO, CHUNK, Owner.me("another"))
    assert beside.notes.deaths == 1, "its owner, this process, is alive"
    next_try.forget()
    assert Attempt.of(store, INFO, CHUNK, Owner.me("run")).notes == Notes(run="run")


def test_a_death_blames_what_was_with_the_engine_and_no_chunk_that_had_nothing_there(store: LocalStore) -> None:
    attempt = Attempt.of(store, INFO, CHUNK, Owner.me("run"))
    attempt.begin("chunk", range(1000))
    attempt.died()
    assert not store.exists(attempt.name)
    attempt.begin("chunk", range(1000))
    attempt.in_flight.update({4, 5, 9})
    attempt.died(hung=True)
    assert Attempt.of(store, INFO, CHUNK, Owner.me("run")).notes.suspects == ((4, 6), (9, 10))


def test_a_storage_that_hangs_ends_the_run_and_no_row_is_blamed(store: LocalStore) -> None:
    for hangs in range(MOST_STUCK):
        attempt = Attempt.of(store, INFO, CHUNK, Owner.me("run"))
        assert attempt.notes.stuck == hangs
        assert not attempt.notes.hopeless(5)
        attempt.begin("reading" if attempt.notes.deaths else "chunk", range(1000))
        with attempt.storage():
            attempt.died(hung=True)
    notes = Attempt.of(store, INFO, CHUNK, Owner.me("run")).notes
    assert "reading its rows or writing its answers has hung 3 times" in notes.hopeless(5)
    assert not notes.suspects
    assert not notes.unreadable
    assert not Attempt.of(store, INFO, CHUNK, Owner.me("later")).notes.hopeless(5)


def test_what_a_run_was_at_when_it_ended_in_good_order_has_not_died(store: LocalStore) -> None:
    for run, plan in (("ours", 1), ("other", 2), ("troubled", 3)):
        attempt = Attempt.of(store, INFO, replace(CHUNK, plan=plan), dead_owner(run))
        if run == "troubled":
            attempt.notes = Notes(deaths=2, suspects=((1, 2),))
        attempt.begin("chunk", range(1000))
    settle(store, "ours")
    settle(store, "troubled")
    assert not store.exists(notes_name(INFO.name(CHUNK)))
    assert Attempt.of(store, INFO, replace(CHUNK, plan=2), Owner.me("x")).notes.deaths == 1
    assert Attempt.of(store, INFO, replace(CHUNK, plan=3), Owner.me("x")).notes == Notes(2, ((1, 2),), run="x")
    sweep_notes(store)
    assert not store.list("_headrace/suspects")


def test_a_later_run_begins_to_doubt_the_engine_anew(store: LocalStore) -> None:
    attempt = Attempt.of(store, INFO, CHUNK, dead_owner("first"))
    attempt.notes = Notes(deaths=4, suspects=((1, 9),), suspect_deaths=4, unexplained=4, controls=2, run="first")
    attempt.begin("control", [20])
    same = Attempt.of(store, INFO, CHUNK, Owner.me("first")).notes
    assert (same.controls, same.unexplained) == (3, 4)
    assert same.hopeless(5)
    later = Attempt.of(store, INFO, CHUNK, Owner.me("second")).notes
    assert (later.controls, later.unexplained, later.suspects) == (0, 0, ((1, 9),))
    assert not later.hopeless(5)


def test_each_stage_has_notes_of_its_own() -> None:
    assert notes_name(INFO.name(CHUNK)) != notes_name(replace(INFO, suffix=".stage1-00000000").name(CHUNK))
    assert notes_name(INFO.name(CHUNK)).startswith("_headrace/suspects/000001/00000-")
    assert os.path.splitext(notes_name(INFO.name(CHUNK)))[1] == ".json"
