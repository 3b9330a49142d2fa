"""From committed chunks to what readers read: a part for each shard, dead letters beside it, `_SUCCESS` last.

Only the driver publishes. A part is replaced by one atomic put, so a reader sees whole parts only, the old
one until the new one is there. The part's footer says which spans it holds: with that, and not with its name,
a part of this generation is told from an older one.

A driver may sleep, and find that another one has planned the output anew. So it asks whether there is a newer plan
before and after all that it changes. What comes between all the same shows in the footers: `_SUCCESS` is believed only
where each part, and its dead letters, are those of the latest plan, and what is not is made again of its chunks.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.pipelines.input.arrow_types import fit
from headrace.pipelines.input.sources import would_read
from headrace.pipelines.output.checkpoint import (
    ANSWERED,
    ERROR,
    RECORD_KEY,
    Counts,
    Unaccounted,
    chunk_records,
    counts_of,
    letters_of,
    parquet_writer,
    read_record,
)
from headrace.pipelines.output.plan import CHUNKS, FOLDER, SEEDS, Chunk, Plan, PlannedShard, plan_name
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

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


class Superseded(UserError):
    """Another run has planned the output anew: this one works on a plan that is not the latest any more."""


def check_latest(store: Store, plan: Plan) -> None:
    """See that nobody has planned the output anew.

    Raises:
        Superseded: somebody has.
    """
    if store.exists(plan_name(plan.number + 1)):
        raise Superseded(
            f"Another run has meanwhile planned the same output anew ({plan_name(plan.number + 1)} in "
            f"{shown(store.uri)}), so this one, which works on plan {plan.number}, publishes nothing more. What is "
            "committed stays and counts. Wait for the other run to end, or end it, and run the command again: it goes "
            "on from there."
        )


@contextmanager
def _published_as_latest(store: Store, plan: Plan) -> Iterator[None]:
    """Around changes of what readers see. Where a newer plan comes up meanwhile `_SUCCESS` goes, so that nobody takes
    what is the older plan's for complete, and the next run looks at it.

    Raises:
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    try:
        yield
        check_latest(store, plan)
    except Superseded as error:
        store.delete(SUCCESS)
        raise Superseded(
            f"{error} It was planned while this run was publishing: `_SUCCESS` is taken away until a run has seen to "
            "it that the parts are those of the latest plan."
        ) from error


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
        Superseded: there is a newer plan.
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

    def latest() -> None:
        check_latest(store, plan)

    with _published_as_latest(store, plan):
        if dead:
            schema = errors_schema(plan)
            letters = _writer(schema, identity, lambda: _dead_rows(store, schema, dead), latest)
            store.replace(errors_path, letters)
        else:
            store.delete(errors_path)
        # The part last: that it is there, for these spans, is what says that the shard is published.
        answers = _writer(plan.schema, identity, lambda: _answered_rows(store, plan.schema, chunks), latest)
        store.replace(shard.part_name, answers)


def published(store: Store, plan: Plan) -> dict[int, Counts]:
    """The shards that are published, by index: their chunks need no work, nor be there any more.

    The counts are those of the shard's rows; with them no chunk of it has to be looked at.
    """
    there, letters = set(store.names()), set(store.names(ERRORS))
    shards = [shard for shard in plan.shards if shard.part_name in there]
    fingerprint = plan.fingerprint
    answers = each(
        lambda shard: _published_counts(store, shard, _identity(fingerprint, shard), letters), shards, "parts"
    )
    return {shard.index: counts for shard, counts in zip(shards, answers, strict=True) if counts is not None}


def with_kept(store: Store, plan: Plan, out: Mapping[int, Counts]) -> dict[int, Counts]:
    """What readers see once a run is through: ``out`` (see :func:`published`), and parts of files that went too soon.

    Such a file was to get more rows, or to have its dead letters asked again, and is gone from the input. Its part
    holds less than is planned, answered by this pipeline, of what the file held last: it stays, and counts.
    """
    gone = [shard for shard in plan.shards if shard.gone and not shard.pruned and shard.index not in out]
    if not gone:
        return dict(out)
    there, letters = set(store.names()), set(store.names(ERRORS))
    gone = [shard for shard in gone if shard.part_name in there]
    fingerprint = plan.fingerprint
    answers = each(
        lambda shard: _published_counts(store, shard, _content(fingerprint, shard), letters, spans=False), gone, "parts"
    )
    kept = {shard.index: counts for shard, counts in zip(gone, answers, strict=True) if counts is not None}
    return {**out, **kept}


def _published_counts(
    store: Store, shard: PlannedShard, identity: Mapping[str, Any], letters: Collection[str], *, spans: bool = True
) -> Counts | None:
    """The counts of the shard's rows; None where its part is not there, or not the one of that identity, or the dead
    letters beside it are not its own.

    ``letters`` are the names in ``_errors/``. Without ``spans`` it may hold any rows.
    """
    said = _footer(store, shard.part_name)
    if said is None or "counts" not in said:
        return None
    counts = Counts(**said["counts"])
    if {key: value for key, value in said.items() if key != "counts" and (spans or key != "spans")} != identity:
        return None
    if (shard.part_name in letters) != bool(counts.dead):
        return None
    if counts.dead and _footer(store, f"{ERRORS}/{shard.part_name}") != said:
        return None
    return counts


def _footer(store: Store, path: str) -> dict[str, Any] | None:
    try:
        with store.open(path) as file:
            return read_record(file)
    except FileNotFoundError:
        return None


def begin(store: Store, plan: Plan) -> None:
    """Take `_SUCCESS` away when the output is to get more than it has.

    For a new plan this comes before the plan is saved, so that `_SUCCESS` never stands with a plan that is not done.
    That the one before it was done is kept in ``current.json``.

    Raises:
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    if not store.exists(SUCCESS) or is_complete(store, plan):
        return
    current = _current(store)
    if current.get("plan") == plan.number - 1:
        store.replace(CURRENT, _json({**current, "next": plan.number}))
    store.delete(SUCCESS)


def was_complete(store: Store, plan: Plan) -> bool:
    """Whether the output held all of the plan when a next one was about to be saved."""
    current = _current(store)
    return current.get("plan") == plan.number and "next" in current


def finish(store: Store, plan: Plan, report: Mapping[str, Any]) -> list[str]:
    """Say that the output is complete: the report, the names of its parts, and `_SUCCESS` last.

    Parts that are not the plan's, because another driver has come between, are made again of their chunks.

    Returns:
        The files whose parts were removed, for they held older answers than any that the plan has of these files.

    Raises:
        Unaccounted: a part is missing, and so are chunks of it.
        Superseded: there is a newer plan.
    """
    check_latest(store, plan)
    out = with_kept(store, plan, _mended(store, plan))
    with _published_as_latest(store, plan):
        parts = [shard.part_name for shard in plan.shards if shard.index in out and not shard.pruned]
        strays = _strays(store, plan, out)
        store.replace(REPORT, _json(report))
        store.replace(CURRENT, _json({"plan": plan.number, "parts": parts}))
        for shard in strays:
            store.delete(shard.part_name)
            store.delete(f"{ERRORS}/{shard.part_name}")
        _prune(store, plan)
        # They were copied into the chunks.
        for entry in store.list(SEEDS):
            if _number_in(entry.path, SEEDS) <= plan.number:
                store.delete(entry.path)
        check_latest(store, plan)
        store.put_if_absent(SUCCESS, b"")
    return [shard.path for shard in strays if not shard.pruned]


def _mended(store: Store, plan: Plan) -> dict[int, Counts]:
    """:func:`published`, when all that the plan has is published."""
    out = published(store, plan)
    wrong = _unpublished(plan, out)
    for shard in wrong:
        try:
            publish_shard(store, plan, shard)
        except FileNotFoundError as error:
            raise Unaccounted(
                f"{shown(store.uri)} is not complete: {len(wrong)} parts are missing or not those of plan "
                f"{plan.number}, {shard.part_name} among them, whose chunks are not all there ({error}). "
                "Run the same command again."
            ) from error
    return published(store, plan) if wrong else out


def _unpublished(plan: Plan, out: Collection[int]) -> list[PlannedShard]:
    """The shards that are to have their part and have none, or another one."""
    return [shard for shard in plan.shards if shard.has_part and not shard.gone and shard.index not in out]


def _strays(store: Store, plan: Plan, out: Collection[int]) -> list[PlannedShard]:
    """The shards that are to have no part and have one, or dead letters: pruned ones, and those of whose files the plan
    has no answers, but only an older one had (of what they held before, or by another pipeline)."""
    there = {*store.names(), *store.names(ERRORS)}
    none = (shard for shard in plan.shards if shard.pruned or shard.index not in out)
    return [shard for shard in none if (shard.gone or not shard.has_part) and shard.part_name in there]


def _prune(store: Store, plan: Plan) -> None:
    """Remove the chunks of pruned shards, but those of plans to come. Nobody is told of them any more."""
    pruned = [shard for shard in plan.shards if shard.pruned]
    if not pruned:
        return
    folders = {f"{shard.index:05d}-{shard.id8}/" for shard in pruned}
    for number in store.names(CHUNKS):
        if _number_in(f"{CHUNKS}/{number}", CHUNKS) > plan.number:
            continue
        for folder in folders & set(store.names(f"{CHUNKS}/{number}".rstrip("/"))):
            for entry in store.list(f"{CHUNKS}/{number}{folder}".rstrip("/")):
                store.delete(entry.path)


def _number_in(path: str, folder: str) -> int:
    """The number of the plan that a path below ``folder`` begins with; 0 where it is none of ours."""
    named = re.match(r"(\d+)", path.removeprefix(f"{folder}/"))
    return int(named.group(1)) if named else 0


def is_complete(store: Store, plan: Plan, out: Mapping[int, Counts] | None = None) -> bool:
    """Whether the output holds all of the plan, and nothing else: `_SUCCESS`, and each part the plan's own.

    ``out`` is what :func:`published` has said, if it was asked.
    """
    if not store.exists(SUCCESS):
        return False
    current = _current(store)
    if current.get("plan") != plan.number or not set(current["parts"]) <= set(store.names()):
        return False
    out = published(store, plan) if out is None else out
    return not _unpublished(plan, out) and not _strays(store, plan, with_kept(store, plan, out))


def _current(store: Store) -> dict[str, Any]:
    try:
        current: dict[str, Any] = json.loads(store.read(CURRENT))
    except FileNotFoundError:
        return {}
    return current


def errors_schema(plan: Plan) -> pa.Schema:
    """The schema of a file in ``_errors/``: the row, the kept columns, what went wrong, what was answered."""
    kept = [name for name in plan.schema.names if name in plan.keep]
    steps = [name for name in plan.schema.names if name not in ("_shard", "_row", *plan.keep)]
    return pa.schema(
        [
            *(plan.schema.field(name) for name in ("_shard", "_row", *kept)),
            *(pa.field(f"_{field.name}", field.type) for field in ERROR),
            *(plan.schema.field(name) for name in steps),
        ]
    )


def _identity(fingerprint: str, shard: PlannedShard) -> dict[str, Any]:
    return {**_content(fingerprint, shard), "spans": [span.identity for span in shard.spans]}


def _content(fingerprint: str, shard: PlannedShard) -> dict[str, Any]:
    return {"shard": shard.path, "index": shard.index, "etag": shard.etag, "fingerprint": fingerprint}


def _writer(
    schema: pa.Schema,
    metadata: Mapping[bytes, bytes],
    tables: Callable[[], Iterable[pa.Table]],
    check: Callable[[], None],
) -> Callable[[BinaryIO], None]:
    """A function that writes what ``tables()`` yields, a row group at a time; ``check`` comes last, and may raise."""

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, schema) as writer:
            for group in _grouped(tables()):
                writer.write_table(group, row_group_size=GROUP_ROWS)
            writer.add_key_value_metadata(metadata)
        check()

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
        yield fit(letters_of(table), schema)


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
