"""A run, from the driver's side: check everything, plan, let the workers do what is not committed, publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from headrace.cluster.engine_config import FAKE
from headrace.operators.base import Layout
from headrace.pipelines.checkpoint import Counts, chunk_records, committed, counts_of
from headrace.pipelines.corpus import Corpus, find_shards
from headrace.pipelines.efficiency import Figures
from headrace.pipelines.errors import UserError
from headrace.pipelines.fingerprint import fingerprints
from headrace.pipelines.forecast import EngineFacts, Observation, Record
from headrace.pipelines.graph import Graph
from headrace.pipelines.layouts import with_default
from headrace.pipelines.outlook import Outlook, worth_measuring
from headrace.pipelines.plan import Changes, Chunk, Plan, load_plan, next_plan, part_schema, save_plan
from headrace.pipelines.publish import (
    REPORT,
    begin,
    check_output_folder,
    finish,
    is_complete,
    publish_shard,
    published,
)
from headrace.pipelines.spec import Pipeline
from headrace.pipelines.storage import Store, open_store
from headrace.pipelines.survey import places
from headrace.pipelines.usage import Usage

if TYPE_CHECKING:
    from headrace.cluster.execution import Execution

EARLY_STOP_FLOOR = 20
"""Dead letters that a run may have before it asks whether they are too many: a few rows say nothing of a corpus."""

Status = Literal["complete", "already complete", "too many dead letters"]


@dataclass(slots=True)
class Totals:
    """What is known of a run while it goes on: rows by outcome, tokens, seconds. All sums over the workers."""

    planned: int = 0
    rows: int = 0
    asked: int = 0
    dead: int = 0
    filtered: int = 0
    least: int = 0
    busy_seconds: float = 0.0
    full_seconds: float = 0.0
    engines: int = 0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def figures(self) -> Figures:
        """How much of the engines' work had to be done."""
        return Figures.of(self.usage, self.least, self.busy_seconds, self.full_seconds)


@dataclass(slots=True)
class RunResult:
    """What a run did, and what the output holds now.

    Attributes:
        counts: rows by outcome, of the whole output; ``resumed`` of them were committed by earlier runs.
        totals: of this run's own work.
        seconds: by phase.
        outlook: what was forecast for the rows that this run was to do.
    """

    status: Status
    output: str
    plan: int
    counts: Counts
    resumed: int = 0
    totals: Totals = field(default_factory=Totals)
    seconds: dict[str, float] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    notes: list[str] = field(default_factory=list)
    outlook: Outlook | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 3 too many dead letters."""
        return 3 if self.status == "too many dead letters" else 0

    def as_report(self) -> dict[str, Any]:
        """Plain data for ``report.json``."""
        return {
            "status": self.status,
            "plan": self.plan,
            "counts": asdict(self.counts),
            "resumed": self.resumed,
            "totals": asdict(self.totals),
            "figures": asdict(self.totals.figures),
            "layouts": dict(self.outlook.choice.layouts) if self.outlook else {},
            "layouts_because": self.outlook.choice.reason if self.outlook else "",
            "forecast": asdict(self.outlook.taken) if self.outlook else None,
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "changes": asdict(self.changes),
            "notes": self.notes,
        }


class ChunksFailed(Exception):
    """Chunks could not be done for a reason that may pass; what is committed stays, and the same run resumes."""


class Listener:
    """Hears how a run gets on; this one does nothing. The command line shows a bar."""

    def phase(self, name: str) -> None:
        """A phase begins: ``checking``, ``starting``, ``measuring``, ``running``, ``publishing``."""

    def progress(self, totals: Totals) -> None:
        """The totals have changed."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A pipeline and an input that fit each other, and the model that is there for them."""

    pipeline: Pipeline
    corpus: Corpus
    columns: pa.Schema
    keep: tuple[str, ...]
    schema: pa.Schema
    model: str
    revision: str | None
    identity: str
    weights: int
    notes: tuple[str, ...]

    @property
    def observation_key(self) -> str:
        """What is asked, whatever the layout: what was observed of it is kept under this."""
        steps = tuple(step.model_copy(update={"layout": None}) for step in self.pipeline.steps)
        open_ = self.pipeline.model_copy(update={"layout": "auto", "steps": steps})
        return "-".join(fingerprints(open_, self.identity).values())

    def fingerprints(self, layouts: Mapping[str, Layout] | None = None) -> dict[str, str]:
        """Of each step, with these layouts where the pipeline leaves them open."""
        return fingerprints(self.pipeline, self.identity, layouts=layouts)


def check(pipeline: Pipeline, input: str) -> Checked:
    """All that can be known before an engine starts.

    Raises:
        UserError: whatever is wrong, all problems of a kind together.
    """
    corpus = find_shards(input)
    pipeline.check_columns(corpus.schema)
    keep = pipeline.kept_columns(corpus.columns)
    needed = dict.fromkeys(Graph.of(pipeline).input_columns, "the pipeline")
    columns = corpus.require({**dict.fromkeys(keep, "keep"), **needed})
    _check_document_types(pipeline, columns)
    schema = part_schema([columns.field(name) for name in keep], step_fields(pipeline))
    model, revision, identity, weights = check_model(pipeline)
    return Checked(
        pipeline=pipeline,
        corpus=corpus,
        columns=columns,
        keep=keep,
        schema=schema,
        model=model,
        revision=revision,
        identity=identity,
        weights=weights,
        notes=tuple(note for step in pipeline.steps for note in step.notes()),
    )


def check_model(pipeline: Pipeline) -> tuple[str, str | None, str, int]:
    """What to load, its revision, what stands for it in fingerprints, and the bytes of its weights."""
    wanted = pipeline.model_spec
    if wanted.id == FAKE:
        return FAKE, None, FAKE, 0
    from headrace.cluster.models import model_identity, model_memory, resolve_model

    location = resolve_model(wanted.id, base=pipeline.folder, revision=wanted.revision)
    weights = model_memory(location.path) if location.path else 0
    return location.source, location.revision, model_identity(location), weights


def step_fields(pipeline: Pipeline) -> list[pa.Field]:
    """The steps' output columns; a Map's function is imported for its type, from the pipeline's folder too."""
    if pipeline.folder and str(pipeline.folder) not in sys.path:
        sys.path.insert(0, str(pipeline.folder))
    fields = []
    for i, step in enumerate(pipeline.steps):
        try:
            fields += [item.with_nullable(True) for item in step.fields()]
        except ValueError as problem:
            raise UserError(pipeline.message(("steps", i, step.kind), str(problem))) from problem
    return fields


def _check_document_types(pipeline: Pipeline, columns: pa.Schema) -> None:
    for name in Graph.of(pipeline).document_columns:
        kind = columns.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            raise UserError(
                pipeline.message(
                    ("document",), f'the column "{name}" is {kind}, and a document is text: decode it first'
                )
            )


def run(
    pipeline: Pipeline | str | Path,
    *,
    input: str | Path,
    output: str | Path,
    limit: int | None = None,
    address: str | None = None,
    listener: Listener | None = None,
) -> RunResult:
    """Run ``pipeline`` over ``input`` into ``output``, or do what an earlier run has left.

    Args:
        pipeline: a :class:`Pipeline`, or the path of a file that holds one.
        input: a Parquet file, a folder of them, or a glob.
        output: a folder; what is committed there already is not done again.
        limit: rows in total; None for all.
        address: a Ray cluster (``auto``, ``ray://host:port``); None or ``local`` starts Ray here and stops it again.
        listener: hears how it gets on.

    Raises:
        UserError: something that the caller has to mend; nothing was written.
        ChunksFailed: some chunks could not be done; the same call resumes.
    """
    from headrace.cluster.execution import Execution
    from headrace.cluster.preflight import Ahead, Preflight
    from headrace.cluster.records import read_record
    from headrace.cluster.resources import block_size

    listener = listener or Listener()
    clock = Clock(listener)
    if not isinstance(pipeline, Pipeline):
        from headrace.pipelines.loading import load_pipeline

        pipeline = load_pipeline(pipeline)
    with clock.phase("checking"):
        store = open_store(str(output))
        check_output_folder(store, str(input))
        checked = check(pipeline, str(input))
        previous = load_plan(store)
        rows = min(checked.corpus.rows, limit or checked.corpus.rows)
        # Layouts are chosen once for an output, with the first rows that there are.
        work = (
            Work.of(checked, store, previous, limit, previous.layouts if previous else {})
            if previous or not rows
            else None
        )
        record = read_record(checked)
    result = RunResult("complete", store.uri, 0, Counts(), notes=list(checked.notes))
    if work and is_complete(store, work.plan):
        result.status = "already complete"
        result.plan = work.plan.number
        result.counts = _last_counts(store)
        return result
    execution = None
    try:
        if work is None or work.todo:
            ahead = Ahead(
                places=tuple(places(checked.corpus.shards, rows)),
                rows=sum(chunk.rows for chunk in work.todo) if work else rows,
                columns=checked.columns,
                block_size=record.engine.block_size if record.engine else block_size(pipeline),
                record=record,
                layouts=work.plan.layouts if work else None,
            )
            # The two take seconds each and do not need one another.
            with (
                clock.phase("starting"),
                Preflight.begin(pipeline, checked.model, checked.revision, ahead=ahead) as preflight,
            ):
                execution = Execution.begin(checked, store, address)
                result.outlook = preflight.finish()
            if work is None:
                assert result.outlook is not None
                if checked.model != FAKE and worth_measuring(pipeline, result.outlook, record):
                    with clock.phase("measuring"):
                        record, result.outlook = execution.measure(result.outlook.survey)
                    result.notes += keep_record(checked, record)
                work = Work.of(checked, store, None, limit, result.outlook.choice.layouts)
        plan = work.plan
        result.plan, result.changes = plan.number, work.changes
        save_plan(store, plan)
        store.sweep_temporary()
        begin(store, plan)
        result.counts = _count(store, committed(store, plan))
        result.resumed = result.counts.rows
        publisher = Publisher(store, plan, work.done)
        publisher.publish_ready()
        if execution is not None:
            with clock.phase("running"):
                _work(execution, work.todo, publisher, pipeline, plan, result, listener)
    finally:
        if execution is not None:
            execution.end()
    if result.status == "complete" and result.counts.dead > pipeline.max_error_rate * result.counts.rows:
        result.status = "too many dead letters"
    if result.totals.asked and checked.model != FAKE:
        result.notes += keep_record(checked, record.with_run(_observation(result, plan), result.totals.engine))
    result.seconds = clock.seconds
    if result.status == "complete":
        with clock.phase("publishing"):
            finish(store, plan, result.as_report())
    return result


@dataclass(frozen=True, slots=True)
class Work:
    """The plan of a run, and what of it is done and to do."""

    plan: Plan
    changes: Changes
    done: set[Chunk]
    todo: list[Chunk]

    @classmethod
    def of(
        cls, checked: Checked, store: Store, previous: Plan | None, limit: int | None, layouts: Mapping[str, Layout]
    ) -> Work:
        """Plan ``checked`` with these layouts, and see what is there already."""
        pipeline = checked.pipeline
        taken = with_default(pipeline, layouts)
        plan, changes = next_plan(
            previous,
            checked.corpus,
            checkpoint_rows=pipeline.checkpoint_rows,
            limit=limit,
            fingerprints=checked.fingerprints(taken),
            layouts=taken,
            schema=checked.schema,
            keep=checked.keep,
            pipeline=pipeline.to_data(),
        )
        done = _done(store, plan)
        return cls(plan, changes, done, [chunk for chunk in plan.chunks() if chunk not in done])


def _observation(result: RunResult, plan: Plan) -> Observation:
    totals = result.totals
    return Observation(
        layouts=plan.layouts,
        rows=totals.rows,
        asked=totals.asked,
        seconds=totals.busy_seconds,
        prompt=totals.usage.prompt,
        computed=totals.usage.prompt - totals.usage.cached,
        output=totals.usage.output,
        steps=totals.usage.steps,
    )


def keep_record(checked: Checked, record: Record) -> list[str]:
    """Keep what was observed; a note where that cannot be."""
    from headrace.cluster.records import write_record

    try:
        write_record(checked, record)
    except OSError as error:
        return [f"what was observed could not be kept for the next forecast: {error}"]
    return []


def _work(
    execution: Execution,
    todo: list[Chunk],
    publisher: Publisher,
    pipeline: Pipeline,
    plan: Plan,
    result: RunResult,
    listener: Listener,
) -> None:
    """Let the workers do the chunks, publish each shard when its last one is there, stop when it is hopeless."""
    most_dead = max(EARLY_STOP_FLOOR, pipeline.max_error_rate * plan.rows)
    failures: list[str] = []

    def watch(totals: Totals) -> None:
        totals.planned = plan.rows - result.resumed
        result.totals = totals
        listener.progress(totals)

    for record in execution.records(plan, todo, watch):
        if "failed" in record:
            if record["users"]:
                raise UserError(record["failed"])
            failures.append(record["failed"])
            continue
        result.counts += counts_of(record)
        publisher.add(record["chunk"])
        if result.counts.dead > most_dead:
            result.status = "too many dead letters"
            return
    if failures:
        raise ChunksFailed(
            f"{len(failures)} of {len(todo)} chunks could not be done, the last for this reason: {failures[-1]}\n"
            f"What is committed stays. Run the same command again for the rest."
        )


class Publisher:
    """Makes a shard's part as soon as its last chunk is committed."""

    def __init__(self, store: Store, plan: Plan, done: set[Chunk]) -> None:
        self._store = store
        self._plan = plan
        self._left = {shard.index: {c for c in shard.chunks() if c not in done} for shard in plan.shards}
        self._published = published(store, plan)

    def publish_ready(self) -> None:
        """Publish what earlier runs have finished and not published."""
        for shard in self._plan.shards:
            if shard.has_part and not shard.gone and not self._left[shard.index]:
                self._publish(shard.index)

    def add(self, chunk: Chunk) -> None:
        """A chunk is committed."""
        left = self._left[chunk.shard]
        left.discard(chunk)
        if not left:
            self._publish(chunk.shard)

    def _publish(self, index: int) -> None:
        if index not in self._published:
            publish_shard(self._store, self._plan, self._plan.shards[index])


def _done(store: Store, plan: Plan) -> set[Chunk]:
    """Chunks that need no work: committed, or part of a shard whose part is there as planned."""
    done = committed(store, plan)
    for index in published(store, plan):
        done.update(plan.shards[index].chunks())
    return done


def _count(store: Store, chunks: set[Chunk]) -> Counts:
    total = Counts()
    for record in chunk_records(store, sorted(chunks, key=lambda chunk: chunk.name)):
        total += counts_of(record)
    return total


def _last_counts(store: Store) -> Counts:
    import json

    return Counts(**json.loads(store.read(REPORT))["counts"])


class Clock:
    """Seconds by phase."""

    def __init__(self, listener: Listener) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = listener

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, and say that it happens."""
        self._listener.phase(name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
