"""Commits: one file a chunk, put once, and never one that does not account for each of its rows."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.output.checkpoint import (
    Counts,
    Unaccounted,
    chunk_record,
    chunk_records,
    chunk_schema,
    commit_chunk,
    committed,
    counts_of,
)
from headrace.pipelines.output.damaged import Damaged
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.plan import Chunk, Plan, PlannedShard, Span, part_schema
from headrace.pipelines.output.planning import PlanSpec, next_plan
from headrace.pipelines.storage.local import LocalStore

SCHEMA = part_schema([pa.field("id", pa.int64())], [pa.field("label", pa.dictionary(pa.int32(), pa.string()))])


def make_plan(previous: Plan | None = None, limit: int | None = None, **rows: int) -> Plan:
    shards = tuple(Shard(path, f"file:///in/{path}", 1, "e", count) for path, count in sorted(rows.items()))
    return next_plan(
        previous,
        Corpus("file:///in", shards, ()),
        PlanSpec(checkpoint_rows=4, fingerprints={"label": "f1"}, schema=SCHEMA, keep=["id"], pipeline={}),
        limit,
    )[0]


def table(chunk: Chunk, rows: list[int], dead: tuple[int, ...] = ()) -> pa.Table:
    error = {"step": "label", "class": "cut", "rule": None, "reason": "it was cut", "raw": "posi", "tries": 2}
    return pa.Table.from_pylist(
        [
            {
                "_shard": chunk.path,
                "_row": row,
                "id": row * 100,
                "label": None if row in dead else "good",
                "_outcome": "dead" if row in dead else "answered",
                "_error": error if row in dead else None,
            }
            for row in rows
        ],
        schema=chunk_schema(SCHEMA),
    )


def commit(store: LocalStore, plan: Plan, chunk: Chunk) -> bool:
    rows = list(range(chunk.first, chunk.last))
    return commit_chunk(store, plan.info, chunk, table(chunk, rows), Counts(answered=len(rows)), stats={})


def test_a_commit_is_one_parquet_file_whose_footer_accounts_for_it(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=10)
    chunk = list(plan.chunks())[1]
    counts = Counts(answered=2, filtered=1, dead=1)
    stats = {"prompt_tokens": 7, "note": "größe"}
    assert commit_chunk(store, plan.info, chunk, table(chunk, [7, 4, 5], dead=(5,)), counts, stats=stats) is True

    written = pq.read_table(tmp_path / chunk.name)
    assert written.schema.remove_metadata() == chunk_schema(SCHEMA)
    assert written["_row"].to_pylist() == [4, 5, 7], "sorted by row"
    assert written["_outcome"].to_pylist() == ["answered", "dead", "answered"]
    (error,) = (error for error in written["_error"].to_pylist() if error is not None)
    assert error == {"step": "label", "class": "cut", "rule": None, "reason": "it was cut", "raw": "posi", "tries": 2}
    assert pq.read_metadata(tmp_path / chunk.name).row_group(0).column(1).compression == "ZSTD"
    record = chunk_record(store, chunk)
    assert record == {
        "fingerprint": plan.fingerprint,
        "plan": 1,
        "shard": "a",
        "first": 4,
        "last": 8,
        "counts": {"answered": 2, "filtered": 1, "dead": 1},
        "stats": stats,
    }
    assert counts_of(record) == counts
    assert list(chunk_records(store, [chunk, chunk])) == [record, record]


def test_a_chunk_whose_rows_are_all_filtered_out_is_a_file_without_rows(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=4)
    (chunk,) = plan.chunks()
    assert commit_chunk(store, plan.info, chunk, table(chunk, []), Counts(filtered=4), stats={})
    assert pq.read_table(tmp_path / chunk.name).num_rows == 0
    assert committed(store, plan) == {chunk}


def test_the_second_commit_is_dropped(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=4)
    (chunk,) = plan.chunks()
    assert commit(store, plan, chunk) is True
    first = store.read(chunk.name)
    counts = Counts(filtered=4)
    assert commit_chunk(store, plan.info, chunk, table(chunk, []), counts, stats={}) is False
    assert store.read(chunk.name) == first


def test_of_many_workers_on_the_same_chunks_each_chunk_has_one_winner(tmp_path: Path) -> None:
    plan, gun = make_plan(a=40), threading.Barrier(8)

    def work(_: int) -> list[Chunk]:
        gun.wait()
        return [chunk for chunk in plan.chunks() if commit(LocalStore(tmp_path), plan, chunk)]

    with ThreadPoolExecutor(8) as pool:
        won = [chunk for chunks in pool.map(work, range(8)) for chunk in chunks]
    assert sorted(chunk.first for chunk in won) == [chunk.first for chunk in plan.chunks()]
    assert committed(LocalStore(tmp_path), plan) == set(plan.chunks())


@pytest.mark.parametrize(
    ("rows", "dead", "counts", "says"),
    [
        ([4, 5, 6], (), Counts(answered=3), "account for 3 rows, but the chunk has 4"),
        ([4, 5, 6, 7], (), Counts(answered=4, filtered=1), "account for 5 rows"),
        ([4, 5, 6], (), Counts(answered=4), "outcomes are {'answered': 3}, but {'answered': 4} were counted"),
        ([4, 5, 6, 7], (5,), Counts(answered=4), "but {'answered': 4} were counted"),
        ([4, 5, 6, 7], (), Counts(answered=5, dead=-1), "account for 4 rows"),
        ([4, 5, 6, 6], (), Counts(answered=4), "a _row is null or a duplicate"),
        ([4, 5, 6, 8], (), Counts(answered=4), "a _row is outside the chunk"),
        ([3, 4, 5, 6], (), Counts(answered=4), "a _row is outside the chunk"),
    ],
)
def test_a_chunk_that_does_not_add_up_is_never_committed(
    tmp_path: Path, rows: list[int], dead: tuple[int, ...], counts: Counts, says: str
) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=10)
    chunk = list(plan.chunks())[1]
    with pytest.raises(Unaccounted) as raised:
        commit_chunk(store, plan.info, chunk, table(chunk, rows, dead), counts, stats={})
    assert says in str(raised.value)
    assert chunk.name in str(raised.value)
    assert store.list() == []


def test_rows_of_another_shard_and_errors_that_do_not_match_are_never_committed(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=4)
    (chunk,) = plan.chunks()
    right = table(chunk, [0, 1, 2, 3], dead=(1,))
    counts = Counts(answered=3, dead=1)

    def changed(column: str, values: list[Any]) -> pa.Table:
        at = right.schema.names.index(column)
        return right.set_column(at, right.schema.field(at), pa.array(values, right.schema.field(at).type))

    wrong = [
        (changed("_shard", ["a", "a", "a", "b"]), "rows of other shards"),
        (changed("_error", [None] * 4), "a dead row has no _error"),
        (changed("_error", [{"step": "x"}] * 4), "or an answered one has"),
        (changed("_row", [0, 1, 2, None]), "is null or a duplicate"),
        (right.drop_columns(["label"]), "columns are"),
        (right.append_column("more", right["id"]), "columns are"),
    ]
    for each, says in wrong:
        with pytest.raises(Unaccounted, match=says):
            commit_chunk(store, plan.info, chunk, each, counts, stats={})
    assert store.list() == []
    assert commit_chunk(store, plan.info, chunk, right, counts, stats={})


def test_columns_in_another_order_and_narrower_types_are_put_right(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=4)
    (chunk,) = plan.chunks()
    given = table(chunk, [0, 1, 2, 3])
    given = given.set_column(3, "label", pa.array(["x", "y", None, "x"]))
    given = given.select(list(reversed(given.schema.names)))
    assert commit_chunk(store, plan.info, chunk, given, Counts(answered=4), stats={})
    written = pq.read_table(tmp_path / chunk.name)
    assert written.schema.remove_metadata() == chunk_schema(SCHEMA)
    assert written["label"].to_pylist() == ["x", "y", None, "x"]


def test_the_listing_is_the_ledger_and_knows_only_planned_chunks(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=10, b=3)
    assert committed(store, plan) == set()
    done = list(plan.chunks())[1:]
    for chunk in done:
        commit(store, plan, chunk)
    content = store.read(done[0].name)
    folder = done[0].name.rsplit("/", 1)[0]
    for foreign in (
        f"{folder}/000000000000-000000000003.chunk",  # no chunk of this plan
        f"{folder}/000000000000-000000000004.chunk.tmp",
        f"{folder}/notes.txt",
        f"{folder}/deeper/000000000000-000000000004.chunk",
        f"{folder[:-8]}00000000/000000000000-000000000004.chunk",  # another file's
        "_headrace/chunks/000001/00099-00000000/000000000000-000000000004.chunk",
        "_headrace/chunks/000009/" + done[0].name.split("/", 3)[3],  # a plan that is not in use
        "_headrace/chunks/000001/README",
    ):
        store.replace(foreign, content)
    assert committed(store, plan) == set(done)


def test_chunks_of_earlier_plans_count_where_the_plan_keeps_their_spans(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan(a=10, limit=6)
    for chunk in first.chunks():
        commit(store, first, chunk)
    second = make_plan(first, a=10)
    done = next(first.chunks())
    store.replace(replace(done, plan=2).name, store.read(done.name))
    assert committed(store, second) == set(first.chunks())
    assert {chunk.plan for chunk in set(second.chunks()) - committed(store, second)} == {2}


@pytest.mark.slow
def test_chunks_of_a_shard_of_many_spans_are_found_without_going_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(a=4 * 3000)
    cut = [Span(1 + i % 2, 4 * i, 4 * i + 4, 4) for i in range(2999)]
    plan = replace(plan, shards=(replace(plan.shards[0], spans=(*cut, Span(3, 4 * 2999, 4 * 3000, 3))),))
    chunks = list(plan.chunks())
    assert [plan.shards[0].place(c.plan, c.first, c.last, plan.shards[0].chunks_before()) for c in chunks] == [
        *range(len(chunks))
    ]
    counted = []
    real = PlannedShard.chunks_before
    monkeypatch.setattr(PlannedShard, "chunks_before", lambda self: counted.append(1) or real(self))
    ledger = Ledger(plan)
    for chunk in chunks[::2]:
        assert ledger.add(chunk)
        assert not ledger.add(chunk)
    assert not ledger.add(replace(chunks[1], plan=7))
    assert not ledger.add(replace(chunks[1], last=chunks[1].last + 1))
    assert list(ledger) == chunks[::2]
    assert list(ledger.left) == chunks[1::2]
    assert len(counted) == 1


def test_a_file_that_is_not_the_chunk_that_its_name_says_is_noticed(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(a=8)
    one, other = plan.chunks()
    commit(store, plan, one)
    store.replace(other.name, store.read(one.name))
    with pytest.raises(Damaged, match="contains another chunk"):
        chunk_record(store, other)
    store.replace(other.name, b"no parquet")
    with pytest.raises(Damaged, match="is not a chunk file"):
        chunk_record(store, other)
    with pytest.raises(FileNotFoundError):
        chunk_record(store, replace(one, last=3))


def test_counts_add_up() -> None:
    assert sum([Counts(1, 2, 3), Counts(10, 20, 30)], Counts()) == Counts(11, 22, 33)
    assert Counts(1, 2, 3).rows == 6
