"""How far an output is, read from what is in it: the plan, the chunk files' footers, the dead letters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from headrace.pipelines.checkpoint import Counts, chunk_records, committed, counts_of, read_record
from headrace.pipelines.errors import UserError
from headrace.pipelines.plan import Plan, load_plan
from headrace.pipelines.publish import ERRORS, is_complete, published
from headrace.pipelines.storage import Store, open_store

MOST_REASONS = 10
"""Reasons of dead letters that a status lists."""


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """An output folder as it stands.

    Attributes:
        reasons: how often each (step, reason) stands in the published dead letters, the most frequent first.
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
    for record in chunk_records(store, done):
        counts += counts_of(record)
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
        reasons=_reasons(store),
    )


def _reasons(store: Store) -> tuple[tuple[str, str, int], ...]:
    seen: Counter[tuple[str, str]] = Counter()
    for entry in store.list(ERRORS):
        with store.open(entry.path) as file:
            if read_record(file) is None:
                continue
            file.seek(0)
            table = pq.read_table(file, columns=["_step", "_reason"])
        seen.update(zip(table["_step"].to_pylist(), table["_reason"].to_pylist(), strict=True))
    return tuple((step, reason, n) for (step, reason), n in seen.most_common(MOST_REASONS))
