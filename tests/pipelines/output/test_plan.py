"""The plan: what is cut into chunks, what a next plan keeps, and what it refuses."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.output.plan import Chunk, Plan, Span, part_schema
from headrace.pipelines.output.plan_file import load_plan, plan_from_json, plan_to_json, save_plan
from headrace.pipelines.output.planning import Changes, PlanMismatch, PlanSpec, next_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.local import LocalStore

SCHEMA = part_schema([pa.field("id", pa.int64())], [pa.field("label", pa.dictionary(pa.int32(), pa.string()))])


def corpus(files: Mapping[str, int | tuple[int, str]], base: str = "file:///in") -> Corpus:
    """Files by path: their rows, or rows and etag."""
    shards = []
    for path, said in sorted(files.items()):
        rows, etag = said if isinstance(said, tuple) else (said, "v1")
        shards.append(Shard(path, f"{base}/{path}", rows * 1000 + sum(path.encode()), etag, rows))
    return Corpus(base, tuple(shards), ())


def plan(
    previous: Plan | None,
    files: Mapping[str, int | tuple[int, str]],
    *,
    rows: int = 10,
    limit: int | None = None,
    fingerprints: Mapping[str, str] | None = None,
    schema: pa.Schema = SCHEMA,
    base: str = "file:///in",
) -> tuple[Plan, Changes]:
    return next_plan(
        previous,
        corpus(files, base),
        PlanSpec(
            checkpoint_rows=rows,
            fingerprints=fingerprints or {"label": "f1"},
            schema=schema,
            keep=["id"],
            pipeline={"name": "reviews"},
        ),
        limit,
    )


def ranges(planned: Plan) -> list[tuple[str, int, int, int]]:
    return [(chunk.path, chunk.plan, chunk.first, chunk.last) for chunk in planned.chunks()]


def test_rows_are_cut_into_chunks_and_the_last_is_shorter() -> None:
    planned, changes = plan(None, {"a": 25, "b": 10, "empty": 0})
    assert ranges(planned) == [("a", 1, 0, 10), ("a", 1, 10, 20), ("a", 1, 20, 25), ("b", 1, 0, 10)]
    assert changes == Changes(new=["a", "b", "empty"])
    assert planned.rows == 35
    assert [shard.has_part for shard in planned.shards] == [True] * 3


def test_names_follow_from_the_plan() -> None:
    planned, _ = plan(None, {"x/ü.parquet": 5})
    (chunk,) = planned.chunks()
    id8 = "14e83a0a"
    assert planned.shards[0].part_name == f"data/part-00000-{id8}.parquet"
    assert planned.shards[0].letters_name == f"_errors/00000-{id8}.dead"
    assert chunk.name == f"_headrace/chunks/000001/00000-{id8}/000000000000-000000000005.chunk"
    assert planned.name == "_headrace/plan-000001.json"


def test_the_same_again_is_the_same_plan() -> None:
    first, _ = plan(None, {"a": 25, "b": 10})
    again, changes = plan(first, {"a": 25, "b": 10})
    assert again == first
    assert not changes


def test_another_chunk_size_alone_changes_nothing_and_counts_for_new_files() -> None:
    first, _ = plan(None, {"a": 20})
    assert plan(first, {"a": 20}, rows=5)[0] == first
    second, _ = plan(first, {"a": 20, "b": 10}, rows=5)
    assert ranges(second) == [("a", 1, 0, 10), ("a", 1, 10, 20), ("b", 2, 0, 5), ("b", 2, 5, 10)]


def test_files_that_moved_and_are_the_same_are_the_same_plan() -> None:
    first, _ = plan(None, {"a": 20})
    moved, changes = plan(first, {"a": 20}, base="file:///elsewhere")
    assert (moved.number, ranges(moved), bool(changes)) == (1, ranges(first), False)
    assert moved.shards[0].uri == "file:///elsewhere/a"


def test_new_files_get_the_next_indexes_and_the_others_keep_their_chunks() -> None:
    first, _ = plan(None, {"b": 10, "d": 10})
    second, changes = plan(first, {"a": 10, "b": 10, "c": 10, "d": 10})
    assert second.number == 2
    assert [shard.path for shard in second.shards] == ["b", "d", "a", "c"]
    assert [shard.index for shard in second.shards] == [0, 1, 2, 3]
    assert ranges(second) == [*ranges(first), ("a", 2, 0, 10), ("c", 2, 0, 10)]
    assert changes == Changes(new=["a", "c"])


def test_a_replaced_file_is_planned_anew_under_its_index_and_part_name() -> None:
    first, _ = plan(None, {"a": 10, "b": 10})
    second, changes = plan(first, {"a": (30, "v2"), "b": 10})
    assert changes == Changes(replaced=["a"])
    assert second.shards[0].part_name == first.shards[0].part_name
    assert second.shards[0].etag == "v2"
    assert ranges(second) == [("a", 2, 0, 10), ("a", 2, 10, 20), ("a", 2, 20, 30), ("b", 1, 0, 10)]


def test_a_file_that_is_gone_is_kept_and_reported_and_may_come_back() -> None:
    first, _ = plan(None, {"a": 10, "b": 10})
    second, changes = plan(first, {"b": 10})
    assert changes == Changes(gone=["a"])
    assert second.shards[0].gone
    assert ranges(second) == [("b", 1, 0, 10)]
    assert plan(second, {"b": 10}) == (second, Changes())
    third, changes = plan(second, {"a": 10, "b": 10})
    assert changes == Changes(returned=["a"])
    assert ranges(third) == ranges(first)
    third, changes = plan(second, {"a": (5, "v2"), "b": 10})
    assert changes == Changes(replaced=["a"])
    assert ranges(third) == [("a", 3, 0, 5), ("b", 1, 0, 10)]


def test_a_limit_counts_rows_over_the_files_in_order() -> None:
    planned, _ = plan(None, {"a": 25, "b": 10, "c": 10}, limit=28)
    assert ranges(planned) == [("a", 1, 0, 10), ("a", 1, 10, 20), ("a", 1, 20, 25), ("b", 1, 0, 3)]
    assert [shard.has_part for shard in planned.shards] == [True, True, False]


def test_a_larger_limit_extends_and_a_smaller_one_takes_nothing_back() -> None:
    first, _ = plan(None, {"a": 25, "b": 10}, limit=15)
    assert plan(first, {"a": 25, "b": 10}, limit=3)[0] == first
    second, changes = plan(first, {"a": 25, "b": 10}, limit=27)
    assert ranges(second) == [*ranges(first), ("a", 2, 15, 25), ("b", 2, 0, 2)]
    assert changes == Changes(extended=["a", "b"])
    whole, _ = plan(second, {"a": 25, "b": 10})
    assert ranges(whole) == [*ranges(second), ("b", 3, 2, 10)]


def test_rows_that_are_planned_already_count_towards_the_limit() -> None:
    first, _ = plan(None, {"m": 20}, limit=15)
    second, changes = plan(first, {"a": 20, "m": 20}, limit=18)
    assert changes == Changes(new=["a"])
    assert ranges(second) == [("m", 1, 0, 10), ("m", 1, 10, 15), ("a", 2, 0, 3)]


def test_what_changes_the_answers_is_refused_by_name() -> None:
    first, _ = plan(None, {"a": 5}, fingerprints={"label": "f1", "facts": "g1", "old": "h1"})
    with pytest.raises(PlanMismatch) as raised:
        plan(first, {"a": 5, "b": 5}, fingerprints={"label": "f2", "facts": "g1", "fresh": "i1"})
    said = str(raised.value)
    assert "step 'label' has changed" in said
    assert "step 'fresh' is new" in said
    assert "step 'old' has been removed" in said
    assert "'facts'" not in said
    assert "use another output folder" in said


def test_what_changes_the_columns_is_refused_by_name() -> None:
    first, _ = plan(None, {"a": 5})
    label = SCHEMA.field("label")
    for keep, says in [
        ([pa.field("id", pa.string())], "column 'id' was int64 and would be string"),
        ([], "column 'id' has been removed"),
        ([pa.field("id", pa.int64()), pa.field("date", pa.date32())], "column 'date' is new"),
    ]:
        with pytest.raises(PlanMismatch, match=says):
            plan(first, {"a": 5}, schema=part_schema(keep, [label]))


def test_the_order_of_columns_changes_nothing() -> None:
    first, _ = plan(None, {"a": 5})
    reordered = pa.schema(list(reversed(list(SCHEMA))))
    assert plan(first, {"a": 5}, schema=reordered)[0] == first
    assert plan(first, {"a": 5, "b": 5}, schema=reordered)[0].schema == SCHEMA


@pytest.mark.parametrize(("rows", "limit", "says"), [(0, None, "checkpoint_rows is 0"), (5, 0, "limit is 0")])
def test_impossible_sizes_are_refused(rows: int, limit: int | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(None, {"a": 5}, rows=rows, limit=limit)


@pytest.mark.parametrize(
    ("keep", "steps", "says"),
    [
        (["_row"], ["label"], "keep: the input's column '_row'"),
        (["id"], ["id"], "The step column 'id' is a duplicate, or has the name of a kept input column"),
        (["id"], ["label", "label"], "The step column 'label' is a duplicate"),
    ],
)
def test_columns_that_clash_are_refused(keep: list[str], steps: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        part_schema([pa.field(n, pa.int64()) for n in keep], [pa.field(n, pa.string()) for n in steps])


def test_a_plan_survives_its_file() -> None:
    first, _ = plan(None, {"mit Leer/ü #1.parquet": 25, "b": (10, "x-y")}, limit=30)
    second, _ = plan(first, {"b": (10, "x-z"), "c": 4}, rows=3)
    for planned in (first, second):
        again = plan_from_json(plan_to_json(planned))
        assert plan_to_json(again) == plan_to_json(planned)
        assert list(again.chunks()) == list(planned.chunks())
        assert again.schema == planned.schema
        assert [shard.gone for shard in again.shards] == [shard.gone for shard in planned.shards]
    assert plan_from_json(plan_to_json(first)).shards[1].uri == "file:///in/mit%20Leer/%C3%BC%20%231.parquet"
    assert json.loads(plan_to_json(first))["pipeline"] == {"name": "reviews"}


def test_text_that_is_no_unicode_survives_too() -> None:
    planned, _ = next_plan(
        None,
        corpus({"a": 1}),
        PlanSpec(checkpoint_rows=1, fingerprints={}, schema=SCHEMA, keep=(), pipeline={"document": "\ud800"}),
    )
    assert plan_from_json(plan_to_json(planned)).pipeline == {"document": "\ud800"}


def test_a_plan_file_is_written_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert load_plan(store) is None
    first, _ = plan(None, {"a": 25})
    assert save_plan(store, first) == first
    later = plan_from_json(plan_to_json(first).replace(first.created.encode(), b"2030-01-01T00:00:00+00:00"))
    assert save_plan(store, later).created == first.created
    moved, _ = plan(first, {"a": 25}, base="file:///elsewhere")
    held = save_plan(store, moved)
    assert (held.created, held.base, held.shards[0].uri) == (first.created, "file:///elsewhere", "file:///elsewhere/a")
    other, _ = plan(None, {"a": 25, "b": 3})
    with pytest.raises(UserError, match="Another run has just planned the same output"):
        save_plan(store, other)
    second, _ = plan(first, {"a": 25, "b": 3})
    save_plan(store, second)
    loaded = load_plan(store)
    assert loaded is not None
    assert plan_to_json(loaded) == plan_to_json(second)
    assert load_plan(store, 1) is not None
    assert load_plan(store, 3) is None


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 1}', b"[1]", b'{"format": 99, "headrace": "9.9"}'])
def test_a_plan_file_that_cannot_be_understood_is_named(tmp_path: Path, data: bytes) -> None:
    store = LocalStore(tmp_path)
    store.replace("_headrace/plan-000007.json", data)
    with pytest.raises(UserError, match=r"_headrace/plan-000007\.json in /.* output folder"):
        load_plan(store)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[dict[str, int | tuple[int, str]], int, int | None]]:
    """What the input was at each run, with the chunk size and the limit of the run."""
    versions: dict[tuple[str, str], int] = {}
    runs = []
    for _ in range(draw(st.integers(1, 6))):
        files: dict[str, int | tuple[int, str]] = {}
        for path in draw(st.sets(st.sampled_from("abcde"), min_size=1)):
            etag = draw(st.sampled_from(["v1", "v2"]))
            files[path] = (versions.setdefault((path, etag), draw(st.integers(0, 30))), etag)
        runs.append((files, draw(st.integers(1, 12)), draw(st.none() | st.integers(1, 120))))
    return runs


@given(histories())
@settings(max_examples=80, deadline=None)
def test_any_sequence_of_plans_covers_each_planned_row_exactly_once(
    history: list[tuple[dict[str, int | tuple[int, str]], int, int | None]],
) -> None:
    previous: Plan | None = None
    parts: dict[str, str] = {}
    names: dict[str, tuple[str, str, int, int]] = {}
    for files, rows, limit in history:
        planned, changes = plan(previous, files, rows=rows, limit=limit)
        there = corpus(files)
        size = {shard.path: shard.rows for shard in there.shards}
        etags = {shard.path: shard.etag for shard in there.shards}

        covered: Counter[tuple[str, int]] = Counter()
        for chunk in planned.chunks():
            assert chunk.path in size, "no chunk of a file that is gone"
            assert chunk.rows > 0
            covered.update((chunk.path, row) for row in range(chunk.first, chunk.last))
            # A name stands for the same rows of the same file for ever.
            what = (chunk.path, etags[chunk.path], chunk.first, chunk.last)
            assert names.setdefault(chunk.name, what) == what
        assert set(covered.values()) <= {1}
        of_file = Counter(path for path, _ in covered)
        assert of_file == Counter({s.path: s.covered for s in planned.shards if s.path in size})
        assert all(row < size[path] for path, row in covered)
        if limit is None:
            assert covered.total() == there.rows
        else:
            assert covered.total() >= min(limit, there.rows)

        if previous is not None:
            assert bool(changes) == (planned.number == previous.number + 1)
            # What is unchanged keeps its chunks.
            same = {s.path for s in previous.shards if etags.get(s.path) == s.etag and size[s.path] == s.rows}
            kept = {c for s in previous.shards if s.path in same for c in s.chunks()}
            assert kept <= set(planned.chunks())
            if limit is not None:
                assert covered.total() <= max(limit, sum(chunk.rows for chunk in kept))
        for shard in planned.shards:
            assert parts.setdefault(shard.path, shard.part_name) == shard.part_name
        assert [shard.index for shard in planned.shards] == list(range(len(planned.shards)))
        assert plan_to_json(plan_from_json(plan_to_json(planned))) == plan_to_json(planned)
        previous = planned


@pytest.mark.parametrize("span", [Span(1, 0, 20, 6), Span(1, 3, 20, 4), Span(1, 5, 6, 9), Span(1, 2, 14, 3)])
def test_a_span_knows_its_own_chunks(span: Span) -> None:
    assert {(a, b) for a in range(25) for b in range(25) if span.cuts(a, b)} == set(span.ranges())


def test_a_hundred_thousand_chunks_in_ten_thousand_shards_are_quick_and_small() -> None:
    shards = tuple(
        Shard(f"2026/{number:06d}.parquet", "file:///in/x", 10_000_000, "18a2b3c4d5e6f708-989680-1a2b3c", 10_000)
        for number in range(10_000)
    )
    started = time.process_time()
    planned, _ = next_plan(
        None,
        Corpus("file:///in", shards, ()),
        PlanSpec(checkpoint_rows=1000, fingerprints={"label": "f1"}, schema=SCHEMA, keep=["id"], pipeline={}),
    )
    data = plan_to_json(planned)
    again = plan_from_json(data)
    assert sum(1 for _ in again.chunks()) == 100_000
    assert len(data) < 1_200_000
    assert time.process_time() - started < 10


def test_chunks_are_small_values() -> None:
    chunk = Chunk(1, 2, "a", 0, 10)
    assert {chunk: 1}[Chunk(1, 2, "a", 0, 10)] == 1
    assert chunk.rows == 10
