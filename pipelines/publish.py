"""From committed chunks to what readers read: a part for each shard, dead letters beside it, `_SUCCESS` last.

Only the driver publishes. A part is replaced by one atomic put, so a reader sees whole parts only, the old
one until the new one is there. The part's footer says which spans it holds: with that, and not with its name,
a part of this generation is told from an older one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.pipelines.checkpoint import (
    ANSWERED,
    DEAD,
    RECORD_KEY,
    Counts,
    Unaccounted,
    chunk_records,
    counts_of,
    parquet_writer,
    read_record,
)
from headrace.pipelines.corpus import fit, would_read
from headrace.pipelines.errors import UserError
from headrace.pipelines.plan import CHUNKS, FOLDER, SEEDS, Chunk, Plan, PlannedShard
from headrace.pipelines.storage import Store, shown
from headrace.pipelines.threads import each

ERRORS = "_errors"
SUCCESS = "_SUCCESS"
CURRENT = f"{FOLDER}/current.json"
REPORT = f"{FOLDER}/report.json"
REPORT_PAGE = f"{FOLDER}/report.html"

GROUP_ROWS = 131_072
GROUP_BYTES = 64 << 20
"""A row group of a part is closed at so many rows or bytes: large enough to scan, small enough to hold."""

READ_AHEAD = 8
"""Chunks that are read at once for a part: in an object store each takes two calls of some tens of milliseconds."""


def check_output_folder(store: Store, input_uri: str) -> None:
    """See to it that the output folder is ours to write into.

    Raises:
        UserError: it holds something else, or the next run would read it as input.
    """
    root = shown(store.uri)
    if would_read(input_uri, store.uri):
        raise UserError(
            f"The output folder {root!r} is the input {input_uri!r} or lies inside it: the next run "
            "would read this run's answers as its input. Use an output folder beside the input."
        )
    names = [name for name in store.names() if not name.startswith(".")]
    if names and f"{FOLDER}/" not in names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(
            f"The output folder {root!r} holds something that headrace has not made: "
            f"{', '.join(repr(name) for name in names[:5])}{more}. Use an empty folder, or one that does "
            "not exist yet."
        )
    store.check_writable()


def publish_shard(store: Store, plan: Plan, shard: PlannedShard) -> None:
    """Make the shard's part, and its dead letters where it has any, of its chunks, which are all committed.

    Raises:
        FileNotFoundError: a chunk is not committed.
        Unaccounted: a chunk file is not what its name says, or was made by another pipeline.
    """
    chunks = list(shard.chunks())
    records = list(chunk_records(store, chunks))
    for chunk, record in zip(chunks, records, strict=True):
        if record["fingerprint"] != plan.fingerprint or counts_of(record).rows != chunk.rows:
            raise Unaccounted(
                f"{chunk.name} in {shown(store.uri)} was not made by this pipeline: its footer says {record}. "
                "Delete it and run again."
            )
    counts = asdict(sum(map(counts_of, records), Counts()))
    identity = {
        RECORD_KEY: json.dumps({**_identity(plan.fingerprint, shard), "counts": counts}, ensure_ascii=False).encode()
    }
    errors_path = f"{ERRORS}/{shard.part_name}"
    dead = [chunk for chunk, record in zip(chunks, records, strict=True) if counts_of(record).dead]
    if dead:
        schema = errors_schema(plan)
        store.replace(errors_path, _writer(schema, identity, lambda: _dead_rows(store, schema, dead)))
    else:
        store.delete(errors_path)
    # The part last: that it is there, for these spans, is what says that the shard is published.
    store.replace(shard.part_name, _writer(plan.schema, identity, lambda: _answered_rows(store, plan.schema, chunks)))


def is_published(store: Store, plan: Plan, shard: PlannedShard) -> bool:
    """Whether the part that is there holds these spans of this file, answered by this pipeline."""
    return _published_counts(store, shard, _identity(plan.fingerprint, shard)) is not None


def published(store: Store, plan: Plan) -> dict[int, Counts]:
    """The shards that are published, by index: their chunks need no work, nor be there any more.

    The counts are those of the shard's rows; with them no chunk of it has to be looked at.
    """
    there = set(store.names())
    shards = [shard for shard in plan.shards if shard.part_name in there]
    fingerprint = plan.fingerprint
    answers = each(lambda shard: _published_counts(store, shard, _identity(fingerprint, shard)), shards, "parts")
    return {shard.index: counts for shard, counts in zip(shards, answers, strict=True) if counts is not None}


def _published_counts(store: Store, shard: PlannedShard, identity: Mapping[str, Any]) -> Counts | None:
    """The counts of the shard's rows; None where its part is not there, or not the one of that identity."""
    try:
        with store.open(shard.part_name) as file:
            said = read_record(file)
    except FileNotFoundError:
        return None
    if said is None or "counts" not in said:
        return None
    counts = Counts(**said.pop("counts"))
    return counts if said == identity else None


def begin(store: Store, plan: Plan) -> None:
    """Take `_SUCCESS` away when the output is to get more than it has."""
    if not is_complete(store, plan):
        store.delete(SUCCESS)


def finish(store: Store, plan: Plan, report: Mapping[str, Any]) -> None:
    """Say that the output is complete: the report, the names of its parts, and `_SUCCESS` last.

    Raises:
        Unaccounted: a part is missing.
    """
    there = set(store.names())
    missing = [shard.part_name for shard in plan.shards if shard.has_part and not shard.gone]
    missing = [name for name in missing if name not in there]
    if missing:
        raise Unaccounted(
            f"{shown(store.uri)} is not complete: {len(missing)} parts are missing, {missing[0]} among them."
        )
    parts = [shard.part_name for shard in plan.shards if shard.part_name in there and not shard.pruned]
    store.replace(REPORT, _json(report))
    store.replace(CURRENT, _json({"plan": plan.number, "parts": parts}))
    _prune(store, plan)
    # They were copied into the chunks.
    for entry in store.list(SEEDS):
        store.delete(entry.path)
    store.put_if_absent(SUCCESS, b"")


def _prune(store: Store, plan: Plan) -> None:
    """Remove all that there is of pruned shards: part, dead letters, chunks. Nobody is told of them any more."""
    pruned = [shard for shard in plan.shards if shard.pruned]
    if not pruned:
        return
    for shard in pruned:
        store.delete(shard.part_name)
        store.delete(f"{ERRORS}/{shard.part_name}")
    folders = {f"{shard.index:05d}-{shard.id8}/" for shard in pruned}
    for number in store.names(CHUNKS):
        for folder in folders & set(store.names(f"{CHUNKS}/{number}".rstrip("/"))):
            for entry in store.list(f"{CHUNKS}/{number}{folder}".rstrip("/")):
                store.delete(entry.path)


def is_complete(store: Store, plan: Plan) -> bool:
    """Whether the output holds all of the plan, and its parts are still there."""
    if not store.exists(SUCCESS):
        return False
    try:
        current = json.loads(store.read(CURRENT))
    except FileNotFoundError:
        return False
    return bool(current["plan"] == plan.number) and set(current["parts"]) <= set(store.names())


def errors_schema(plan: Plan) -> pa.Schema:
    """The schema of a file in ``_errors/``: the row, the kept columns, what went wrong, what was answered."""
    kept = [name for name in plan.schema.names if name in plan.keep]
    steps = [name for name in plan.schema.names if name not in ("_shard", "_row", *plan.keep)]
    return pa.schema(
        [
            *(plan.schema.field(name) for name in ("_shard", "_row", *kept)),
            pa.field("_step", pa.string()),
            pa.field("_reason", pa.string()),
            pa.field("_raw", pa.string()),
            pa.field("_tries", pa.int32()),
            *(plan.schema.field(name) for name in steps),
        ]
    )


def _identity(fingerprint: str, shard: PlannedShard) -> dict[str, Any]:
    return {
        "shard": shard.path,
        "index": shard.index,
        "etag": shard.etag,
        "fingerprint": fingerprint,
        "spans": [span.identity for span in shard.spans],
    }


def _writer(
    schema: pa.Schema, metadata: Mapping[bytes, bytes], tables: Callable[[], Iterable[pa.Table]]
) -> Callable[[BinaryIO], None]:
    """A function that writes what ``tables()`` yields, a row group at a time."""

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, schema) as writer:
            for group in _grouped(tables()):
                writer.write_table(group, row_group_size=GROUP_ROWS)
            writer.add_key_value_metadata(metadata)

    return write


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(held)


def _answered_rows(store: Store, schema: pa.Schema, chunks: Iterable[Chunk]) -> Iterator[pa.Table]:
    for table in _tables(store, chunks, [*schema.names, "_outcome"]):
        yield fit(table.filter(pc.equal(table["_outcome"], ANSWERED)), schema)


def _dead_rows(store: Store, schema: pa.Schema, chunks: Iterable[Chunk]) -> Iterator[pa.Table]:
    for table in _tables(store, chunks, None):
        dead = table.filter(pc.equal(table["_outcome"], DEAD))
        for name in ("step", "reason", "raw", "tries"):
            dead = dead.append_column(f"_{name}", pc.struct_field(dead["_error"], name))
        yield fit(dead, schema)


def _tables(store: Store, chunks: Iterable[Chunk], columns: list[str] | None) -> Iterator[pa.Table]:
    def read(chunk: Chunk) -> pa.Table:
        with store.open(chunk.name) as file:
            return pq.ParquetFile(file, page_checksum_verification=True).read(columns=columns, use_threads=False)

    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="chunks") as pool:
        coming: deque[Future[pa.Table]] = deque()
        for chunk in chunks:
            coming.append(pool.submit(read, chunk))
            if len(coming) == READ_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")
