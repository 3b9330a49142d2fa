"""Publishing a shard: its part, and its dead letters beside it, made from its committed chunks.

Only the driver publishes. A part is replaced by one atomic put, so a reader sees only whole parts: the old one until
the new one is there. The part's footer says which spans it contains. This, and not its name, distinguishes a part of
this generation from an older one.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa

from headrace.pipelines.output.checkpoint import ERROR, RECORD_KEY, Counts, chunk_records, counts_of
from headrace.pipelines.output.damaged import damaged
from headrace.pipelines.output.part_writer import answered_rows, dead_rows, part_writer
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.output.published import part_identity
from headrace.pipelines.output.superseded import check_latest, published_as_latest
from headrace.pipelines.storage.store import Store


def publish_shard(store: Store, plan: Plan, shard: PlannedShard) -> None:
    """Make the shard's part, and its dead letters if it has any, from its chunks, which must all be committed.

    Raises:
        FileNotFoundError: a chunk is not committed.
        Damaged: a chunk file cannot be read, is not what its name says, or was made by another pipeline.
        Superseded: there is a newer plan.
    """
    chunks = list(shard.chunks())
    records = list(chunk_records(store, chunks))
    for chunk, record in zip(chunks, records, strict=True):
        if record["fingerprint"] != plan.fingerprint or counts_of(record).rows != chunk.rows:
            raise damaged(store, chunk.name, f"was not made by this pipeline: its footer is {record}")
    counts = asdict(sum(map(counts_of, records), Counts()))
    footer = {**part_identity(plan.fingerprint, shard), "counts": counts}
    identity = {RECORD_KEY: json.dumps(footer, ensure_ascii=False).encode()}
    dead = [chunk for chunk, record in zip(chunks, records, strict=True) if counts_of(record).dead]

    def latest() -> None:
        check_latest(store, plan)

    with published_as_latest(store, plan):
        if dead:
            schema = errors_schema(plan)
            letters = part_writer(schema, identity, lambda: dead_rows(store, schema, dead), latest)
            store.replace(shard.letters_name, letters)
        else:
            store.delete(shard.letters_name)
        # The part last: that it is there, for these spans, is what says that the shard is published.
        answers = part_writer(plan.schema, identity, lambda: answered_rows(store, plan.schema, chunks), latest)
        store.replace(shard.part_name, answers)


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
