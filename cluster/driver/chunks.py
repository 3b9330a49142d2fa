"""Running a run's chunks: records are counted, finished shards are published, hopeless runs stop early."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.cluster.driver.execution import Execution
from headrace.cluster.driver.publisher import Publisher
from headrace.cluster.state.chunks import Failed
from headrace.cluster.state.events import Listener, Observer
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.cluster.state.work import Work
from headrace.pipelines.output.checkpoint import Counts, chunk_record, chunk_records, counts_of
from headrace.pipelines.output.error_rate import EarlyStop
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.published import with_kept
from headrace.pipelines.spec.errors import ChunksFailed, UserError
from headrace.pipelines.storage.store import Store

STAYS = "Committed chunks are kept. Run the same command again for the rest."


def do_chunks(
    execution: Execution,
    entering: Sequence[Collection[Chunk]],
    publisher: Publisher,
    work: Work,
    result: RunResult,
    listener: Listener,
    observers: Observer,
    max_error_rate: float,
) -> None:
    """Let the workers process the chunks; ``result`` is updated with every record.

    Args:
        entering: the chunks to process, by the stage that they need next.

    Raises:
        UserError: a worker found something that the user must fix.
        ChunksFailed: some chunks failed; committed chunks are kept.
    """
    planned, before = work.rows_left, result.counts
    stop = EarlyStop(max_error_rate, result.counts.rows + planned, result.counts)
    if stop.due:
        result.status = "too many dead letters"
        return
    failed: list[Failed] = []

    def watch(totals: Totals) -> None:
        totals.planned = planned
        result.totals = totals
        if totals.engines or totals.rows:  # before that, engines start
            result.series.see(_point(totals))
        listener.progress(totals)
        observers.totals(totals)

    for record in execution.records(work.plan, entering, watch, work.origins):
        observers.chunk(record)
        if isinstance(record, Failed):
            failed.append(_unless_final(record))
        elif publisher.add(record.chunk):
            result.counts += record.counts
            # Most rows that failed before fail again: that says nothing about the others.
            asked = (0, 0) if record.chunk.retry else (record.asked, record.lost)
            stop.add(record.counts, *asked)
        if stop.due:
            break
    if stop.due:
        result.status = "too many dead letters"
    elif failed:
        raise ChunksFailed(
            f"{len(failed)} of {sum(map(len, entering))} chunks failed. The last reason: {failed[-1].reason}\n{STAYS}"
        )
    else:
        for chunk in publisher.unheard_of():
            result.counts += counts_of(chunk_record(publisher.store, chunk))
            publisher.add(chunk)
    _count_heard(result, before)
    result.series.see(_point(result.totals), last=True)


def _unless_final(record: Failed) -> Failed:
    """Return a failure that affects its chunk only; raise one that ends the run."""
    if record.scope == "user":
        raise UserError(record.reason)
    if record.scope == "run":
        raise ChunksFailed(f"{record.reason} {STAYS}")
    return record


def _count_heard(result: RunResult, before: Counts) -> None:
    """Take rows from the chunks' records: a worker that died may not have reported what it had just committed."""
    totals, now = result.totals, result.counts
    totals.rows, totals.dead = now.rows - before.rows, now.dead - before.dead
    totals.filtered = now.filtered - before.filtered


def _point(totals: Totals) -> dict[str, float]:
    usage = totals.usage
    return {
        "rows": totals.rows,
        "dead": totals.dead,
        "prompt": usage.prompt,
        "cached": usage.cached,
        "output": usage.output,
        "busy": totals.busy_seconds,
        "full": totals.full_seconds,
    }


def count_done(store: Store, work: Work) -> Counts:
    """Rows by outcome of everything done so far: from the parts, and from the chunks of shards without a part.

    A file that is gone from the input gets no new rows, so only its part counts.
    """
    total = sum(with_kept(store, work.plan, work.published).values(), Counts())
    rest = (shard for shard in work.plan.shards if shard.index not in work.published and not shard.gone)
    for record in chunk_records(store, work.done.chunks_of(rest)):
        total += counts_of(record)
    return total
