"""The worker: the Ray Data actor that hosts an engine, takes chunks, commits them and returns a record of each.

Where a pipeline has several models, a worker belongs to one stage: it reads what the stage before it has committed of
a chunk, and commits the chunk's answers so far, or in the last stage the chunk.

Rows of several chunks are in flight at once (Ray Data keeps a few tasks at each actor), so the engine is not idle
while the tail of a chunk drains. A failure that is not a row's own is returned in the chunk's record, for the driver
to say; only a dead engine ends the process, so that Ray starts another and runs the chunk again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.cluster.engine_config import EngineConfig
from headrace.cluster.engines import start_engine
from headrace.operators.base import Layout
from headrace.pipelines.chain import DOCUMENT, Chain, DeadLetter, RowResult
from headrace.pipelines.checkpoint import chunk_record, commit_chunk
from headrace.pipelines.corpus import ChunkReader, InputChanged, InputUnreadable, Shard
from headrace.pipelines.engine import Engine, EngineDied
from headrace.pipelines.errors import UserError
from headrace.pipelines.forecast import EngineFacts
from headrace.pipelines.graph import Graph
from headrace.pipelines.layouts import Priors
from headrace.pipelines.plan import Chunk, CommitInfo
from headrace.pipelines.rows import as_rows, chunk_table, count, earlier_results, sound
from headrace.pipelines.spec import Pipeline
from headrace.pipelines.stages import read_stage
from headrace.pipelines.storage import open_store
from headrace.pipelines.usage import Usage

REPORT_SECONDS = 1.0
"""How often a worker says how far it is."""

ROWS_PER_SLICE = 256
"""Rows turned into Python objects at a time."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all workers of a stage are told: plain data, the same for each.

    Attributes:
        columns: the input's columns, with the types to read them as.
        keep: the columns that this stage's file carries along.
        steps: the names of the steps that run here; None for all of them.
        before: what the stage before has committed; None in the first stage.
    """

    run_id: str
    pipeline: Mapping[str, Any]
    folder: str | None
    engine: EngineConfig
    output: str
    commit: CommitInfo
    layouts: Mapping[str, Layout]
    priors: Priors
    columns: pa.Schema
    keep: tuple[str, ...]
    steps: tuple[str, ...] | None = None
    before: CommitInfo | None = None


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
        started = time.monotonic()
        self._engine = start_or_explain(assignment.engine)
        self._chain = Chain(
            self._pipeline,
            self._engine,
            assignment.columns,
            assignment.layouts,
            assignment.priors,
            steps=assignment.steps,
        )
        self._started: asyncio.Task[None] | None = None
        self._progress = Progress(
            assignment.run_id,
            self._chain,
            self._engine,
            engine_seconds=time.monotonic() - started,
            last=not assignment.commit.suffix,
        )

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, list[Any]]]:
        """Work through the chunks of a batch; yields each descriptor with the chunk's record in it."""
        for descriptor in batch["chunk"]:
            wanted = json.loads(descriptor)
            chunk = Chunk(**wanted["chunk"])
            if "failed" in wanted:  # in the stage before: the driver is to hear of it
                yield {"chunk": [descriptor]}
                continue
            if self._started is None:
                self._started = asyncio.ensure_future(self._start())
            record: dict[str, Any] = {**wanted}
            try:
                await asyncio.shield(self._started)
                record |= await self._chunk(chunk, Shard(**wanted["shard"]))
            except EngineDied as error:
                leave(f"the engine died: {error}")
            except (UserError, InputChanged) as error:
                record |= {"failed": str(error), "users": True}
            except OSError as error:
                record |= {"failed": f"{type(error).__name__}: {error}", "users": False}
            yield {"chunk": [json.dumps(record)]}

    async def _start(self) -> None:
        self._progress.publish()
        await self._chain.start()
        self._reporting = asyncio.ensure_future(self._report())

    async def _report(self) -> None:
        while True:
            self._progress.publish()
            await asyncio.sleep(REPORT_SECONDS)

    async def _chunk(self, chunk: Chunk, shard: Shard) -> dict[str, Any]:
        """Read, ask, commit."""
        started = time.monotonic()
        if done := await asyncio.to_thread(self._committed, chunk):
            return {"counts": done["counts"], "stats": done["stats"], "ours": False}
        earlier, before = await asyncio.to_thread(self._earlier, chunk)
        columns = list(dict.fromkeys((*self._graph.input_columns, *self._assignment.keep)))
        try:
            table = await asyncio.to_thread(self._reader.read, shard, chunk.first, chunk.last, columns)
        except InputUnreadable as problem:
            letter = DeadLetter(DOCUMENT, str(problem))
            results = [_unless_settled(result, letter) for result in earlier]
            schema = pa.schema([self._assignment.columns.field(name) for name in columns])
            table = pa.Table.from_pydict({name: pa.nulls(chunk.rows, schema.field(name).type) for name in columns})
        else:
            read = time.monotonic()
            table, bad = sound(table, self._graph.input_columns)
            results = await self._rows(chunk, table, bad, earlier)
            self._progress.read_seconds += read - started
        keep = table.select(list(self._assignment.keep))
        counts = count(results)
        usage = Usage()
        for result in results:
            usage.merge(result.usage)
        answered = time.monotonic()
        seconds = round(answered - started, 3)
        if before:
            usage.merge(Usage(**{name: value for name, value in before.items() if name != "seconds"}))
            seconds += before["seconds"]
        stats = {**asdict(usage), "seconds": seconds}
        output = chunk_table(self._assignment.commit.schema, chunk, results, keep)
        ours = await asyncio.to_thread(
            commit_chunk, self._store, self._assignment.commit, chunk, output, counts, stats=stats
        )
        self._progress.commit_seconds += time.monotonic() - answered
        self._progress.committed += chunk.rows
        # The driver reads the totals once more when it has the last record.
        self._progress.publish()
        return {"counts": asdict(counts), "stats": stats, "ours": ours}

    def _committed(self, chunk: Chunk) -> dict[str, Any] | None:
        """The record of what somebody has committed already: a worker that died with its report unsaid."""
        name = self._assignment.commit.name(chunk)
        return chunk_record(self._store, chunk, name) if self._store.exists(name) else None

    def _earlier(self, chunk: Chunk) -> tuple[list[RowResult], Mapping[str, Any]]:
        """The rows as the stage before left them (in the first stage: as they are), and what they have cost so far."""
        if self._assignment.before is None:
            return [RowResult(row, "answered") for row in range(chunk.first, chunk.last)], {}
        table, record = read_stage(self._store, self._assignment.before, chunk)
        return earlier_results(table, chunk), record["stats"]

    async def _rows(
        self, chunk: Chunk, table: pa.Table, bad: Mapping[int, str], earlier: Sequence[RowResult]
    ) -> list[RowResult]:
        """All rows of a chunk through the chain, equal ones once.

        Only so many are started ahead as the window can soon take.
        """
        gate = asyncio.Semaphore(2 * self._chain.window.documents)
        results: list[RowResult] = []
        first: dict[bytes, asyncio.Task[RowResult]] = {}

        def done(result: RowResult) -> RowResult:
            results.append(result)
            self._progress.add(result)
            return result

        async def ask(row: int, values: Mapping[str, Any], known: Mapping[str, Any]) -> RowResult:
            try:
                return done(await self._chain.run(row, values, known))
            finally:
                gate.release()

        async def repeat(row: int, same: asyncio.Task[RowResult]) -> None:
            done((await same).repeated(row))

        try:
            async with asyncio.TaskGroup() as group:
                for row, values in self._read(chunk, table):
                    before = earlier[row - chunk.first]
                    if (reason := bad.get(row - chunk.first)) is not None:
                        before = _unless_settled(before, DeadLetter(DOCUMENT, reason))
                    if before.outcome != "answered":
                        done(before)
                        continue
                    key = _digest(values, before.answers)
                    if (same := first.get(key)) is not None:
                        group.create_task(repeat(row, same))
                        continue
                    await gate.acquire()
                    first[key] = group.create_task(ask(row, values, before.answers))
        except ExceptionGroup as errors:
            # One is enough to say: a dead engine fails all rows in flight at once.
            raise errors.exceptions[0] from errors
        return results

    def _read(self, chunk: Chunk, table: pa.Table) -> Iterator[tuple[int, Mapping[str, Any]]]:
        needed = table.select(list(self._graph.input_columns))
        for offset in range(0, chunk.rows, ROWS_PER_SLICE):
            for i, values in enumerate(as_rows(needed.slice(offset, ROWS_PER_SLICE))):
                yield chunk.first + offset + i, values


class Progress:
    """A worker's running totals, put where the driver can read them (the cluster's key-value store)."""

    def __init__(self, run_id: str, chain: Chain, engine: Engine, engine_seconds: float, *, last: bool = True) -> None:
        self._chain = chain
        self.engine = asdict(EngineFacts.of(engine))
        self.last = last
        self._key = f"headrace/{run_id}/{os.getpid()}-{time.time_ns()}".encode()
        self.engine_seconds = engine_seconds
        self.read_seconds = 0.0
        self.commit_seconds = 0.0
        self.rows = 0
        self.asked = 0
        self.committed = 0
        self.dead = 0
        self.filtered = 0
        self.usage = Usage()

    def add(self, result: RowResult) -> None:
        self.rows += 1
        self.asked += result.usage.requests > 0
        self.dead += result.outcome == "dead"
        self.filtered += result.outcome == "filtered"
        self.usage.merge(result.usage)

    def publish(self) -> None:
        """Put the totals; they are for looking at, so nothing depends on their being current."""
        from ray.experimental.internal_kv import _internal_kv_put

        usage = Usage()
        usage.merge(self.usage)
        usage.merge(self._chain.usage)
        totals = {
            "time": time.time(),
            "least": self._chain.blocks.least,
            "busy_seconds": self._chain.window.busy_seconds,
            "full_seconds": self._chain.window.full_seconds,
            "engine": self.engine,
            "asked": self.asked,
            "last": self.last,
            "rows": self.rows,
            "committed": self.committed,
            "dead": self.dead,
            "filtered": self.filtered,
            "engine_seconds": self.engine_seconds,
            "read_seconds": self.read_seconds,
            "commit_seconds": self.commit_seconds,
            "usage": asdict(usage),
        }
        _internal_kv_put(self._key, json.dumps(totals).encode(), overwrite=True)


def _digest(*values: Mapping[str, Any]) -> bytes:
    """What stands for all that the chain is told of a row."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _unless_settled(result: RowResult, letter: DeadLetter) -> RowResult:
    """A row that can be asked no more is dead, unless an earlier stage has settled it."""
    return RowResult(result.row, "dead", result.answers, letter) if result.outcome == "answered" else result


def start_or_explain(config: EngineConfig) -> Engine:
    """Start the engine; where that fails, say what its processes have written, for the cause is there."""
    try:
        return start_engine(config)
    except Exception as error:
        log = Path("/proc/self/fd/2").resolve()
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        causes = [line for line in lines if re.search(r"(Error|Exception)\b.*:", line)]
        said = "\n".join(dict.fromkeys(line[-500:] for line in causes[-5:]))
        raise EngineStartFailed(f"{type(error).__name__}: {error}\n{said}\nThe whole log: {log}") from error


class EngineStartFailed(RuntimeError):
    """The engine does not start on this machine, with this model and these arguments."""


def leave(reason: str) -> None:
    """End this process, for nothing in it can be trusted any more; Ray starts another."""
    print(f"headrace worker: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


__all__ = ["Assignment", "Worker"]
