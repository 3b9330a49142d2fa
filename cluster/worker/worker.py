"""The worker: hosts an engine, takes chunks, commits them and returns a record of each.

It is a Ray Data actor, or in a run without Ray a process that the driver has started.

In a pipeline with several models, a worker belongs to one stage. It reads what the stage before has committed of a
chunk, and commits the chunk's answers so far, or in the last stage the chunk.

Rows of several chunks are in flight at once (Ray Data keeps a few tasks at each actor), so the engine is not idle
while the tail of a chunk drains. A failure that is not caused by a row is returned in the chunk's record, and the
driver reports it. Only an engine that has died or hangs ends the process, so that another is started and runs the
chunk again. Before that, the rows in flight are noted (``poison_rows``), so that a row that kills engines is found.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa

from headrace.cluster.engines.no_engine import NoEngine
from headrace.cluster.engines.registry import engines
from headrace.cluster.engines.starting import start_or_explain
from headrace.cluster.observability.metrics import WorkerMetrics
from headrace.cluster.observability.tracing import ChunkTimes
from headrace.cluster.state.board import board_at
from headrace.cluster.state.chunks import ChunkRecord, Committed, Descriptor, Failed
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE, ChunkRows, ChunkRunner, Hooks
from headrace.cluster.worker.priors import settle_priors
from headrace.cluster.worker.progress import Progress
from headrace.cluster.worker.shared_lock import SharedLock
from headrace.cluster.worker.starts import Starts
from headrace.cluster.worker.watchdog import Watchdog, Watched
from headrace.operators.base import ModelStep
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine, EngineDied
from headrace.pipelines.inference.requests import probe
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, RowResult
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import Rows
from headrace.pipelines.output.carried_answers import CarriedAnswers, copied, merged
from headrace.pipelines.output.checkpoint import chunk_record, commit_chunk, counts_of
from headrace.pipelines.output.names import notes_name
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.poison_rows import Attempt, Owner, most_poison_rows
from headrace.pipelines.output.rows import chunk_table, count, digests, earlier_results
from headrace.pipelines.output.stages import read_stage
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.opening import open_store

REPORT_SECONDS = 1.0
"""Seconds between a worker's reports."""

CONTROL_TRIES = 4
"""Most rows to try each time a row above suspicion is needed, until one is sent to the engine."""

NOTE_SECONDS = 60.0
"""Time for a worker to note why it ends."""


class Worker:
    """A worker; see the module. It is called with batches of chunk descriptors, as Ray Data does."""

    def __init__(self, assignment: Assignment, engine: Engine | None = None) -> None:
        """Start the assignment's engine, or take one that is already started with the same configuration."""
        if assignment.folder and assignment.folder not in sys.path:
            sys.path.insert(0, assignment.folder)
        self._assignment = assignment
        self._pipeline = Pipeline.model_validate(assignment.pipeline)
        self._graph = Graph.of(self._pipeline)
        self._store = open_store(assignment.output)
        self._reader = ChunkReader(assignment.columns)
        self._owner = Owner.me(assignment.run_id)
        self._lock = SharedLock()
        self._watchdog = Watchdog(assignment.chunk_seconds, self._hung)
        board = board_at(assignment.board)
        self._starts = Starts(assignment.run_id, board)
        started = time.monotonic()
        self._seeds = CarriedAnswers.of(self._store, self._pipeline, assignment.origins, assignment.known)
        self._models = frozenset(step.name for step in self._pipeline.steps if isinstance(step, ModelStep))
        self._here = frozenset(assignment.steps or (step.name for step in self._pipeline.steps))
        if not self._starts.begin():
            return  # the first call will say so
        self._engine: Engine = engine or _engine(assignment)
        self._chain = Chain(
            self._pipeline,
            self._engine,
            assignment.columns,
            assignment.layouts,
            assignment.priors,
            steps=assignment.steps if assignment.engine else self._here - self._models,
        )
        self._started: asyncio.Task[None] | None = None
        # Ray keeps this many calls here at a time, and each takes the chunks of its block a few at a time.
        self._turn = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._progress = Progress(
            assignment.run_id,
            board,
            self._chain,
            self._engine,
            engine_seconds=time.monotonic() - started,
            stage=assignment.stage,
            last=not assignment.commit.suffix,
            gpus=assignment.engine.gpus if assignment.engine else 0,
        )
        self._model = assignment.engine.model if assignment.engine else None
        self._provider = engines().named(assignment.engine.engine).telemetry_name if assignment.engine else ""
        self._metrics = WorkerMetrics(self._pipeline, self._model, last=not assignment.commit.suffix)

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, list[Any]]]:
        """Process the chunks of a batch; yield each descriptor with the chunk's record in it."""
        for text in batch["chunk"]:
            wanted = Descriptor.from_json(text)
            if not isinstance(wanted.record, Failed):  # in the stage before: the driver must hear of it
                wanted = replace(wanted, record=await self._record(wanted))
            yield {"chunk": [wanted.to_json()]}

    async def _record(self, wanted: Descriptor) -> ChunkRecord:
        """Process a chunk; a failure becomes the record."""
        if self._starts.hopeless:
            return Failed(wanted.chunk, self._starts.message, "run")
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        times = ChunkTimes(self._model, self._provider)
        record: ChunkRecord
        try:
            await asyncio.shield(self._started)
            async with self._turn:
                times.begin()
                record = await self._chunk(wanted.chunk, wanted.shard, times)
        except EngineDied as error:
            self._engine_died(error)
        except UserError as error:
            record = Failed(wanted.chunk, str(error), "user")
            times.failed(error)
        except OSError as error:
            record = Failed(wanted.chunk, f"{type(error).__name__}: {error}")
            times.failed(error)
        self._metrics.chunk(record)
        if not self._assignment.traced:
            return record
        before = wanted.record.spans if wanted.record is not None else ()
        return replace(record, spans=(*before, times.told))

    async def _start(self) -> None:
        self._progress.publish()
        await settle_priors(
            self._chain, self._pipeline, self._assignment, self._store, self._reader, deaths=self._starts.deaths
        )
        await self._chain.start()
        self._starts.succeeded()
        self._reporting = asyncio.ensure_future(self._report())

    async def _report(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(REPORT_SECONDS)

    def _tell(self) -> None:
        self._metrics.look(self._progress.publish(), self._chain.window, len(self._watchdog.attempts))

    async def _chunk(self, chunk: Chunk, shard: Shard, times: ChunkTimes) -> ChunkRecord:
        """Process a chunk, alone on the engine if earlier attempts have died."""
        if done := await asyncio.to_thread(self._committed, chunk):
            # Whoever did it may have died before its notes were gone.
            await asyncio.to_thread(self._store.delete, notes_name(self._assignment.commit.name(chunk)))
            return done
        attempt = await asyncio.to_thread(Attempt.of, self._store, self._assignment.commit, chunk, self._owner)
        if why := attempt.notes.hopeless(most_poison_rows(chunk, self._pipeline.max_error_rate)):
            await asyncio.to_thread(attempt.forget)
            where = f"rows {chunk.first} to {chunk.last - 1} of {chunk.path!r}"
            return Failed(chunk, f"At {where} {why}.", "run")
        async with self._lock.exclusive() if attempt.notes.deaths else self._lock.shared():
            with self._watchdog.over(attempt) as watched:
                try:
                    record = await self._unless_done(chunk, shard, watched, times)
                except (Exception, asyncio.CancelledError):
                    await asyncio.to_thread(attempt.end)
                    raise
        await asyncio.to_thread(attempt.forget)
        return record

    async def _unless_done(self, chunk: Chunk, shard: Shard, watched: Watched, times: ChunkTimes) -> Committed:
        """Try a chunk. Another run may commit it meanwhile, and then removes what its stages have left."""
        try:
            return await self._try(chunk, shard, watched, times)
        except FileNotFoundError:
            if done := await asyncio.to_thread(self._committed, chunk):
                return done
            raise

    async def _try(self, chunk: Chunk, shard: Shard, watched: Watched, times: ChunkTimes) -> Committed:
        """Read, run, commit."""
        started = time.monotonic()
        attempt = watched.attempt
        troubled = attempt.notes.deaths > 0
        await asyncio.to_thread(attempt.begin, "reading" if troubled else "chunk", range(chunk.first, chunk.last))
        key, last = self._assignment.key, not self._assignment.commit.suffix
        columns = list(dict.fromkeys((*self._graph.input_columns, *self._assignment.keep, *key)))
        with attempt.storage():
            earlier, before = await asyncio.to_thread(self._earlier, chunk)
            rows = await asyncio.to_thread(self._read, attempt, shard, chunk, columns)
        self._progress.read_seconds += time.monotonic() - started
        times.mark("read")
        watched.sign()
        runner = self._runner(chunk, rows, earlier, watched)
        if troubled and self._assignment.engine is not None:
            await self._apart(runner, attempt)
        else:
            if troubled:  # nothing is asked here, so no row is to blame
                await asyncio.to_thread(attempt.begin, "rest", runner.left())
            await runner.ask()
        results = runner.results
        keep = rows.table.select(list(self._assignment.keep))
        counts = count(results)
        usage = Usage()
        for result in results:
            usage.merge(result.usage)
        keyed = digests(rows.table, key, self._assignment.reads) if key and last else None
        answered = time.monotonic()
        times.mark("ask")
        watched.sign()
        asked_here = {step: dict(counts) for step, counts in usage.steps.items()}
        seconds = round(answered - started, 3)
        if before:
            usage.merge(Usage(**{name: value for name, value in before.items() if name != "seconds"}))
            seconds += before["seconds"]
        stats = {**asdict(usage), "seconds": seconds}
        output = chunk_table(self._assignment.commit.schema, chunk, results, keep, keyed)
        with attempt.storage():
            ours = await asyncio.to_thread(
                commit_chunk, self._store, self._assignment.commit, chunk, output, counts, stats=stats
            )
        times.mark("commit")
        times.done(asdict(counts), asked_here)
        self._progress.commit_seconds += time.monotonic() - answered
        self._progress.committed += chunk.rows
        if ours:
            self._metrics.committed(results, counts, time.monotonic() - started)
        # The driver reads the totals once more when it has the last record.
        self._tell()
        fresh = [result for result in results if not result.usage.reused]
        asked = sum(result.has_document for result in fresh)
        lost = sum(result.dead is not None and result.has_document for result in fresh)
        record = Committed(chunk, counts, stats, ours, asked, lost)
        # What was made of the rows here is dropped where somebody else's file is there.
        theirs = None if ours else await asyncio.to_thread(self._committed, chunk)
        return replace(record, counts=theirs.counts, stats=theirs.stats) if theirs else record

    def _read(self, attempt: Attempt, shard: Shard, chunk: Chunk, columns: Sequence[str]) -> Rows:
        """A chunk's rows; the bad ones cannot be used. Called in a thread."""
        if attempt.notes.unreadable:
            said = (
                f"rows {chunk.first} to {chunk.last - 1} of the input file {chunk.path!r} cannot be read: the process "
                f"died at each attempt"
            )
            schema = pa.schema([self._assignment.columns.field(name) for name in columns])
            nulls = {field.name: pa.nulls(chunk.rows, field.type) for field in schema}
            return Rows(pa.table(nulls, schema=schema), dict.fromkeys(range(chunk.rows), said))
        used = (*self._graph.input_columns, *self._assignment.key)
        return self._reader.read(shard, chunk.first, chunk.last, columns, used)

    def _runner(self, chunk: Chunk, rows: Rows, earlier: Sequence[RowResult], watched: Watched) -> ChunkRunner:
        def done(result: RowResult) -> None:
            watched.sign()
            self._progress.add(result)

        return ChunkRunner(
            self._chain,
            ChunkRows(chunk, rows.table.select(list(self._graph.input_columns)), rows.bad, earlier),
            Hooks(watched.attempt.in_flight, watched.sign, done, self._engine_died),
            here=self._here,
            unasked=self._models & self._here if self._assignment.engine is None else frozenset(),
        )

    async def _apart(self, runner: ChunkRunner, attempt: Attempt) -> None:
        """Run a chunk's rows in groups, suspects first, so that it is known which were at the engine if it dies."""
        for row in attempt.notes.poison_rows:
            runner.give_up(row.row, DeadLetter(DOCUMENT, ErrorClass.POISON_ROW, row.reason, "", row.deaths))
        if groups := attempt.notes.groups():
            await self._control(runner, attempt, {row for group in groups for row in group})
            for group in groups:
                await asyncio.to_thread(attempt.begin, "group", group)
                await runner.ask(group)
            attempt.cleared()
        if left := runner.left():
            await asyncio.to_thread(attempt.begin, "rest", left)
            await runner.ask(left)

    async def _control(self, runner: ChunkRunner, attempt: Attempt, suspects: set[int]) -> None:
        """Check that the engine answers at all, with a row above suspicion; if it dies, another one the next time."""
        if self._assignment.engine is None:
            return  # nobody is asked anything: what has died was the process
        given_up = {given.row for given in attempt.notes.poison_rows}
        candidates = [row for row in runner.left() if row not in suspects and row not in given_up]
        for row in attempt.notes.controls_among(candidates, 0 if attempt.notes.last_control else CONTROL_TRIES):
            await asyncio.to_thread(attempt.begin, "control", [row])
            await runner.ask([row])
            if runner.was_asked(row):
                return
        await asyncio.to_thread(attempt.begin, "control", [])
        try:
            await probe(self._engine)
        except EngineDied as error:
            self._engine_died(error)

    def _engine_died(self, error: EngineDied) -> NoReturn:
        self._leave(f"the engine died: {error}", self._watchdog.attempts)

    def _hung(self, attempts: list[Attempt]) -> None:
        """The chunks hang (called in the watchdog's thread)."""
        self._leave(f"no row has finished for {self._assignment.chunk_seconds:g} s", attempts, hung=True)

    def _leave(self, reason: str, blamed: Sequence[Attempt], *, hung: bool = False) -> NoReturn:
        """Note what is known and end this process, because nothing in it can be trusted; another is started."""
        print(f"headrace worker: {reason}", file=sys.stderr, flush=True)
        pool = ThreadPoolExecutor(thread_name_prefix="notes")
        attempts = self._watchdog.attempts
        # What cannot be noted costs a try more.
        wait(
            [
                pool.submit(partial(attempt.died, hung=hung) if attempt in blamed else attempt.end)
                for attempt in attempts
            ],
            timeout=NOTE_SECONDS,
        )
        end()

    def _committed(self, chunk: Chunk) -> Committed | None:
        """The record of a chunk that is committed already, such as by a worker that died before it could report it.

        A stage has nothing to do either if the chunk's own file exists: the stage's file may have been removed since.
        """
        for name in dict.fromkeys((self._assignment.commit.name(chunk), chunk.name)):
            if self._store.exists(name):
                with suppress(FileNotFoundError):
                    record = chunk_record(self._store, chunk, name)
                    return Committed(chunk, counts_of(record), record["stats"], ours=False)
        return None

    def _earlier(self, chunk: Chunk) -> tuple[list[RowResult], Mapping[str, Any]]:
        """What is known of the rows, and the usage for it so far.

        It comes from the stage before, and from the chunk's base (see ``carried_answers``).
        """
        results, stats = [RowResult(row, "answered") for row in range(chunk.first, chunk.last)], {}
        if self._assignment.before is not None:
            table, record = read_stage(self._store, self._assignment.before, chunk)
            results, stats = earlier_results(table, chunk), record["stats"]
        seeds = self._seeds.read(chunk)
        results = merged(results, seeds)
        if not self._assignment.commit.suffix:  # rows are counted once, after the last stage
            for result in results:
                result.usage.reused = int(copied(seeds.get(result.row), self._models))
        return results, stats


def _engine(assignment: Assignment) -> Engine:
    return start_or_explain(assignment.engine) if assignment.engine else NoEngine()


def end() -> NoReturn:
    """End this process and those that it has started at once, because an engine that hangs would outlive it."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)
