"""How far an output is, read from what is in it: the plan, the chunk files' footers, the dead letters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from headrace.pipelines.checkpoint import Counts, chunk_records, committed, counts_of
from headrace.pipelines.errors import UserError
from headrace.pipelines.plan import Chunk, Plan, load_plan
from headrace.pipelines.publish import is_complete, published
from headrace.pipelines.storage import Store, open_store

MOST_REASONS = 10
"""Reasons of dead letters that a status lists."""


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """An output folder as it stands.

    Attributes:
        reasons: how often each (step, reason) stands in the dead letters that are committed, the most frequent first.
    """

    uri: str
    plan: Plan
    complete: bool
    counts: Counts
    chunks_done: int
    chunks: int
    shards_published: int
    reasons: tuple[tuple[str, str, int], ...]


def read_status(output: str) -> OutputStatus:
    """Read an output folder.

    Raises:
        UserError: it is no output of headrace.
    """
    store = open_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(f"{output!r} is no output of headrace: there is no plan in it.")
    done = committed(store, plan)
    out = published(store, plan)
    counts = Counts()
    reasons: Counter[tuple[str, str]] = Counter()
    ordered = sorted(done, key=lambda chunk: chunk.name)
    for chunk, record in zip(ordered, chunk_records(store, ordered), strict=True):
        counts += counts_of(record)
        if counts_of(record).dead:
            reasons.update(_reasons(store, chunk))
    wanted = set(plan.chunks())
    for index in out:
        wanted -= set(plan.shards[index].chunks()) - done
    return OutputStatus(
        uri=store.uri,
        plan=plan,
        complete=is_complete(store, plan),
        counts=counts,
        chunks_done=len(done & wanted),
        chunks=len(wanted),
        shards_published=len(out),
        reasons=tuple((step, reason, n) for (step, reason), n in reasons.most_common(MOST_REASONS)),
    )


def _reasons(store: Store, chunk: Chunk) -> list[tuple[str, str]]:
    with store.open(chunk.name) as file:
        errors = pq.read_table(file, columns=["_error"])["_error"].to_pylist()
    return [(error["step"], error["reason"]) for error in errors if error is not None]
