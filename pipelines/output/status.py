"""The progress of an output, read from its content: the plan, the chunk files' footers, the dead letters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from headrace.pipelines.output.checkpoint import Counts, chunk_records, committed, counts_of
from headrace.pipelines.output.completion import is_complete
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.names import FOLDER
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.published import published, with_kept
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store

MOST_REASONS = 10
"""Reasons of dead letters that a status lists."""


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """The state of an output folder.

    Attributes:
        counts: of all finished rows, including those of files that are gone and keep their part.
        rows: finished and remaining.
        shards_published: of the files that still exist.
        reasons: how often each (step, reason) occurs in the committed dead letters, the most frequent first.
    """

    uri: str
    plan: Plan
    complete: bool
    counts: Counts
    rows: int
    chunks_done: int
    chunks: int
    shards_published: int
    reasons: tuple[tuple[str, str, int], ...]


def read_status(output: str) -> OutputStatus:
    """Read an output folder.

    Raises:
        UserError: it is not an output of headrace.
    """
    store = reached_store(output)
    plan = load_plan(store)
    if plan is None and set(store.names()) <= {f"{FOLDER}/"}:
        raise UserError(
            f"Nothing was written to {output!r} yet: no run into it has saved its plan. If one has, check the path."
        )
    if plan is None:
        raise UserError(
            f"{output!r} is not an output of headrace: it contains no plan. Name the output folder of a run."
        )
    out = published(store, plan)
    done = committed(store, plan, out.keys())
    seen = with_kept(store, plan, out)
    counts = sum(seen.values(), Counts())
    reasons: Counter[tuple[str, str]] = Counter()
    for index, there in seen.items():
        if there.dead:
            reasons.update(_reasons(store, plan.shards[index].letters_name))
    rest = [shard for shard in plan.shards if shard.index not in out and not shard.gone]
    for chunk, record in zip(done.chunks_of(rest), chunk_records(store, done.chunks_of(rest)), strict=True):
        counts += counts_of(record)
        if counts_of(record).dead:
            reasons.update(_chunk_reasons(store, chunk))
    chunks = sum(shard.chunk_count for shard in plan.shards if not shard.gone)
    return OutputStatus(
        uri=store.uri,
        plan=plan,
        complete=is_complete(store, plan, out),
        counts=counts,
        rows=counts.rows + sum(chunk.rows for chunk in done.left),
        chunks_done=chunks - len(done.left),
        chunks=chunks,
        shards_published=sum(not plan.shards[index].gone for index in out),
        reasons=tuple((step, reason, n) for (step, reason), n in reasons.most_common(MOST_REASONS)),
    )


def _reasons(store: Store, errors: str) -> list[tuple[str, str]]:
    with opened(store, errors) as file:
        letters = file.read(columns=["_step", "_reason"], use_threads=False).to_pylist()
    return [(letter["_step"], letter["_reason"]) for letter in letters]


def _chunk_reasons(store: Store, chunk: Chunk) -> list[tuple[str, str]]:
    with opened(store, chunk.name) as file:
        errors = file.read(columns=["_error"], use_threads=False)["_error"].to_pylist()
    return [(error["step"], error["reason"]) for error in errors if error is not None]
