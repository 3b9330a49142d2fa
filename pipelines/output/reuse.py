"""Answers of another output for rows that are the same: found by their digests, whatever files they are in now.

A partitioned join, because neither side need fit in memory. The rows of the other output and those of the input go to
buckets on disk by their digest, and one bucket after the other is joined in memory. The results go to buckets by their
new place, and these become files of seeds (see ``carried_answers``), which workers read like the chunks of an earlier
plan.

The files are complete before the plan that names them is saved, and their folder's name says what they were made from:
if a run dies in between, the next one finds them or makes them again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from headrace.operators.base import ModelStep
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.output.carried_answers import SEGMENT_ROWS, Origin
from headrace.pipelines.output.checkpoint import ANSWERED, DIGEST, DIGEST_TYPE, FILTERED, committed, parquet_writer
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.names import CHUNKS, seed_folder, seed_name
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan, plan_to_json
from headrace.pipelines.output.rows import digests
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store

BUCKET_BYTES = 64 << 20
"""Approximate bytes of the other output's rows in a bucket."""

SPILL_BYTES = 128 << 20
"""Bytes that are held before they go to disk."""

EXPANSION = 4
"""Approximately how much larger rows are in memory than in a chunk file."""

MOST_BUCKETS = 1 << 14

AHEAD = 16
"""Chunk files of the other output that are read concurrently: from an object store one read is mostly waiting."""

GROUP_ROWS = 2048
"""Rows of a row group of a file of seeds: a worker reads those that its chunk needs."""

MANIFEST = "seeds.json"


@dataclass(frozen=True, slots=True)
class Previous:
    """Another output, whose answers are to be reused."""

    store: Store
    plan: Plan

    @classmethod
    def open(cls, store: Store, pipeline: Pipeline, reads: tuple[str, ...]) -> Previous:
        """The output in ``store``, for ``pipeline``, which reads these columns.

        Raises:
            UserError: it is not an output, or its rows cannot be identified.
        """
        if not pipeline.key:
            raise UserError(
                "--reuse needs the pipeline's `key`: the input columns that identify a row, such as key: [id]."
            )
        plan = load_plan(store)
        if plan is None:
            raise UserError(
                f"--reuse: {shown(store.uri)} is not an output of headrace: it contains no plan. Name the output "
                "folder of a run."
            )
        if not plan.key:
            raise UserError(
                f"--reuse: {shown(store.uri)} was made without `key`, so its rows cannot be identified. Run its "
                "pipeline over its input again with `key` and --recompute changed: this asks the model nothing."
            )
        if plan.key != pipeline.key:
            raise UserError(
                f"--reuse: the key of {shown(store.uri)} is {list(plan.key)}, but this pipeline's is "
                f"{list(pipeline.key)}. Both must be the same."
            )
        if plan.reads != reads:
            raise UserError(
                f"--reuse: {shown(store.uri)} was made by a pipeline that reads the columns {list(plan.reads)}, but "
                f"this one reads {list(reads)}, so no row is known to be the same. Run without --reuse."
            )
        return cls(store, plan)


@dataclass(frozen=True, slots=True)
class Taken:
    """What was found: ``found`` of ``wanted`` rows."""

    wanted: int
    found: int


def with_seeds(plan: Plan, previous: Previous, pipeline: Pipeline) -> Plan:
    """``plan``, whose own rows without earlier answers are now based on those of ``previous``.

    Raises:
        UserError: no step is the same as there.
    """
    if not any(span.plan == plan.number and not span.bases for shard in plan.shards for span in shard.spans):
        return plan
    origin = Origin.of(previous.plan, plan, pipeline)
    if not any(isinstance(step, ModelStep) and step.name in origin.steps for step in pipeline.steps):
        raise UserError(
            f"--reuse: no step of this pipeline is the same as in {shown(previous.store.uri)} (plan "
            f"{previous.plan.number}), so nothing can be reused. Run without --reuse."
        )
    shards = tuple(
        replace(
            shard,
            spans=tuple(
                span._replace(bases=(-plan.number,)) if span.plan == plan.number and not span.bases else span
                for span in shard.spans
            ),
        )
        for shard in plan.shards
    )
    plan = replace(plan, shards=shards)
    made_of = [previous.store.uri, previous.plan.number, previous.plan.created, json.loads(plan_to_json(plan))]
    made_of[3].pop("created")
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:8]
    seeds = {
        "folder": seed_folder(plan.number, name),
        "steps": list(origin.steps),
        "output": previous.store.uri,
        "plan": previous.plan.number,
    }
    return replace(plan, seeds=seeds)


def take(
    store: Store,
    plan: Plan,
    pipeline: Pipeline,
    columns: pa.Schema,
    previous: Previous,
) -> Taken:
    """Write the seeds of ``plan`` (see :func:`with_seeds`) into ``store``, unless they exist.

    Args:
        columns: the input's, with the types to read them as.
    """
    if (there := taken(store, plan)) is not None:
        return there
    folder = plan.seeds["folder"]
    origin = Origin.of(previous.plan, plan, pipeline)
    size = sum(entry.size for entry in previous.store.list(CHUNKS))
    buckets = 1
    while buckets * BUCKET_BYTES < size * EXPANSION and buckets < MOST_BUCKETS:
        buckets *= 2
    with tempfile.TemporaryDirectory(prefix="headrace-reuse-") as temporary:
        theirs = Spill(Path(temporary) / "theirs")
        for table in _answers(previous, origin):
            theirs.add_all(_bucketed(table, buckets))
        ours = Spill(Path(temporary) / "ours")
        wanted = 0
        for table in _rows(plan, columns):
            wanted += table.num_rows
            ours.add_all(_bucketed(table, buckets))
        found = Spill(Path(temporary) / "found")
        matched = 0
        for bucket in range(buckets):
            joined = _join(theirs.read(bucket), ours, bucket)
            for table in joined:
                matched += table.num_rows
                found.add_all(_placed(table))
            theirs.drop(bucket)
            ours.drop(bucket)
        for place in found.partitions():
            _write(store, plan, folder, place, found.read(place))
            found.drop(place)
    store.replace(f"{folder}/{MANIFEST}", json.dumps({"wanted": wanted, "found": matched}).encode())
    return Taken(wanted, matched)


def taken(store: Store, plan: Plan) -> Taken | None:
    """What was found for ``plan``; None if its seeds are incomplete or gone."""
    manifest = f"{plan.seeds.get('folder')}/{MANIFEST}"
    if not plan.seeds or not store.exists(manifest):
        return None
    try:
        return Taken(**json.loads(store.read(manifest)))
    except (ValueError, TypeError):  # it is damaged, and is made again
        return None


def _answers(previous: Previous, origin: Origin) -> Iterator[pa.Table]:
    """The content of the other output's chunks: digest, outcome, and the valid answers under the plan's names."""
    outcomes = pa.array([ANSWERED, FILTERED] if origin.filters else [ANSWERED])

    def answers(name: str) -> pa.Table:
        with opened(previous.store, name) as file:
            columns = [DIGEST, "_outcome", *dict.fromkeys(origin.columns.values())]
            read = file.read(columns=columns, use_threads=False)
        read = read.filter(pc.is_in(read["_outcome"], value_set=outcomes))
        named = {has: read[had] for has, had in origin.columns.items()}
        return _plain(pa.table({DIGEST: read[DIGEST], "_outcome": read["_outcome"], **named}))

    names = sorted(chunk.name for chunk in committed(previous.store, previous.plan))
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="reuse") as pool:
        for start in range(0, len(names), AHEAD):
            yield from pool.map(answers, names[start : start + AHEAD])


def _rows(plan: Plan, columns: pa.Schema) -> Iterator[pa.Table]:
    """The wanted rows of the input: digest, shard and row."""
    reader = ChunkReader(columns)
    needed = list(dict.fromkeys((*plan.reads, *plan.key)))
    for shard in plan.shards:
        if shard.gone:
            continue
        for chunk in shard.chunks():
            if -plan.number not in chunk.bases:
                continue
            rows = reader.read(shard.as_found(), chunk.first, chunk.last, needed)
            # A bad row is given to a worker, which says what is wrong.
            good = pa.array([row for row in range(chunk.rows) if row not in rows.bad], pa.int64())
            yield pa.table(
                {
                    DIGEST: pa.array(digests(rows.table, plan.key, plan.reads), DIGEST_TYPE).take(good),
                    "_index": pa.array([shard.index] * len(good), pa.int64()),
                    "_row": pc.add(good, chunk.first),
                }
            )


def _join(theirs: Iterable[pa.Table], ours: Spill, bucket: int) -> Iterator[pa.Table]:
    tables = list(theirs)
    if not tables:
        return
    right = pa.concat_tables(tables).combine_chunks()
    for left in ours.read(bucket):
        at = pc.index_in(left[DIGEST], value_set=right[DIGEST])
        there = pc.is_valid(at)
        rows = right.take(at.filter(there)).drop_columns([DIGEST])
        place = left.filter(there)
        yield rows.append_column("_index", place["_index"]).append_column("_row", place["_row"])


def _bucketed(table: pa.Table, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows by the first bits of their digests; ``buckets`` is a power of two."""
    if buckets == 1 or not table.num_rows:
        yield 0, table
        return
    digest = table[DIGEST].combine_chunks()
    digest = digest.chunk(0) if isinstance(digest, pa.ChunkedArray) else digest
    words = pa.Array.from_buffers(pa.uint32(), 4 * len(digest), [None, digest.buffers()[1]], offset=4 * digest.offset)
    first = words.take(pa.array(range(0, 4 * len(digest), 4), pa.int64()))
    yield from _parted(table, pc.bit_wise_and(first, pa.scalar(buckets - 1, pa.uint32())))


def _placed(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The rows by the file of seeds that they belong to: a number for the shard and the segment."""
    segment = pc.divide(table["_row"], SEGMENT_ROWS)
    yield from _parted(table, pc.add(pc.shift_left(table["_index"], pa.scalar(32, pa.int64())), segment))


def _parted(table: pa.Table, numbers: pa.Array | pa.ChunkedArray) -> Iterator[tuple[int, pa.Table]]:
    numbers = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    order = pc.sort_indices(numbers)
    table, numbers = table.take(order), numbers.take(order)
    start = 0
    for each in pc.value_counts(numbers).to_pylist():
        yield each["values"], table.slice(start, each["counts"])
        start += each["counts"]


def _write(store: Store, plan: Plan, folder: str, place: int, tables: Iterable[pa.Table]) -> None:
    index, segment = place >> 32, place & 0xFFFFFFFF
    shard = plan.shards[index]
    table = pa.concat_tables(list(tables)).drop_columns(["_index"]).sort_by("_row")

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, table.schema) as writer:
            writer.write_table(table, row_group_size=GROUP_ROWS)

    store.replace(seed_name(folder, index, shard.path, segment), write)


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionaries: each chunk has its own."""
    schema = pa.schema([f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema])
    return table.cast(schema)


class Spill:
    """Tables on disk by partition. At most :data:`SPILL_BYTES` and the last added table are in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._held: dict[int, list[pa.Table]] = {}
        self._bytes = 0
        self._written: set[int] = set()

    def add_all(self, parts: Iterable[tuple[int, pa.Table]]) -> None:
        """Add tables to their partitions."""
        for partition, table in parts:
            if table.num_rows:
                self._held.setdefault(partition, []).append(table)
                self._bytes += table.nbytes
        if self._bytes > SPILL_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        for partition, tables in self._held.items():
            # A stream after the ones that are there: no file stays open, however many partitions there are.
            with open(self._file(partition), "ab") as file, pa.ipc.new_stream(file, tables[0].schema) as stream:
                for table in tables:
                    stream.write_table(table)
            self._written.add(partition)
        self._held.clear()
        self._bytes = 0

    def partitions(self) -> list[int]:
        """The partitions that have rows."""
        return sorted(self._written | self._held.keys())

    def read(self, partition: int) -> Iterator[pa.Table]:
        """What was added to a partition."""
        if partition in self._written:
            with open(self._file(partition), "rb") as file:
                while file.peek(1):
                    yield pa.ipc.open_stream(file).read_all()
        yield from self._held.get(partition, ())

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for table in self._held.pop(partition, ()):
            self._bytes -= table.nbytes
        if partition in self._written:
            self._written.remove(partition)
            self._file(partition).unlink()

    def _file(self, partition: int) -> Path:
        return self._folder / f"{partition:x}"
