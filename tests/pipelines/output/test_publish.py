"""Parts, dead letters, `_SUCCESS`: what readers see of an output, and when."""

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.output import part_writer
from headrace.pipelines.output.checkpoint import Counts, Unaccounted, chunk_schema, commit_chunk, committed
from headrace.pipelines.output.completion import begin, finish, is_complete, was_complete
from headrace.pipelines.output.damaged import Damaged
from headrace.pipelines.output.folder import check_output_folder
from headrace.pipelines.output.names import listed
from headrace.pipelines.output.plan import Chunk, Plan, part_schema
from headrace.pipelines.output.plan_file import plan_to_json, save_plan
from headrace.pipelines.output.planning import PlanSpec, next_plan
from headrace.pipelines.output.publish import errors_schema, publish_shard
from headrace.pipelines.output.published import published, with_kept
from headrace.pipelines.output.superseded import Superseded
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import LocalStore
from headrace.pipelines.storage.opening import open_store

FACTS = pa.struct({"product": pa.string(), "likes": pa.list_(pa.string())})
SCHEMA = part_schema(
    [pa.field("id", pa.int64()), pa.field("kind", pa.dictionary(pa.int8(), pa.string()))],
    [pa.field("label", pa.dictionary(pa.int32(), pa.string())), pa.field("facts", FACTS)],
)


def make_plan(
    files: Mapping[str, int | tuple[int, str]],
    previous: Plan | None = None,
    *,
    rows: int = 4,
    limit: int | None = None,
) -> Plan:
    shards = []
    for path, said in sorted(files.items()):
        count, etag = said if isinstance(said, tuple) else (said, "v1")
        shards.append(Shard(path, f"file:///in/{path}", sum(path.encode()), etag, count))
    return next_plan(
        previous,
        Corpus("file:///in", tuple(shards), ()),
        PlanSpec(
            checkpoint_rows=rows,
            fingerprints={"label": "f1", "facts": "g1"},
            schema=SCHEMA,
            keep=["id", "kind"],
            pipeline={},
        ),
        limit,
    )[0]


def outcome(row: int, dead: bool, etag: str) -> dict[str, Any]:
    common = {"_row": row, "id": row * 100, "kind": f"k{row % 3}"}
    if dead:
        error = {"step": "facts", "class": "cut", "rule": "cut", "reason": "it was cut", "raw": f"{{{row}", "tries": 2}
        return common | {"label": "good", "facts": None, "_outcome": "dead", "_error": error}
    # Labels differ from chunk to chunk, and so do the dictionaries in their files.
    facts = {"product": f"p{row}", "likes": [etag] * (row % 3)}
    return common | {"label": f"l{row // 3}", "facts": facts, "_outcome": "answered", "_error": None}


def commit(
    store: LocalStore,
    plan: Plan,
    chunk: Chunk,
    *,
    dead: tuple[int, ...] = (),
    filtered: tuple[int, ...] = (),
) -> None:
    etag = plan.shards[chunk.shard].etag
    rows = [row for row in range(chunk.first, chunk.last) if row not in filtered]
    said = [{"_shard": chunk.path} | outcome(row, row in dead, etag) for row in rows]
    died = sum(row in dead for row in rows)
    counts = Counts(answered=len(rows) - died, filtered=chunk.rows - len(rows), dead=died)
    table = pa.Table.from_pylist(said, schema=chunk_schema(SCHEMA))
    assert commit_chunk(store, plan.info, chunk, table, counts, stats={})


def do(store: LocalStore, plan: Plan, *, dead: tuple[int, ...] = (), filtered: tuple[int, ...] = ()) -> None:
    """A whole run: what is not committed is, what is not published is, and the end is marked."""
    begin(store, plan)
    for chunk in sorted(set(plan.chunks()) - committed(store, plan), key=lambda chunk: chunk.name):
        commit(store, plan, chunk, dead=dead, filtered=filtered)
    there = published(store, plan)
    for shard in plan.shards:
        if shard.has_part and not shard.gone and shard.index not in there:
            publish_shard(store, plan, shard)
    finish(store, plan, {"rows": plan.rows})


def seen(root: Path) -> list[tuple[str, int]]:
    table = ds.dataset(root, format="parquet").to_table()
    return sorted(zip(table["_shard"].to_pylist(), table["_row"].to_pylist(), strict=True))


def test_a_part_has_the_answered_rows_in_order_and_errors_the_dead_ones(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a.parquet": 10})
    do(store, plan, dead=(1, 9), filtered=(0, 5))
    name = plan.shards[0].part_name

    part = pq.read_table(tmp_path / name)
    assert part.schema.remove_metadata() == SCHEMA
    assert part["_row"].to_pylist() == [2, 3, 4, 6, 7, 8]
    assert set(part["_shard"].to_pylist()) == {"a.parquet"}
    assert part.slice(0, 1).to_pylist() == [
        {"_shard": "a.parquet", "_row": 2, "id": 200, "kind": "k2", "label": "l0",
         "facts": {"product": "p2", "likes": ["v1", "v1"]}},
    ]  # fmt: skip

    errors = pq.read_table(tmp_path / plan.shards[0].letters_name)
    assert errors.schema.names == [
        *("_shard", "_row", "id", "kind", "_step", "_class", "_rule", "_reason", "_raw", "_tries", "label", "facts"),
    ]  # fmt: skip
    assert errors.schema.remove_metadata() == errors_schema(plan)
    assert errors.to_pylist() == [
        {"_shard": "a.parquet", "_row": row, "id": row * 100, "kind": f"k{row % 3}", "_step": "facts",
         "_class": "cut", "_rule": "cut", "_reason": "it was cut", "_raw": f"{{{row}", "_tries": 2,
         "label": "good", "facts": None}
        for row in (1, 9)
    ]  # fmt: skip


def test_readers_of_the_folder_see_the_parts_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "out put ü"
    store, plan = LocalStore(root), make_plan({"a": 10, "b/c": 3, "empty": 0})
    do(store, plan, dead=(1,))
    expected = [("a", row) for row in range(10) if row != 1] + [("b/c", row) for row in (0, 2)]
    assert seen(root) == expected
    frame = pl.scan_parquet(root / "data" / "*.parquet").collect()
    assert sorted(frame.select("_shard", "_row").rows()) == expected
    assert frame.schema["facts"] == pl.Struct({"product": pl.String, "likes": pl.List(pl.String)})
    assert sorted(frame["label"].cast(pl.String).unique()) == ["l0", "l1", "l2", "l3"]
    assert sorted(frame["kind"].cast(pl.String).unique()) == ["k0", "k1", "k2"]


def test_while_a_run_is_on_readers_see_whole_parts_only(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan(dict.fromkeys("abcd", 8))
    publish_first = plan.shards[0]
    for chunk in plan.chunks():
        commit(store, plan, chunk)
    publish_shard(store, plan, publish_first)
    done = threading.Event()

    def rest() -> None:
        for shard in plan.shards[1:]:
            publish_shard(store, plan, shard)
        for shard in plan.shards:
            publish_shard(store, plan, shard)
        done.set()

    publisher = threading.Thread(target=rest)
    publisher.start()
    while not done.is_set():
        shards = [name for name, _ in seen(tmp_path)]
        assert all(shards.count(name) == 8 for name in set(shards))
    publisher.join()
    assert len(seen(tmp_path)) == 32


@pytest.mark.parametrize("what", ["dead", "filtered", "no rows at all"])
def test_a_shard_without_answers_has_an_empty_part_with_the_schema(tmp_path: Path, what: str) -> None:
    store = LocalStore(tmp_path)
    plan = make_plan({"a": 0 if what == "no rows at all" else 3})
    do(
        store,
        plan,
        dead=(0, 1, 2) if what == "dead" else (),
        filtered=(0, 1, 2) if what == "filtered" else (),
    )
    part = pq.read_table(tmp_path / plan.shards[0].part_name)
    assert (part.num_rows, part.schema.remove_metadata()) == (0, SCHEMA)
    assert ds.dataset(tmp_path, format="parquet").schema.names == SCHEMA.names
    assert pl.read_parquet(tmp_path / "data" / "*.parquet").columns == SCHEMA.names
    assert (tmp_path / "_errors").exists() == (what == "dead")
    assert is_complete(store, plan)


def test_a_shard_is_not_published_before_all_of_its_chunks_are_there(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 10})
    for chunk in list(plan.chunks())[1:]:
        commit(store, plan, chunk)
    with pytest.raises(FileNotFoundError):
        publish_shard(store, plan, plan.shards[0])
    assert not published(store, plan)
    assert not store.exists(plan.shards[0].part_name)


def test_chunks_of_another_pipeline_are_not_published(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4})
    (chunk,) = plan.chunks()
    commit(store, plan, chunk)
    other = next_plan(
        None,
        Corpus("file:///in", (plan.shards[0].as_found(),), ()),
        PlanSpec(
            checkpoint_rows=4,
            fingerprints={"label": "another", "facts": "g1"},
            schema=SCHEMA,
            keep=["id", "kind"],
            pipeline={},
        ),
    )[0]
    with pytest.raises(Damaged, match="was not made by this pipeline"):
        publish_shard(store, other, other.shards[0])


def test_a_part_of_an_older_generation_is_told_apart_and_readable_until_the_new_one_is_there(
    tmp_path: Path,
) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 8, "b": 4})
    do(store, first, dead=(1,))
    second = make_plan({"a": (6, "v2"), "b": 4}, first)
    begin(store, second)
    assert not store.exists("_SUCCESS")
    assert published(store, second).keys() == {1}
    assert len(seen(tmp_path)) == 7 + 3
    assert pq.read_metadata(tmp_path / first.shards[0].letters_name).num_rows == 1

    do(store, second)
    assert seen(tmp_path) == [("a", row) for row in range(6)] + [("b", row) for row in (0, 2, 3)]
    assert not store.exists(first.shards[0].letters_name), "the new one has no dead letters"
    assert store.exists(first.shards[1].letters_name)
    assert published(store, second).keys() == {0, 1}
    assert published(store, first).keys() == {1}


def test_a_larger_limit_makes_the_part_anew_from_old_and_new_chunks(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 10, "b": 5}, limit=6)
    do(store, first)
    assert seen(tmp_path) == [("a", row) for row in range(6)]
    assert is_complete(store, first)
    second = make_plan({"a": 10, "b": 5}, first, limit=12)
    assert not published(store, second)
    do(store, second)
    assert seen(tmp_path) == [("a", row) for row in range(10)] + [("b", 0), ("b", 1)]
    part = pq.read_table(tmp_path / second.shards[0].part_name)
    assert part["_row"].to_pylist() == list(range(10))


def test_the_part_of_a_file_that_is_gone_stays(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    do(store, first)
    second = make_plan({"b": 4}, first)
    do(store, second)
    assert len(seen(tmp_path)) == 8
    assert json.loads(store.read("_headrace/current.json"))["parts"] == [s.part_name for s in second.shards]
    assert is_complete(store, second)


def test_a_file_that_is_gone_before_it_was_done_has_no_part_and_holds_nothing_up(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    second = make_plan({"b": 4}, first)
    do(store, second)
    assert is_complete(store, second)
    assert seen(tmp_path) == [("b", row) for row in range(4)]


def test_the_part_of_a_file_without_rows_is_made_anew_when_the_file_is_replaced(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": (0, "v1")})
    do(store, first)
    assert not published(store, make_plan({"a": (0, "v2")}, first))


def test_the_end_is_marked_after_everything_else(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4, "b": 0, "c": 4}, limit=3)
    assert not is_complete(store, plan)
    do(store, plan)
    assert is_complete(store, plan)
    assert store.read("_SUCCESS") == b""
    assert json.loads(store.read("_headrace/report.json")) == {"rows": 3}
    parts = [plan.shards[0].part_name, plan.shards[1].part_name]
    assert json.loads(store.read("_headrace/current.json")) == {"plan": 1, "parts": parts}
    begin(store, plan)
    assert is_complete(store, plan), "there is nothing more to do"
    assert not is_complete(store, make_plan({"a": 4, "b": 0, "c": 4}, plan))


def test_a_part_that_is_missing_at_the_end_is_made_of_its_chunks(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    for chunk in plan.chunks():
        commit(store, plan, chunk)
    publish_shard(store, plan, plan.shards[0])
    finish(store, plan, {})
    assert is_complete(store, plan)
    assert len(seen(tmp_path)) == 8


def test_an_output_is_not_finished_without_its_parts_and_chunks(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4, "b": 8})
    for chunk in list(plan.chunks())[:2]:
        commit(store, plan, chunk)
    publish_shard(store, plan, plan.shards[0])
    with pytest.raises(Unaccounted, match=r"1 parts are missing .*part-00001.*000000000004-000000000008"):
        finish(store, plan, {})
    assert not store.exists("_SUCCESS")


def test_a_part_of_an_older_generation_is_not_certified_but_made_anew(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    do(store, first, dead=(1,))
    name, letters = first.shards[0].part_name, first.shards[0].letters_name
    older = {path: store.read(path) for path in (name, letters)}
    second = make_plan({"a": (8, "v2"), "b": 4}, first)
    do(store, second, dead=(2,))
    for path, content in older.items():
        newer = store.read(path)
        assert is_complete(store, second)
        store.replace(path, content)
        assert not is_complete(store, second)
        assert published(store, second).keys() == {1}
        finish(store, second, {})
        assert is_complete(store, second)
        assert store.read(path) == newer
    store.delete(letters)
    assert not is_complete(store, second), "its dead letters are nowhere"


def test_dead_letters_beside_a_part_that_has_none_are_not_its_own(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4})
    do(store, plan)
    store.replace(plan.shards[0].letters_name, b"")
    assert not is_complete(store, plan)
    assert not published(store, plan)
    do(store, plan)
    assert is_complete(store, plan)
    assert not store.names("_errors")


def test_nothing_is_published_under_a_plan_that_is_not_the_latest(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    for chunk in first.chunks():
        commit(store, first, chunk, dead=(1,))
    publish_shard(store, first, first.shards[0])
    second = save_plan(store, make_plan({"a": 4, "b": 4, "c": 4}, first))
    do(store, second, dead=(1,))
    files = {entry.path: store.read(entry.path) for entry in store.list()}
    for late in (
        lambda: begin(store, first),
        lambda: publish_shard(store, first, first.shards[1]),
        lambda: finish(store, first, {}),
    ):
        with pytest.raises(Superseded, match=r"plan-000002\.json .* plan 1, publishes nothing more"):
            late()
        assert files == {entry.path: store.read(entry.path) for entry in store.list()}


@pytest.mark.parametrize("path", ["_errors/", "data/"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_is_superseded_while_publishing_takes_success_away_and_the_next_run_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, when: str
) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4})
    for chunk in first.chunks():
        commit(store, first, chunk, dead=(1,))
    second = make_plan({"a": (4, "v2")}, first)
    put, slept = LocalStore.replace, []

    def other_driver() -> None:
        slept.append(path)
        save_plan(store, second)
        do(store, second, dead=(2,))

    def sleeping(self: LocalStore, name: str, write: Any) -> None:
        asleep = not slept and name.startswith(path)
        if asleep and when == "before":
            other_driver()
        put(self, name, write)
        if asleep and when == "after":
            other_driver()

    monkeypatch.setattr(LocalStore, "replace", sleeping)
    with pytest.raises(Superseded, match="`_SUCCESS` is removed"):
        publish_shard(store, first, first.shards[0])
    assert not store.exists("_SUCCESS")
    assert not published(store, first)
    do(store, second)
    assert is_complete(store, second)
    assert seen(tmp_path) == [("a", 0), ("a", 1), ("a", 3)]
    assert pq.read_table(tmp_path / second.shards[0].letters_name)["_row"].to_pylist() == [2]


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_is_superseded_at_the_end_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4})
    second = make_plan({"a": 4, "b": 4}, first)
    put, put_over = LocalStore.put_if_absent, LocalStore.replace
    marked = []

    def late(self: LocalStore, name: str, write: Any) -> bool:
        ours = put(self, name, write)
        if name == "_SUCCESS":
            marked.append(name)
            put(self, second.name, plan_to_json(second))
        return ours

    def early(self: LocalStore, name: str, write: Any) -> None:
        put_over(self, name, write)
        if when == "before" and name.endswith("current.json"):
            put(self, second.name, plan_to_json(second))

    monkeypatch.setattr(LocalStore, "put_if_absent", late)
    monkeypatch.setattr(LocalStore, "replace", early)
    with pytest.raises(Superseded, match="`_SUCCESS` is removed"):
        do(store, first)
    assert not store.exists("_SUCCESS")
    assert len(marked) == (when == "after")


def test_who_is_superseded_does_not_miss_what_the_other_has_removed(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    save_plan(store, make_plan({"b": 4}, first))
    with pytest.raises(Superseded):
        finish(store, first, {})


def test_what_a_next_plan_has_already_is_not_removed_with_what_was_pruned(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    do(store, first)
    gone = make_plan({"b": 4}, first)
    pruned = replace(gone, shards=(replace(gone.shards[0], spans=(), pruned=True), gone.shards[1]))
    third = make_plan({"a": 4, "b": 4}, pruned)
    for chunk in third.shards[0].chunks():
        commit(store, third, chunk)
    store.replace("_headrace/seeds/000002-x/0", b"")
    store.replace("_headrace/seeds/000003-x/0", b"")
    finish(store, pruned, {})
    assert seen(tmp_path) == [("b", row) for row in range(4)]
    assert [entry.path for entry in store.list("_headrace/seeds")] == ["_headrace/seeds/000003-x/0"]
    assert [entry.path for entry in store.list("_headrace/chunks/000001")] == [
        chunk.name for chunk in first.shards[1].chunks()
    ]
    assert set(third.shards[0].chunks()) <= committed(store, third)


def test_a_part_of_what_the_plan_has_no_rows_of_goes_at_the_end(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4, "c": 4})
    do(store, first, dead=(1,))
    second = make_plan({"a": (8, "v2"), "b": 4, "c": 4}, first, limit=5)
    assert not second.shards[0].has_part
    begin(store, second)
    assert len(seen(tmp_path)) == 9
    assert finish(store, second, {}) == ["a"]
    assert seen(tmp_path) == [(name, row) for name in "bc" for row in (0, 2, 3)]
    assert sorted(listed(store, "_errors")) == [shard.letters_name for shard in second.shards[1:]]
    assert is_complete(store, second)
    store.replace(second.shards[0].part_name, store.read(second.shards[1].part_name))
    assert not is_complete(store, second)


def test_the_part_of_a_file_that_is_gone_stays_where_more_of_it_was_planned(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 8, "b": 4}, limit=4)
    do(store, first, dead=(1,))
    more = make_plan({"a": 8, "b": 4}, first)
    gone = make_plan({"b": 4}, more)
    do(store, gone)
    assert is_complete(store, gone)
    assert seen(tmp_path) == [*(("a", row) for row in (0, 2, 3)), *(("b", row) for row in range(4))]
    assert published(store, gone).keys() == {1}
    assert with_kept(store, gone, published(store, gone)) == {0: Counts(3, 0, 1), 1: Counts(4, 0, 0)}
    assert json.loads(store.read("_headrace/current.json"))["parts"] == [shard.part_name for shard in gone.shards]
    assert store.exists(gone.shards[0].letters_name)


@pytest.mark.parametrize("change", [(8, "v2"), (0, "v2")])
def test_a_part_of_what_a_file_was_goes_when_the_file_is_gone_before_it_was_done_again(
    tmp_path: Path, change: tuple[int, str]
) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4, "b": 4})
    do(store, first, dead=(1,))
    gone = make_plan({"b": 4}, make_plan({"a": change, "b": 4}, first))
    assert with_kept(store, gone, published(store, gone)).keys() == {1}
    assert not is_complete(store, gone)
    begin(store, gone)
    assert finish(store, gone, {}) == ["a"]
    assert is_complete(store, gone)
    assert {name for name, _ in seen(tmp_path)} == {"b"}
    assert listed(store, "_errors") == {first.shards[1].letters_name}


def test_success_is_gone_before_the_plan_is_there_and_that_the_output_was_complete_is_kept(tmp_path: Path) -> None:
    store, first = LocalStore(tmp_path), make_plan({"a": 4})
    do(store, first)
    begin(store, first)
    assert is_complete(store, first)
    assert not was_complete(store, first)
    begin(store, make_plan({"a": 4, "b": 4}, first))
    assert not store.exists("_SUCCESS")
    assert was_complete(store, first)
    do(store, first)
    assert is_complete(store, first)
    assert not was_complete(store, first)


def test_a_finished_output_needs_its_parts_but_not_its_chunks(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4})
    do(store, plan)
    for entry in store.list("_headrace/chunks"):
        store.delete(entry.path)
    assert is_complete(store, plan)
    assert published(store, plan).keys() == {0}
    store.delete(plan.shards[0].part_name)
    assert not is_complete(store, plan)


def test_what_is_no_part_of_ours_is_not_published(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 4})
    assert not published(store, plan)
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / plan.shards[0].part_name)
    assert not published(store, plan)
    store.replace(plan.shards[0].part_name, b"torn")
    assert not published(store, plan)


def test_chunks_are_merged_to_row_groups_that_are_worth_a_scan(tmp_path: Path) -> None:
    store, plan = LocalStore(tmp_path), make_plan({"a": 60})
    do(store, plan)
    metadata = pq.read_metadata(tmp_path / plan.shards[0].part_name)
    assert (metadata.num_row_groups, metadata.num_rows) == (1, 60)
    tables = [pa.table({"x": range(100_000)})] * 5
    sizes = [group.num_rows for group in part_writer.grouped(iter(tables))]
    assert sizes == [200_000, 200_000, 100_000]


# The output folder


def test_an_empty_or_absent_folder_and_an_output_of_ours_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.DS_Store").write_bytes(b"")
    do(LocalStore(tmp_path / "ours"), make_plan({"a": 4}))
    for name in ("empty", "ours", "absent", "inner"):
        check_output_folder(open_store(str(tmp_path / name)), str(tmp_path / "in"))
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for number in range(7):
        (tmp_path / f"out/{number}.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"out' contains files .*: '0\.csv', .* and 2 more\. Use an empty"):
        check_output_folder(open_store(str(tmp_path / "out")), str(tmp_path / "in"))


@pytest.mark.parametrize("out", ["in", "in/out", "in/../in/x"])
def test_an_output_inside_the_input_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"is the input .* or lies inside it"):
        check_output_folder(open_store(str(tmp_path / out)), str(tmp_path / "in"))


def test_an_output_inside_the_input_is_seen_through_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "linked").symlink_to("in")
    with pytest.raises(UserError, match="lies inside it"):
        check_output_folder(open_store(str(tmp_path / "linked/out")), str(tmp_path / "in"))
