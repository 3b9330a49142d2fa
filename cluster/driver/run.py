"""A run, from the driver's side: check everything, plan, let the workers do what is not committed, publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from headrace.cluster.driver.work import Wish, Work
from headrace.cluster.engines.locate import limits_of, locate_models, provider_of, unused_models
from headrace.cluster.engines.provider import Located
from headrace.cluster.observability.observing import NOBODY, Observer
from headrace.operators.base import Layout
from headrace.pipelines.forecast.ahead import Ahead
from headrace.pipelines.forecast.forecast import EngineFacts, Observation, Record
from headrace.pipelines.forecast.outlook import Outlook, worth_measuring
from headrace.pipelines.forecast.survey import places
from headrace.pipelines.inference.efficiency import Figures
from headrace.pipelines.inference.layouts import Choice, Priors, of_several_models, opened
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.input.corpus import Corpus, find_shards
from headrace.pipelines.output.checkpoint import Counts, chunk_record, chunk_records, committed, counts_of
from headrace.pipelines.output.error_rate import EarlyStop, too_many
from headrace.pipelines.output.fingerprint import ModelIdentity, fingerprints
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.plan import Changes, Chunk, Plan, PlannedShard, load_plan, part_schema, save_plan
from headrace.pipelines.output.publish import (
    REPORT,
    begin,
    check_latest,
    check_output_folder,
    finish,
    is_complete,
    publish_shard,
    with_kept,
)
from headrace.pipelines.output.stages import Stage, commits, entries, stages_of, sweep
from headrace.pipelines.output.trials import settle, sweep_notes
from headrace.pipelines.report.figures import Lengths
from headrace.pipelines.report.series import Series
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.opening import open_store
from headrace.pipelines.storage.store import Store

if TYPE_CHECKING:
    from headrace.cluster.driver.execution import Execution
    from headrace.cluster.observability.observing import Observers

STAYS = "What is committed stays. Run the same command again for the rest."

PUBLISHERS = 4
"""Parts that are made at a time: mostly waiting for the disk, or for an object store."""

Status = Literal["complete", "already complete", "too many dead letters"]


@dataclass(slots=True)
class StageTotals:
    """What one model's workers have of the :class:`Totals`."""

    documents: int = 0
    asked: int = 0
    busy_seconds: float = 0.0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Totals:
    """What is known of a run while it goes on: rows by outcome, tokens, seconds. All sums over the workers.

    ``least`` are the prompt tokens that no order could save; None where an engine shares no prefixes.
    ``engines`` have been started, ``restarts`` of them in the place of one that had died; ``alive`` have reported of
    late. ``stages`` has what is each model's, by the number of its stage.
    """

    planned: int = 0
    rows: int = 0
    asked: int = 0
    dead: int = 0
    filtered: int = 0
    least: int | None = 0
    busy_seconds: float = 0.0
    full_seconds: float = 0.0
    gpu_seconds: float = 0.0
    engines: int = 0
    alive: int = 0
    restarts: int = 0
    engine: EngineFacts | None = None
    usage: Usage = field(default_factory=Usage)
    stages: dict[int, StageTotals] = field(default_factory=dict)

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
        stages: the models, as they were loaded, and the steps that ran on each.
        series: how the totals grew.
        started: ISO 8601, UTC.
        report: where the page is; empty if there is none.
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
    stages: list[dict[str, Any]] = field(default_factory=list)
    series: Series = field(default_factory=Series)
    started: str = ""
    report: str = ""

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
            "reused": self.totals.usage.reused,
            "totals": {name: value for name, value in asdict(self.totals).items() if name != "stages"},
            "figures": asdict(self.totals.figures),
            "layouts": dict(self.outlook.choice.layouts) if self.outlook else {},
            "layouts_because": self.outlook.choice.reason if self.outlook else "",
            "forecast": asdict(self.outlook.taken) if self.outlook else None,
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "changes": asdict(self.changes),
            "notes": self.notes,
            "stages": self.stages,
            "started": self.started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "series": self.series.to_data(),
            "document_tokens": self._document_tokens(),
        }

    def _document_tokens(self) -> dict[str, Any] | None:
        """Lengths of the documents that were tokenized for the forecast; None where there was none."""
        if self.outlook is None:
            return None
        lengths = Lengths("tokens")
        for length in self.outlook.survey.lengths:
            lengths.add(length)
        return asdict(lengths.seen())


class ChunksFailed(Exception):
    """Chunks could not be done for a reason that may pass; what is committed stays, and the same run resumes."""


class Listener:
    """Hears how a run gets on; this one does nothing. The command line shows a bar."""

    def phase(self, name: str) -> None:
        """A phase begins: ``checking``, ``reusing``, ``starting``, ``measuring``, ``running``, ``publishing``,
        ``reporting``."""

    def say(self, note: str) -> None:
        """Something that the user should know before the work starts."""

    def warn(self, note: str) -> None:
        """Something beside the run has failed, and the run goes on."""
        self.say(note)

    def progress(self, totals: Totals) -> None:
        """The totals have changed."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A pipeline and an input that fit each other, and the models that are there for them, by name."""

    pipeline: Pipeline
    corpus: Corpus
    columns: pa.Schema
    keep: tuple[str, ...]
    schema: pa.Schema
    stages: tuple[Stage, ...]
    models: Mapping[str, Located]
    notes: tuple[str, ...]

    @property
    def only_model(self) -> Located | None:
        """The model, where there is one for all steps."""
        return self.models[self.stages[0].model] if len(self.stages) == 1 else None

    @property
    def observation_key(self) -> str:
        """What is asked, whatever the layout: what was observed of it is kept under this."""
        return "-".join(fingerprints(opened(self.pipeline), self._identities).values())

    def fingerprints(self, layouts: Mapping[str, Layout], priors: Priors) -> dict[str, str]:
        """Of each step, with these layouts where the pipeline leaves them open, and priors that were fitted."""
        return fingerprints(self.pipeline, self._identities, layouts=layouts, priors=priors)

    @property
    def _identities(self) -> dict[str, ModelIdentity]:
        return {name: ModelIdentity(model.identity, model.arguments) for name, model in self.models.items()}

    def stages_as_data(self) -> list[dict[str, Any]]:
        """Each stage's model, as it is loaded, and its steps."""
        located = [(stage, self.models[stage.model]) for stage in self.stages]
        return [{"model": m.source, "revision": m.revision, "steps": list(stage.steps)} for stage, m in located]


def check(pipeline: Pipeline, input: str) -> Checked:
    """All that can be known before an engine starts.

    Raises:
        UserError: whatever is wrong, all problems of a kind together.
    """
    corpus = find_shards(input)
    pipeline.check_columns(corpus.schema)
    keep = pipeline.kept_columns(corpus.columns)
    needed = dict.fromkeys(Graph.of(pipeline).input_columns, "the pipeline")
    gold = dict.fromkeys(pipeline.gold.values(), "gold")
    key = dict.fromkeys(pipeline.key or (), "key")
    columns = corpus.require({**dict.fromkeys(keep, "keep"), **gold, **key, **needed})
    _check_document_types(pipeline, columns)
    schema = part_schema([columns.field(name) for name in keep], step_fields(pipeline))
    stages = stages_of(pipeline)
    models = locate_models(pipeline, stages)
    return Checked(
        pipeline=pipeline,
        corpus=corpus,
        columns=columns,
        keep=keep,
        schema=schema,
        stages=stages,
        models=models,
        notes=notes_of(pipeline, stages),
    )


def notes_of(pipeline: Pipeline, stages: tuple[Stage, ...]) -> tuple[str, ...]:
    """What a user should be told of a pipeline that is in order."""
    of_steps = (note for step in pipeline.steps for note in step.notes())
    return (*of_steps, *limits_of(pipeline, stages), *unused_models(pipeline, stages))


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
    recompute: str | None = None,
    retry: str | None = None,
    prune: bool = False,
    reuse: str | None = None,
) -> RunResult:
    """Run ``pipeline`` over ``input`` into ``output``, or do what an earlier run has left.

    Args:
        pipeline: a :class:`Pipeline`, or the path of a file that holds one.
        input: a Parquet file, a folder of them, or a glob.
        output: a folder; what is committed there already is not done again.
        limit: rows in total; None for all.
        address: a Ray cluster (``auto``, ``ray://host:port``); None or ``local`` starts Ray here and stops it again.
        listener: hears how it gets on.
        recompute: what to do again of an output that is there: ``changed`` (the steps that are asked differently now,
            and those that read them) or ``all``. Without it a changed pipeline is refused.
        retry: ``errors`` asks the dead letters of the output again.
        prune: remove the parts of files that are gone from the input.
        reuse: another output of headrace; rows that are as they were there take the answers that they have there.

    Raises:
        UserError: something that the caller has to mend; nothing was written.
        ChunksFailed: some chunks could not be done; the same call resumes.
    """
    from headrace.cluster.observability.observing import observed

    listener = listener or Listener()
    wish = Wish.of(recompute, retry, prune=prune, reuse=reuse)
    with observed(listener) as observers:
        observers.result = _run(pipeline, str(input), str(output), limit, address, wish, listener, observers)
    return observers.result


def _run(
    pipeline: Pipeline | str | Path,
    input: str,
    output: str,
    limit: int | None,
    address: str | None,
    wish: Wish,
    listener: Listener,
    observers: Observers,
) -> RunResult:
    from headrace.cluster.driver.execution import Execution
    from headrace.cluster.driver.preflight import Preflights
    from headrace.cluster.driver.records import read_record

    clock = Clock(listener, observers)
    if not isinstance(pipeline, Pipeline):
        from headrace.pipelines.spec.loading import load_pipeline

        pipeline = load_pipeline(pipeline)
    with clock.phase("checking"):
        store = open_store(output)
        check_output_folder(store, input)
        checked = check(pipeline, input)
        previous = load_plan(store)
        rows = min(checked.corpus.rows, limit or checked.corpus.rows)
        # Layouts are chosen once for an output, with the first rows that there are.
        there = Choice(previous.layouts, "the output has it", previous.priors) if previous else Choice({}, "")
        at_once = previous or not rows or wish.retry or wish.reuse
        work = Work.of(checked, store, previous, limit, there, wish) if at_once else None
        record = read_record(checked)
    observers.begun(checked, input, store.uri)
    result = RunResult("complete", store.uri, 0, Counts(), notes=list(checked.notes), stages=checked.stages_as_data())
    result.started = datetime.now(UTC).isoformat(timespec="seconds")
    if work and is_complete(store, work.plan, work.published):
        result.status = "already complete"
        result.plan = work.plan.number
        last = _last_report(store)
        result.counts = _count(store, work)
        if wish.retry:
            result.notes.append("there are no dead letters to ask again")
        if "seen" not in last:  # the run that completed it ended before its report
            _report(store, work.plan, last, None, pipeline, result, clock)
        return result
    if work and work.lender:
        with clock.phase("reusing"):
            work = work.take_over(checked, store)
    for note in work.notes if work else ():
        listener.say(note)
    execution = None
    try:
        if work is None or work.todo:
            idle = work.idle if work else frozenset()
            awake = [stage for stage in checked.stages if stage.number not in idle]
            ahead = looking_ahead(checked, record, rows, work) if checked.only_model and awake else None
            # The two take seconds each and do not need one another.
            with (
                clock.phase("starting"),
                Preflights.begin(pipeline, awake, checked.models, ahead) as preflight,
            ):
                execution = Execution.begin(checked, store, address, idle)
                result.outlook = preflight.finish()
            model = checked.only_model
            remembered = model is not None and provider_of(model).remembered
            if remembered and result.outlook and not work and worth_measuring(pipeline, result.outlook, record):
                with clock.phase("measuring"):
                    record, result.outlook = execution.measure(result.outlook.survey)
                result.notes += keep_record(checked, record)
            if work is None:
                work = Work.of(checked, store, None, limit, result.outlook.choice if result.outlook else there)
        plan = work.plan
        result.plan, result.changes = plan.number, work.changes
        if not store.exists(plan.name):
            begin(store, plan)
        save_plan(store, plan)
        begin(store, plan)
        store.sweep_temporary()
        result.counts = _count(store, work)
        result.resumed = result.counts.rows
        observers.working(work, result)
        staged = len(checked.stages) > 1
        resumed_between = False
        with Publisher(store, plan, work.done, work.published, staged=staged, made=observers.published) as publisher:
            publisher.publish_ready()
            if execution is not None:
                with clock.phase("running"):
                    entering = entries(store, commits(plan, pipeline, checked.stages), work.todo)
                    resumed_between = any(entering[1:])
                    execution.traced = observers.traced
                    _work(execution, entering, publisher, pipeline, work, result, listener, observers)
    finally:
        if execution is not None:
            execution.end()
            # Notes are advice, and the storage may be what the run has ended of.
            with suppress(OSError):
                settle(store, execution.run_id)
    ended_early = result.status != "complete"
    if result.status == "complete" and too_many(result.counts, pipeline.max_error_rate):
        result.status = "too many dead letters"
    # Rows that were asked some steps only would tell less than the truth of what conditions let through; so would, of
    # several models, rows that have not come through all of them, or twice through one.
    uneven = staged and (resumed_between or ended_early or result.totals.restarts)
    if result.totals.asked and not work.bases and not uneven:
        result.notes += keep_observed(checked, result.totals, plan)
    result.seconds = clock.seconds
    check_latest(store, plan)
    before = _report_before(store)
    if result.status == "complete":
        with clock.phase("publishing"):
            sweep_notes(store)
            if removed := finish(store, plan, result.as_report()):
                result.notes.append(_removed(removed))
    _report(store, plan, result.as_report(), before, pipeline, result, clock)
    return result


def looking_ahead(
    checked: Checked,
    record: Record,
    rows: int,
    work: Work | None = None,
    *,
    stage: Stage | None = None,
    staged: Mapping[Chunk, Collection[str]] | None = None,
) -> Ahead:
    """What to look ahead at: the first ``rows`` rows, or as many of them as are left to do.

    Args:
        stage: the first if none is named.
        staged: see :meth:`~headrace.cluster.driver.work.Work.portions`.
    """
    stage = stage or checked.stages[0]
    there = Choice(work.plan.layouts, "the output has it", work.plan.priors) if work else None
    if there is None and len(checked.stages) > 1:
        there = of_several_models(checked.pipeline, stage.steps)
    return Ahead(
        places=tuple(places(checked.corpus.shards, rows)),
        rows=work.rows_left if work else rows,
        columns=checked.columns,
        record=record,
        there=there,
        portions=work.portions(checked, staged=staged) if work else (),
        steps=stage.steps,
    )


def _observation(totals: StageTotals, plan: Plan, rows: int, documents: int, asked: int) -> Observation:
    return Observation(
        layouts=plan.layouts,
        rows=rows,
        documents=documents,
        asked=asked,
        seconds=totals.busy_seconds,
        prompt=totals.usage.prompt,
        computed=totals.usage.prompt - totals.usage.cached,
        output=totals.usage.output,
        steps=totals.usage.steps,
    )


def keep_observed(checked: Checked, totals: Totals, plan: Plan) -> list[str]:
    """Keep what each model's engines did, for the next forecast; a note where that cannot be.

    For all rows must have gone through all models. Of the rows that a model was asked about the largest number stands
    for the rows that have a document.
    """
    from headrace.cluster.driver.records import read_record

    documents = max((stage.documents for stage in totals.stages.values()), default=0)
    asked = max((stage.asked for stage in totals.stages.values()), default=0)
    notes: list[str] = []
    for stage in checked.stages:
        seen = totals.stages.get(stage.number)
        if seen is not None and provider_of(checked.models[stage.model]).remembered:
            run = _observation(seen, plan, totals.rows, documents, asked)
            notes += keep_record(checked, read_record(checked, stage).with_run(run, seen.engine), stage)
    return list(dict.fromkeys(notes))


def keep_record(checked: Checked, record: Record, stage: Stage | None = None) -> list[str]:
    """Keep what was observed; a note where that cannot be."""
    from headrace.cluster.driver.records import write_record

    try:
        write_record(checked, record, stage)
    except OSError as error:
        return [f"what was observed could not be kept for the next forecast: {error}"]
    return []


def _work(
    execution: Execution,
    entering: Sequence[Collection[Chunk]],
    publisher: Publisher,
    pipeline: Pipeline,
    work: Work,
    result: RunResult,
    listener: Listener,
    observers: Observer = NOBODY,
) -> None:
    """Let the workers do the chunks, publish each shard when its last one is there, stop when it is hopeless."""
    plan = work.plan
    planned = work.rows_left
    stop = EarlyStop(pipeline.max_error_rate, result.counts.rows + planned, result.counts)
    if stop.due:
        result.status = "too many dead letters"
        return
    chunks = sum(map(len, entering))
    failed, last_failure = 0, ""
    before = result.counts

    def watch(totals: Totals) -> None:
        totals.planned = planned
        result.totals = totals
        result.series.see(_point(totals))
        listener.progress(totals)
        observers.totals(totals)

    for record in execution.records(plan, entering, watch, work.origins):
        observers.chunk(record)
        if "failed" in record:
            if record["users"]:
                raise UserError(record["failed"])
            if record.get("stop"):
                raise ChunksFailed(f"{record['failed']} {STAYS}")
            failed, last_failure = failed + 1, record["failed"]
            continue
        if publisher.add(record["chunk"]):
            result.counts += counts_of(record)
            # That most rows fail again which have failed before says nothing of the others.
            says = (0, 0) if record["chunk"].retry else (record.get("asked", 0), record.get("lost", 0))
            stop.add(counts_of(record), *says)
        if stop.due:
            result.status = "too many dead letters"
            break
    if result.status == "complete":
        if failed:
            raise ChunksFailed(
                f"{failed} of {chunks} chunks could not be done, the last for this reason: {last_failure}\n{STAYS}"
            )
        for chunk in publisher.unheard_of():
            result.counts += counts_of(chunk_record(publisher.store, chunk))
            publisher.add(chunk)
    _count_heard(result, before)
    result.series.see(_point(result.totals), last=True)


def _count_heard(result: RunResult, before: Counts) -> None:
    """Rows as the chunks' records say: a worker that died may not have come to say what it had just committed."""
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


class Publisher:
    """Makes a shard's part as soon as its last chunk is committed, a few at a time, beside the run.

    Leaving it waits for the parts that are under way. ``staged``: stages have left files of their own. ``made`` is told
    each shard that has its part now, from another thread.

    Raises (from any method, and on leaving):
        Unaccounted, OSError: a part could not be made.
        Superseded: another run has planned the output anew.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        done: Ledger,
        published: Collection[int],
        *,
        staged: bool = False,
        made: Callable[[int], None] = lambda shard: None,
    ) -> None:
        self.store = store
        self._staged = staged
        self._tell = made
        self._plan = plan
        self._done = done
        self._published = published
        self._pool = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        self._room = BoundedSemaphore(2 * PUBLISHERS)
        self._failure: BaseException | None = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ended = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(cancel_futures=ended)
        if kind is None and self._failure is not None:
            raise self._failure

    def publish_ready(self) -> None:
        """Publish what earlier runs have finished and not published; remove what they have left beside the rest."""
        for shard in self._plan.shards:
            if shard.has_part and not shard.gone and self._done.has_all_of(shard):
                self._publish(shard)
        if self._staged:
            sweep(self.store, (self._plan.shards[index] for index in self._published))

    def add(self, chunk: Chunk) -> bool:
        """A chunk is committed; whether that was not known yet."""
        self._check()
        new = self._done.add(chunk)
        shard = self._plan.shards[chunk.shard]
        if new and self._done.has_all_of(shard):
            self._publish(shard)
        return new

    def unheard_of(self) -> list[Chunk]:
        """The chunks that are left although nobody has failed: they are committed, and their records got lost.

        Raises:
            ChunksFailed: they are not committed.
        """
        left = list(self._done.left)
        there = committed(self.store, self._plan) if left else ()
        if missing := [chunk for chunk in left if chunk not in there]:
            raise ChunksFailed(
                f"{len(missing)} chunks came back from no worker. What is committed stays. Run the same command again."
            )
        return left

    def _publish(self, shard: PlannedShard) -> None:
        if shard.index in self._published:
            return
        self._room.acquire()
        self._check()
        self._pool.submit(self._make, shard).add_done_callback(self._made)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _make(self, shard: PlannedShard) -> None:
        publish_shard(self.store, self._plan, shard)
        if self._staged:
            sweep(self.store, [shard])
        self._tell(shard.index)

    def _made(self, made: Future[None]) -> None:
        if not made.cancelled() and (failure := made.exception()) is not None:
            self._failure = failure
        self._room.release()


def _count(store: Store, work: Work) -> Counts:
    """Rows by outcome of all that is done: as the parts say, and the chunks of shards that have none yet.

    A file that is gone will have none but what it has.
    """
    total = sum(with_kept(store, work.plan, work.published).values(), Counts())
    rest = (shard for shard in work.plan.shards if shard.index not in work.published and not shard.gone)
    for record in chunk_records(store, work.done.chunks_of(rest)):
        total += counts_of(record)
    return total


def _removed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"the parts of {', '.join(paths[:3])}{more} are removed: they held answers to what the files were before, or "
        "of another pipeline, and there are none to what they are now"
    )


def _last_report(store: Store) -> dict[str, Any]:
    import json

    last: dict[str, Any] = json.loads(store.read(REPORT))
    return last


def _report_before(store: Store) -> dict[str, Any] | None:
    """What the last run has reported; None where there is nothing, or nothing that can be read."""
    try:
        return _last_report(store)
    except (OSError, ValueError):
        return None


def _report(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    pipeline: Pipeline,
    result: RunResult,
    clock: Clock,
) -> None:
    """Write the report. What goes wrong with it is a note: the run has done its work."""
    from headrace.cluster.report.report import TROUBLE, write_report

    with clock.phase("reporting"):
        try:
            made = write_report(store, plan, facts, pipeline.report, before=before)
        except TROUBLE as problem:
            result.notes.append(
                f"the report could not be written ({type(problem).__name__}: {problem}). The output is not touched by "
                f"that; headrace report {shown(result.output)} tries again."
            )
            return
    result.report = made.page
    result.notes += made.warnings


class Clock:
    """Seconds by phase."""

    def __init__(self, listener: Listener, observers: Observers) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = listener
        self._observers = observers

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, and say that it happens."""
        self._listener.phase(name)
        began, started = time.time(), time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._observers.phase(name, began, began + seconds)
