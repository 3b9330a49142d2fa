"""The worker: the Ray Data actor that hosts an engine, takes chunks, commits them and returns a record of each.

Where a pipeline has several models, a worker belongs to one stage: it reads what the stage before it has committed of
a chunk, and commits the chunk's answers so far, or in the last stage the chunk.

Rows of several chunks are in flight at once (Ray Data keeps a few tasks at each actor), so the engine is not idle
while the tail of a chunk drains. A failure that is not a row's own is returned in the chunk's record, for the driver
to say; only an engine that is dead, or hangs, ends the process, so that Ray starts another and runs the chunk again.
What was with the engine then is noted first (``pipelines.trials``), so that a row which kills engines is found.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa

from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.no_engine import NoEngine
from headrace.cluster.engines.registry import engines
from headrace.cluster.engines.starting import start_or_explain
from headrace.cluster.observability.metrics import WorkerMetrics
from headrace.cluster.observability.tracing import ChunkTimes
from headrace.cluster.worker.asking import Asking
from headrace.cluster.worker.turns import Turns
from headrace.cluster.worker.watchdog import Watchdog, Watched
from headrace.operators.base import Layout, ModelStep
from headrace.pipelines.forecast.forecast import EngineFacts
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine, EngineDied
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.inference.requests import probe
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, RowResult
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.input.corpus import ChunkReader, InputChanged, InputUnreadable, Shard
from headrace.pipelines.input.rows import sound
from headrace.pipelines.output.checkpoint import chunk_record, commit_chunk
from headrace.pipelines.output.plan import Chunk, CommitInfo
from headrace.pipelines.output.rows import chunk_table, count, digests, earlier_results
from headrace.pipelines.output.seeds import Origin, Seeds, copied, merged
from headrace.pipelines.output.stages import read_stage
from headrace.pipelines.output.trials import Owner, Trial, most_killers, trial_name
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.opening import open_store

REPORT_SECONDS = 1.0
"""How often a worker says how far it is."""

CHUNKS_AT_A_WORKER = 4
"""Chunks in flight at one worker, so that the tail of one is filled by the next."""

CONTROL_TRIES = 4
"""Rows that are looked at for one that the engine is asked about, each time a row above suspicion is needed."""

NOTE_SECONDS = 60.0
"""Time that a worker which leaves has to say why."""

MOST_STARTS = 3
"""Starts of an engine in a row that may come to nothing before the run is given up."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all workers of a stage are told: plain data, the same for each.

    Attributes:
        columns: the input's columns, with the types to read them as.
        keep: the columns that this stage's file carries along.
        stage: its number.
        steps: the names of the steps that run here; None for all of them.
        before: what the stage before has committed; None in the first stage.
        chunk_seconds: time in which a row must come to its end.
        engine: None where nothing is to be asked, because all answers of this stage's steps are there.
        origins: what of each base of the chunks stands.
        key: with ``reads`` what the digests of rows are made of; none if there are none.
        traced: whether a chunk's record is to say what was done when.
    """

    run_id: str
    pipeline: Mapping[str, Any]
    folder: str | None
    engine: EngineConfig | None
    output: str
    commit: CommitInfo
    layouts: Mapping[str, Layout]
    priors: Priors
    columns: pa.Schema
    keep: tuple[str, ...]
    stage: int = 1
    steps: tuple[str, ...] | None = None
    before: CommitInfo | None = None
    chunk_seconds: float = 1800.0
    origins: Mapping[int, Origin] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    traced: bool = False


class Worker:
    """See the module. Constructed by Ray Data in an actor; called with one chunk descriptor at a time."""

    def __init__(self, assignment: Assignment) -> None:
        if assignment.folder and assignment.folder not in sys.path:
            sys.path.insert(0, assignment.folder)
        self._assignment = assignment
        self._pipeline = Pipeline.model_validate(assignment.pipeline)
        self._graph = Graph.of(self._pipeline)
        self._store = open_store(assignment.output)
        self._reader = ChunkReader(assignment.columns)
        self._owner = Owner.me(assignment.run_id)
        self._turns = Turns()
        self._watchdog = Watchdog(assignment.chunk_seconds, self._hung)
        self._starts = Starts(assignment.run_id)
        started = time.monotonic()
        self._seeds = Seeds.of(self._store, self._pipeline, assignment.origins)
        self._models = frozenset(step.name for step in self._pipeline.steps if isinstance(step, ModelStep))
        self._here = frozenset(assignment.steps or (step.name for step in self._pipeline.steps))
        if not self._starts.begin():
            return  # the first call will say so
        self._engine: Engine = start_or_explain(assignment.engine) if assignment.engine else NoEngine()
        self._chain = Chain(
            self._pipeline,
            self._engine,
            assignment.columns,
            assignment.layouts,
            assignment.priors,
            steps=assignment.steps if assignment.engine else self._here - self._models,
        )
        self._started: asyncio.Task[None] | None = None
        # Ray keeps so many calls here at a time, and each takes the chunks of its block some at a time.
        self._turn = asyncio.Semaphore(CHUNKS_AT_A_WORKER)
        self._progress = Progress(
            assignment.run_id,
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
        """Work through the chunks of a batch; yields each descriptor with the chunk's record in it."""
        for descriptor in batch["chunk"]:
            wanted = json.loads(descriptor)
            chunk = Chunk(**wanted["chunk"])
            if "failed" in wanted:  # in the stage before: the driver is to hear of it
                yield {"chunk": [descriptor]}
                continue
            if self._starts.hopeless:
                yield {"chunk": [json.dumps({**wanted, "failed": self._starts.message, "users": False, "stop": True})]}
                continue
            if self._started is None:
                self._started = asyncio.ensure_future(self._start())
            record: dict[str, Any] = {**wanted}
            times = ChunkTimes(self._model, self._provider)
            try:
                await asyncio.shield(self._started)
                async with self._turn:
                    times.begin()
                    record |= await self._chunk(chunk, Shard(**wanted["shard"]), times)
            except EngineDied as error:
                self._engine_died(error)
            except (UserError, InputChanged) as error:
                record |= {"failed": str(error), "users": True}
                times.failed(error)
            except OSError as error:
                record |= {"failed": f"{type(error).__name__}: {error}", "users": False}
                times.failed(error)
            self._metrics.chunk("failed" if "failed" in record else "committed" if record["ours"] else "lost")
            if self._assignment.traced:
                record["spans"] = [*wanted.get("spans", ()), times.told]
            yield {"chunk": [json.dumps(record)]}

    async def _start(self) -> None:
        self._progress.publish()
        await self._chain.start()
        self._starts.succeeded()
        self._reporting = asyncio.ensure_future(self._report())

    async def _report(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(REPORT_SECONDS)

    def _tell(self) -> None:
        self._progress.publish()
        self._metrics.look(self._progress, self._chain, len(self._watchdog.trials))

    async def _chunk(self, chunk: Chunk, shard: Shard, times: ChunkTimes) -> dict[str, Any]:
        """Do a chunk, with nothing else on the engine if earlier tries have died."""
        if done := await asyncio.to_thread(self._committed, chunk):
            # Whoever did it may have died before its notes were gone.
            await asyncio.to_thread(self._store.delete, trial_name(self._assignment.commit, chunk))
            return done
        trial = await asyncio.to_thread(Trial.of, self._store, self._assignment.commit, chunk, self._owner)
        if why := trial.notes.hopeless(most_killers(chunk, self._pipeline.max_error_rate)):
            await asyncio.to_thread(trial.forget)
            where = f"rows {chunk.first} to {chunk.last - 1} of {chunk.path!r}"
            return {"failed": f"At {where} {why}.", "users": False, "stop": True}
        async with self._turns.alone() if trial.notes.deaths else self._turns.together():
            with self._watchdog.over(trial) as watched:
                try:
                    record = await self._unless_done(chunk, shard, watched, times)
                except (Exception, asyncio.CancelledError):
                    await asyncio.to_thread(trial.end)
                    raise
        await asyncio.to_thread(trial.forget)
        return record

    async def _unless_done(self, chunk: Chunk, shard: Shard, watched: Watched, times: ChunkTimes) -> dict[str, Any]:
        """Try a chunk. Another run that commits it meanwhile removes what its stages have left."""
        try:
            return await self._try(chunk, shard, watched, times)
        except FileNotFoundError:
            if done := await asyncio.to_thread(self._committed, chunk):
                return done
            raise

    async def _try(self, chunk: Chunk, shard: Shard, watched: Watched, times: ChunkTimes) -> dict[str, Any]:
        """Read, ask, commit."""
        started = time.monotonic()
        trial = watched.trial
        troubled = trial.notes.deaths > 0
        await asyncio.to_thread(trial.begin, "reading" if troubled else "chunk", range(chunk.first, chunk.last))
        key, last = self._assignment.key, not self._assignment.commit.suffix
        columns = list(dict.fromkeys((*self._graph.input_columns, *self._assignment.keep, *key)))
        with trial.storage():
            earlier, before = await asyncio.to_thread(self._earlier, chunk)
            table, bad = await asyncio.to_thread(self._read, trial, shard, chunk, columns)
        self._progress.read_seconds += time.monotonic() - started
        times.mark("read")
        watched.sign()
        asking = self._asking(chunk, table, bad, earlier, watched)
        if troubled and self._assignment.engine is not None:
            await self._apart(asking, trial)
        else:
            if troubled:  # nothing is asked here, so no row is to blame
                await asyncio.to_thread(trial.begin, "rest", asking.left())
            await asking.ask()
        results = asking.results
        keep = table.select(list(self._assignment.keep))
        counts = count(results)
        usage = Usage()
        for result in results:
            usage.merge(result.usage)
        rows = digests(table, key, self._assignment.reads) if key and last else None
        answered = time.monotonic()
        times.mark("ask")
        watched.sign()
        asked_here = {step: dict(counts) for step, counts in usage.steps.items()}
        seconds = round(answered - started, 3)
        if before:
            usage.merge(Usage(**{name: value for name, value in before.items() if name != "seconds"}))
            seconds += before["seconds"]
        stats = {**asdict(usage), "seconds": seconds}
        output = chunk_table(self._assignment.commit.schema, chunk, results, keep, rows)
        with trial.storage():
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
        record = {"counts": asdict(counts), "stats": stats, "ours": ours, "asked": asked, "lost": lost}
        # What was made of the rows here is dropped where somebody else's file is there.
        return record if ours else record | (await asyncio.to_thread(self._committed, chunk) or {})

    def _read(
        self, trial: Trial, shard: Shard, chunk: Chunk, columns: Sequence[str]
    ) -> tuple[pa.Table, dict[int, str]]:
        """A chunk's rows, and why some of them (counted from its first) cannot be asked. Called in a thread."""
        if trial.notes.unreadable:
            said = (
                f"rows {chunk.first} to {chunk.last - 1} of the input file {chunk.path!r} cannot be read: the process "
                f"died of it each time"
            )
            schema = pa.schema([self._assignment.columns.field(name) for name in columns])
            nulls = {field.name: pa.nulls(chunk.rows, field.type) for field in schema}
            return pa.table(nulls, schema=schema), dict.fromkeys(range(chunk.rows), said)
        lost: dict[int, str] = {}
        try:
            table = self._reader.read(shard, chunk.first, chunk.last, columns)
        except InputUnreadable:
            table, lost = self._reader.salvage(shard, chunk.first, chunk.last, columns)
        table, bad = sound(table, (*self._graph.input_columns, *self._assignment.key))
        return table, bad | lost

    def _asking(
        self, chunk: Chunk, table: pa.Table, bad: Mapping[int, str], earlier: Sequence[RowResult], watched: Watched
    ) -> Asking:
        def done(result: RowResult) -> None:
            watched.sign()
            self._progress.add(result)

        return Asking(
            self._chain,
            chunk,
            table.select(list(self._graph.input_columns)),
            bad,
            earlier,
            here=self._here,
            unasked=self._models & self._here if self._assignment.engine is None else frozenset(),
            in_flight=watched.trial.in_flight,
            first=watched.sign,
            done=done,
            died=self._engine_died,
        )

    async def _apart(self, asking: Asking, trial: Trial) -> None:
        """Ask a chunk's rows so that it is known which of them were with the engine if it dies: suspects first."""
        for killer in trial.notes.killers:
            asking.give_up(killer.row, DeadLetter(DOCUMENT, killer.reason, "", killer.deaths))
        if groups := trial.notes.groups():
            await self._control(asking, trial, {row for group in groups for row in group})
            for group in groups:
                await asyncio.to_thread(trial.begin, "group", group)
                await asking.ask(group)
            trial.cleared()
        if left := asking.left():
            await asyncio.to_thread(trial.begin, "rest", left)
            await asking.ask(left)

    async def _control(self, asking: Asking, trial: Trial, suspects: set[int]) -> None:
        """See that the engine answers at all: about a row above suspicion, another one at each try if it dies."""
        if self._assignment.engine is None:
            return  # nobody is asked anything: what has died was the process
        given_up = {killer.row for killer in trial.notes.killers}
        candidates = [row for row in asking.left() if row not in suspects and row not in given_up]
        for row in trial.notes.controls_among(candidates, 0 if trial.notes.last_control else CONTROL_TRIES):
            await asyncio.to_thread(trial.begin, "control", [row])
            await asking.ask([row])
            if asking.was_asked(row):
                return
        await asyncio.to_thread(trial.begin, "control", [])
        try:
            await probe(self._engine)
        except EngineDied as error:
            self._engine_died(error)

    def _engine_died(self, error: EngineDied) -> NoReturn:
        self._leave(f"the engine died: {error}", self._watchdog.trials)

    def _hung(self, trials: list[Trial]) -> None:
        """Nothing goes on (in the watchdog's thread)."""
        self._leave(f"nothing has come to its end for {self._assignment.chunk_seconds:g} s", trials, hung=True)

    def _leave(self, reason: str, blamed: Sequence[Trial], *, hung: bool = False) -> NoReturn:
        """End this process, for nothing in it can be trusted any more; Ray starts another. What is known is noted."""
        print(f"headrace worker: {reason}", file=sys.stderr, flush=True)
        pool = ThreadPoolExecutor(thread_name_prefix="notes")
        trials = self._watchdog.trials
        # What cannot be noted costs a try more.
        wait(
            [pool.submit(partial(trial.died, hung=hung) if trial in blamed else trial.end) for trial in trials],
            timeout=NOTE_SECONDS,
        )
        end()

    def _committed(self, chunk: Chunk) -> dict[str, Any] | None:
        """What to say of a chunk that somebody has committed already: a worker that died with its report unsaid.

        A stage has nothing to do either where the chunk's own file is there: its own may have been removed since.
        """
        for name in dict.fromkeys((self._assignment.commit.name(chunk), chunk.name)):
            if self._store.exists(name):
                with suppress(FileNotFoundError):
                    record = chunk_record(self._store, chunk, name)
                    return {"counts": record["counts"], "stats": record["stats"], "ours": False}
        return None

    def _earlier(self, chunk: Chunk) -> tuple[list[RowResult], Mapping[str, Any]]:
        """What is known of the rows, and what that has cost so far.

        That is what the stage before has left of them, and what their base has (see ``seeds``).
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


class Starts:
    """How often this actor's engine was started, and nothing came of it: kept where its next process reads it.

    A start is through when the labels' priors are there: an engine that dies of the first thing it is asked has not
    started.
    """

    def __init__(self, run_id: str) -> None:
        actor = actor_id()
        # Without Ray (a test) there is no next process.
        self._key = f"headrace-starts/{run_id}/{actor}".encode() if actor else b""
        self.hopeless = False

    def begin(self) -> bool:
        """The engine is about to be started; False where that makes no sense any more."""
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        if not self._key:
            return True
        vain = int(_internal_kv_get(self._key) or 0)
        self.hopeless = vain >= MOST_STARTS
        _internal_kv_put(self._key, str(vain + 1).encode(), overwrite=True)
        return not self.hopeless

    def succeeded(self) -> None:
        """The engine answers."""
        from ray.experimental.internal_kv import _internal_kv_del

        if self._key:
            _internal_kv_del(self._key)

    @property
    def message(self) -> str:
        """What to say when there is no hope."""
        return f"The engine has died {MOST_STARTS} times in a row before it answered anything."


class Progress:
    """A worker's running totals, put where the driver can read them (the cluster's key-value store)."""

    def __init__(
        self,
        run_id: str,
        chain: Chain,
        engine: Engine,
        engine_seconds: float,
        *,
        stage: int = 1,
        last: bool = True,
        gpus: int = 0,
    ) -> None:
        self._chain = chain
        self._gpus = gpus
        self.engine = asdict(EngineFacts.of(engine))
        self.stage = stage
        self.last = last
        self._key = f"headrace/{run_id}/{os.getpid()}-{time.time_ns()}".encode()
        self._actor = actor_id()
        self.engine_seconds = engine_seconds
        self.read_seconds = 0.0
        self.commit_seconds = 0.0
        self.rows = 0
        self.documents = 0
        self.asked = 0
        self.committed = 0
        self.dead = 0
        self.filtered = 0
        self.usage = Usage()

    def add(self, result: RowResult) -> None:
        self.rows += 1
        self.documents += result.has_document
        self.asked += result.usage.requests > 0
        self.dead += result.outcome == "dead"
        self.filtered += result.outcome == "filtered"
        self.usage.merge(result.usage)

    @property
    def all_usage(self) -> Usage:
        """What was asked, for the rows and besides."""
        usage = Usage()
        usage.merge(self.usage)
        usage.merge(self._chain.usage)
        return usage

    def publish(self) -> None:
        """Put the totals; they are for looking at, so nothing depends on their being current."""
        from ray.experimental.internal_kv import _internal_kv_put

        totals = {
            "time": time.time(),
            "least": self._chain.least,
            "busy_seconds": self._chain.window.busy_seconds,
            "full_seconds": self._chain.window.full_seconds,
            "gpu_seconds": self._chain.window.busy_seconds * self._gpus,
            "engine": self.engine,
            "actor": self._actor,
            "documents": self.documents,
            "asked": self.asked,
            "stage": self.stage,
            "last": self.last,
            "rows": self.rows,
            "committed": self.committed,
            "dead": self.dead,
            "filtered": self.filtered,
            "engine_seconds": self.engine_seconds,
            "read_seconds": self.read_seconds,
            "commit_seconds": self.commit_seconds,
            "usage": asdict(self.all_usage),
        }
        _internal_kv_put(self._key, json.dumps(totals).encode(), overwrite=True)


def actor_id() -> str | None:
    """The actor's that runs in this process: the same for all processes that Ray starts for it. None without Ray."""
    import ray

    return str(ray.get_runtime_context().get_actor_id()) if ray.is_initialized() else None


def end() -> NoReturn:
    """End this process at once, and those that it has started: an engine that hangs would outlive it."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


__all__ = ["Assignment", "Worker"]
