"""What the driver and a worker take, measured on corpora that are larger than this machine."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.cluster.driver import publisher as parts
from headrace.cluster.driver.chunks import count_done, do_chunks
from headrace.cluster.driver.execution import descriptor
from headrace.cluster.driver.on_ray import block_sizes
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.state.checked import step_fields
from headrace.cluster.state.chunks import ChunkRecord, Committed, Descriptor
from headrace.cluster.state.events import NOBODY, Listener
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.work import Work
from headrace.cluster.worker import worker as work
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.pipelines.input.corpus import Corpus, Shard, Variant
from headrace.pipelines.input.sources import find_shards
from headrace.pipelines.output.checkpoint import Counts, chunk_schema, commit_chunk, committed
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.names import CHUNKS, TABLE
from headrace.pipelines.output.plan import Chunk, Plan, part_schema
from headrace.pipelines.output.plan_file import load_plan, save_plan
from headrace.pipelines.output.planning import Changes, PlanSpec, next_plan
from headrace.pipelines.output.publish import publish_shard
from headrace.pipelines.output.published import published
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.local import LocalStore

T = TypeVar("T")

INPUT = pa.schema([("id", pa.string()), ("text", pa.string())])
ROWS = 1000
"""Rows in a chunk."""

PIPELINE = Pipeline.model_validate(
    {
        "name": "scale",
        "model": "fake",
        "document": "{{ text }}",
        "steps": [{"generate": {"name": "said", "prompt": "Say something.", "max_tokens": 8}}],
        "checkpoint_rows": ROWS,
    }
)


@dataclass(slots=True)
class Line:
    """A thing that was measured: seconds by the clock and of the processor, and how much memory it left behind."""

    what: str
    seconds: float
    cpu: float
    left_mb: float
    per_second: float | None = None
    note: str = ""


@dataclass(slots=True)
class Sheet:
    """The lines of a measurement, and the most memory that the process has held so far."""

    lines: list[Line] = field(default_factory=list)

    def measure(self, what: str, call: Callable[[], T], items: int | None = None, note: str = "") -> T:
        """``call()``, with what it took."""
        gc.collect()
        before, clock, cpu = rss(), time.monotonic(), time.process_time()
        found = call()
        clock, cpu = time.monotonic() - clock, time.process_time() - cpu
        gc.collect()
        rate = items / clock if items else None
        self.lines.append(Line(what, round(clock, 2), round(cpu, 2), round((rss() - before) / 1e6, 1), rate, note))
        return found

    @property
    def peak_mb(self) -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rss() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def synthetic_corpus(shards: int, chunks: int) -> Corpus:
    """A corpus that nobody has written: ``shards`` files of ``chunks`` chunks each."""
    files = (
        Shard(path, f"file:///corpus/{path}", 10**8, f"{i:x}-5f5e100-{i:x}", chunks * ROWS)
        for i in range(shards)
        for path in [f"day-{i // 1000:04d}/part-{i:06d}.parquet"]
    )
    return Corpus("file:///corpus", tuple(files), (Variant(INPUT, "day-0000/part-000000.parquet"),))


def plan_of(corpus: Corpus, previous: Plan | None = None) -> Plan:
    """As a run plans."""
    return next_plan(
        previous,
        corpus,
        PlanSpec(
            checkpoint_rows=ROWS,
            fingerprints={"said": "0123456789abcdef"},
            schema=part_schema([INPUT.field("id")], step_fields(PIPELINE)),
            keep=["id"],
            pipeline=PIPELINE.to_data(),
        ),
    )[0]


class Listed(LocalStore):
    """A store in which every chunk of a plan lies, and no part: it answers listings without a disk."""

    def __init__(self, root: Path, plan: Plan) -> None:
        super().__init__(root)
        folders = {shard.index: next(shard.chunks()).name.split("/")[-2] for shard in plan.shards if shard.spans}
        object.__setattr__(self, "shards", {name: plan.shards[index] for index, name in folders.items()})

    __slots__ = ("shards",)
    shards: dict[str, Any]

    def names(self, prefix: str = "") -> Sequence[str]:
        if prefix == f"{CHUNKS}/000001":
            return [f"{name}/" for name in self.shards]
        if prefix.startswith(CHUNKS):
            shard = self.shards[prefix.rpartition("/")[2]]
            return [chunk.name.rpartition("/")[2] for chunk in shard.chunks()]
        return super().names(prefix)


class FakeExecution:
    """Workers that are done at once: a record of each chunk, read from JSON as Ray's are."""

    def records(self, plan: Plan, entering: Any, watch: Any, origins: Any = None) -> Iterator[ChunkRecord]:
        for chunks in entering:
            for size in block_sizes(len(chunks), 400):  # as they are sent, so that this is measured too
                assert size > 0
            for chunk in chunks:
                wanted = Descriptor.from_json(descriptor(plan, chunk))
                done = replace(wanted, record=Committed(chunk, Counts(ROWS), {"requests": ROWS})).to_json()
                record = Descriptor.from_json(done).record
                assert record is not None
                yield record


def driver_side(sheet: Sheet, shards: int, chunks: int) -> None:
    """Plan, resume and hear of every chunk, on a corpus that is made up but for the plan file."""
    total = shards * chunks
    with _folder() as folder:
        corpus = sheet.measure("make the corpus up", lambda: synthetic_corpus(shards, chunks), shards)
        plan = sheet.measure("plan", lambda: plan_of(corpus), shards)
        store = LocalStore(folder)
        sheet.measure("write the plan", lambda: save_plan(store, plan), shards)
        loaded = sheet.measure("read the plan", lambda: load_plan(store), shards)
        assert loaded is not None
        assert loaded.shards == plan.shards
        sheet.measure("plan again, nothing new", lambda: plan_of(corpus, loaded), shards)
        listed = Listed(folder, plan)
        done = sheet.measure("take in the listing", lambda: committed(listed, plan), total)
        assert len(done) == total
        del done
        half = Ledger(plan)
        for shard in plan.shards[::2]:
            half.add_shard(shard)
        left = sheet.measure("walk over what is left", lambda: sum(1 for _ in half.left), total // 2)
        assert left == len(half.left)
        ledger = Ledger(plan)
        sheet.measure("hear of every chunk", lambda: _hear(store, plan, ledger), total, "publishing apart")
        assert len(ledger) == total


def _hear(store: LocalStore, plan: Plan, done: Ledger) -> None:
    """A run's loop over records, with parts that cost nothing."""
    result = RunResult("complete", "", 1, Counts())
    work = Work(plan, Changes(), done)
    kept = parts.publish_shard
    parts.publish_shard = lambda *_: None  # type: ignore[assignment]
    try:
        with parts.Publisher(store, plan, done, {}) as publisher:
            do_chunks(FakeExecution(), [done.left], publisher, work, result, Listener(), NOBODY, 0.01)  # type: ignore[arg-type]
    finally:
        parts.publish_shard = kept
    assert result.counts.rows == plan.rows


def on_disk(sheet: Sheet, shards: int, chunks: int, unpublished: int = 20) -> None:
    """The same with real files: inputs, parts and chunks, all but ``unpublished`` shards published."""
    with _folder() as folder:
        source = folder / "input"
        sheet.measure("(write the input files)", lambda: _write_inputs(source, shards, chunks), shards)
        corpus = sheet.measure("read the input's footers", lambda: find_shards(str(source)), shards)
        plan = plan_of(corpus)
        store = LocalStore(folder / "output")
        save_plan(store, plan)
        sheet.measure("(write parts and chunks)", lambda: _write_output(store, plan, unpublished), shards)
        some = plan.shards[-unpublished:]
        sheet.measure("publish parts", lambda: [publish_shard(store, plan, s) for s in some[1:]], len(some) - 1)
        there = sheet.measure("read the parts' footers", lambda: published(store, plan), shards)
        done = sheet.measure("list the chunks left", lambda: committed(store, plan, there.keys()), chunks)
        assert len(there) == shards - 1
        assert len(done) == shards * chunks
        sheet.measure("list all chunks", lambda: committed(store, plan), shards * chunks)
        work = Work(plan, Changes(), done, there)
        counts = sheet.measure("count the rows", lambda: count_done(store, work), shards * chunks)
        assert counts.rows == plan.rows


def _write_inputs(folder: Path, shards: int, chunks: int) -> None:
    folder.mkdir(parents=True)
    rows = chunks * ROWS
    table = pa.table({"id": pa.nulls(rows, pa.string()), "text": pa.nulls(rows, pa.string())})
    pq.write_table(table, folder / "first.parquet")
    content = (folder / "first.parquet").read_bytes()
    for i in range(shards - 1):
        (folder / f"{i:06d}.parquet").write_bytes(content)


def _write_output(store: LocalStore, plan: Plan, unpublished: int) -> None:
    """Parts with true footers, empty chunk files below them; the last shards with true chunks and no part."""
    from headrace.pipelines.output.checkpoint import RECORD_KEY, parquet_writer
    from headrace.pipelines.output.published import part_identity

    root = store.root
    (root / TABLE).mkdir(parents=True)
    empty = plan.schema.empty_table()
    published_shards, rest = plan.shards[:-unpublished], plan.shards[-unpublished:]
    for shard in published_shards:
        said = {**part_identity(plan.fingerprint, shard), "counts": asdict(Counts(answered=shard.rows))}
        with parquet_writer(root / shard.part_name, plan.schema) as writer:
            writer.write_table(empty)
            writer.add_key_value_metadata({RECORD_KEY: json.dumps(said).encode()})
        first = next(shard.chunks())
        (root / first.name).parent.mkdir(parents=True)
        for chunk in shard.chunks():
            (root / chunk.name).touch()
    for shard in rest:
        for chunk in shard.chunks():
            commit_rows(store, plan, chunk)


def commit_rows(store: LocalStore, plan: Plan, chunk: Chunk) -> None:
    """Commit a chunk with made-up answers."""
    rows = range(chunk.first, chunk.last)
    table = pa.table(
        {
            "_shard": [chunk.path] * len(rows),
            "_row": rows,
            "id": pa.nulls(len(rows), pa.string()),
            "said": [f"The mill number {row} turns." for row in rows],
            "_outcome": ["answered"] * len(rows),
            "_error": pa.nulls(len(rows), chunk_schema(plan.schema).field("_error").type),
        }
    )
    commit_chunk(store, plan.info, chunk, table, Counts(answered=len(rows)), stats={})


def worker_side(sheet: Sheet, chunks: int, rows: int = 200, text: int = 200, group: int | None = None) -> list[int]:
    """A worker's memory over ``chunks`` chunks of ``rows`` rows; bytes that it held, at ten points on the way.

    ``group``: rows in a row group of the input; None for one group in the file.
    """
    with _folder() as folder:
        source = folder / "input"
        source.mkdir()
        total = chunks * rows
        with pq.ParquetWriter(source / "all.parquet", INPUT, compression="none", use_dictionary=False) as writer:
            step = min(total, 50_000) if group is None else group
            if group is None:
                writer.write_table(_documents(0, total, text), row_group_size=total)
            else:
                for first in range(0, total, step):
                    writer.write_table(_documents(first, min(first + step, total), text))
        gc.collect()
        pipeline = PIPELINE.model_copy(update={"checkpoint_rows": rows})
        corpus = find_shards(str(source))
        plan = replace(plan_of(corpus))
        plan = next_plan(
            None,
            corpus,
            PlanSpec(
                checkpoint_rows=rows,
                fingerprints=plan.fingerprints,
                schema=plan.schema,
                keep=["id"],
                pipeline=pipeline.to_data(),
            ),
        )[0]
        engine = EngineConfig("fake", "fake", args={"kv_tokens": 100_000})
        assignment = work.Assignment(
            run_id="scale",
            pipeline=pipeline.to_data(),
            folder=None,
            engine=engine,
            output=str(folder / "output"),
            commit=plan.info,
            layouts={},
            priors={},
            columns=INPUT,
            keep=("id",),
        )
        what = f"a worker over {chunks} chunks of {rows} rows" + ("" if group else ", one row group")
        size = (source / "all.parquet").stat().st_size / 1e6
        return sheet.measure(what, lambda: _work_through(assignment, plan), total, f"{size:.0f} MB of input")


def _documents(first: int, last: int, text: int) -> pa.Table:
    return pa.table(
        {"id": [str(i) for i in range(first, last)], "text": [f"{i} ".ljust(text, "x") for i in range(first, last)]}
    )


def _work_through(assignment: work.Assignment, plan: Plan) -> list[int]:
    kept = work.Progress.publish
    work.Progress.publish = work.Progress.report  # type: ignore[method-assign]  # there is no Ray to tell
    chunks = list(plan.chunks())
    marks: list[int] = []

    async def go() -> None:
        worker = work.Worker(assignment)
        waiting = iter(chunks)
        done = 0

        async def lane() -> None:
            nonlocal done
            for chunk in waiting:
                async for batch in worker({"chunk": [descriptor(plan, chunk)]}):
                    record = Descriptor.from_json(batch["chunk"][0]).record
                    assert isinstance(record, Committed), record
                done += 1
                if done % max(1, len(chunks) // 10) == 0:
                    gc.collect()
                    marks.append(rss())

        await asyncio.gather(*(lane() for _ in range(CHUNKS_AT_ONCE)))

    try:
        asyncio.run(go())
    finally:
        work.Progress.publish = kept  # type: ignore[method-assign]
    return marks


def traced_bytes(call: Callable[[], T]) -> tuple[int, int]:
    """Bytes of Python objects that ``call()`` left behind in what it returns, and the most on the way."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = call()
        gc.collect()
        left, most = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return left, most


class _folder:
    """A folder that is gone afterwards; under ``SCALE_DIR`` where that is set."""

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="headrace-scale-", dir=os.environ.get("SCALE_DIR")))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path)
