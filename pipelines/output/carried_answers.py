"""What is known about a chunk's rows before they are asked.

A generation that recomputes an output, retries its dead letters or reuses another output's answers does not start from
nothing. Its spans name bases: chunks with the same row ranges from an earlier plan, or seeds that were taken from
another output (``reuse``). A worker reads the newest base that exists, keeps the answers of unchanged steps, and asks
the others.

An :class:`Origin` says which answers of a base are still valid. It follows from the two plans' fingerprints: the driver
makes one for each base, and it is the same for all rows.

* An answered row keeps the answers of the steps that are unchanged. Unchanged filters have let it through.
* A filtered row stays filtered if all filters of the base are unchanged. Otherwise the row is asked from scratch.
* A dead letter is kept only if its step, all earlier steps and the filters before it are unchanged. Otherwise the row
is
  rerun, reusing the answers it already has. A retry (``retry``) continues after the attempts already used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.operators.base import ModelStep
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, Earlier, RowResult
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.output.checkpoint import (
    ANSWERED,
    DEAD,
    FILTERED,
    chunk_record,
    chunk_records,
    counts_of,
)
from headrace.pipelines.output.damaged import damage_told, damaged
from headrace.pipelines.output.names import CHUNKS, seed_name
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.output.stages import Stage, filters_before
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.steps import OPERATORS
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store

SEGMENT_ROWS = 16_384
"""Input rows that one file of seeds covers."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What of a base is still valid in a plan.

    Attributes:
        fingerprint: of the base's chunks.
        steps: the steps of the plan whose answers are valid, each with its name in the base.
        columns: their columns, each with its name in the base.
        dead: the steps of the plan whose dead letters are valid: everything before them is unchanged, including
            filters, and came before them in the base.
        filters: whether filtered rows stay filtered.
        documents: whether rows whose document was the problem stay dead.
        whole: whether all steps of the base are unchanged, so that all of its results are final.
        folder: of seeds; None for the chunks of an earlier plan.
    """

    fingerprint: str
    steps: Mapping[str, str]
    columns: Mapping[str, str]
    dead: frozenset[str]
    filters: bool
    documents: bool
    whole: bool
    folder: str | None = None

    @classmethod
    def of(cls, base: Plan, plan: Plan, pipeline: Pipeline, *, seeds: bool = False) -> Origin:
        """What of ``base`` (or of its ``seeds``) is still valid in ``plan``, which is made for ``pipeline``."""
        held = base.seeds["steps"] if seeds else list(base.fingerprints)
        steps, columns = standing(base, held, plan, pipeline)
        asking = [step.name for step in pipeline.steps if isinstance(step, ModelStep)]
        filters = _gating(base.pipeline).intersection(held)
        graph = Graph.of(pipeline)
        before, passed = filters_before(pipeline), _passed(base)
        dead = frozenset(
            name
            for name in steps
            if graph.upstream(name) <= steps.keys()
            and {steps.get(other) for other in before[name]} <= passed.get(steps[name], frozenset())
        )
        return cls(
            fingerprint=base.fingerprint,
            steps=steps,
            columns=columns,
            dead=dead,
            filters=filters <= set(steps.values()),
            documents=bool(asking) and all(name in steps for name in asking),
            whole=set(held) <= set(steps.values()) and dead == steps.keys(),
            folder=base.seeds["folder"] if seeds else None,
        )


def standing(base: Plan, held: Sequence[str], plan: Plan, pipeline: Pipeline) -> tuple[dict[str, str], dict[str, str]]:
    """Which of the steps ``held`` by ``base`` (and their columns) are valid in ``plan``, with their names there.

    A step is identified by its fingerprint, whatever its name is. A step whose columns have another type now is not
    valid, nor is what reads it.
    """
    fingerprints, schema = plan.fingerprints, plan.schema
    had_by = {name: base.fingerprints[name] for name in held}
    named = {value: name for name, value in reversed(had_by.items())}
    steps: dict[str, str] = {}
    columns: dict[str, str] = {}
    graph = Graph.of(pipeline)
    giving = set(pipeline.answers.values())
    for name in graph.order:
        old = name if had_by.get(name) == fingerprints[name] else named.get(fingerprints[name])
        if old is None or not graph.waits_for[name] & giving <= steps.keys():
            continue
        mine = [column for column, giver in pipeline.answers.items() if giver == name]
        theirs = list(base.columns[old])
        if len(mine) == len(theirs) and all(
            base.schema.field(had).type.equals(schema.field(has).type) for had, has in zip(theirs, mine, strict=True)
        ):
            steps[name] = old
            columns.update(zip(mine, theirs, strict=True))
    return steps, columns


def origins(plan: Plan, pipeline: Pipeline, base_plan: Mapping[int, Plan]) -> dict[int, Origin]:
    """What of each base that a span of ``plan`` names is still valid; ``base_plan`` has their plans by number."""
    return {
        base: Origin.of(base_plan[abs(base)], plan, pipeline, seeds=base < 0)
        for base in sorted({base for shard in plan.shards for span in shard.spans for base in span.bases})
    }


def seed_names(folder: str, chunk: Chunk) -> list[str]:
    """The files of seeds that may contain rows of ``chunk``."""
    first, last = chunk.first // SEGMENT_ROWS, (chunk.last - 1) // SEGMENT_ROWS
    return [seed_name(folder, chunk.shard, chunk.path, segment) for segment in range(first, last + 1)]


def base_chunk(chunk: Chunk, base: int) -> Chunk:
    """The chunk of an earlier plan that has the same rows."""
    return Chunk(base, chunk.shard, chunk.path, chunk.first, chunk.last)


@dataclass(frozen=True, slots=True)
class CarriedAnswers:
    """Reads what is known about chunks' rows, for the workers of one run."""

    store: Store
    graph: Graph
    givers: Mapping[str, str]
    """The step of each column."""
    filters: frozenset[str]
    origins: Mapping[int, Origin]
    known: Mapping[str, Mapping[int, RowResult]] = field(default_factory=dict)
    """What is known of rows of chunks without a base, by the path of their shard."""

    @classmethod
    def of(
        cls,
        store: Store,
        pipeline: Pipeline,
        found: Mapping[int, Origin],
        known: Mapping[str, Mapping[int, RowResult]] | None = None,
    ) -> CarriedAnswers:
        """The reader for the rows of ``pipeline``'s output in ``store``."""
        filters = frozenset(step.name for step in pipeline.steps if step.gates)
        return cls(store, Graph.of(pipeline), pipeline.answers, filters, found, known or {})

    def read(self, chunk: Chunk) -> dict[int, RowResult]:
        """What is known about each row of ``chunk``, by row number: final ones, and ones with answers (see
        ``Earlier``).

        Rows about which nothing is known are absent.

        Raises:
            UserError: a file is damaged.
        """
        if not chunk.bases:
            rows = self.known.get(chunk.path, {}).items()
            return {row: replace(each, usage=Usage()) for row, each in rows if chunk.first <= row < chunk.last}
        for base in chunk.bases:
            origin = self.origins[base]
            table = self._seeds(chunk, origin.folder) if origin.folder else self._chunk(chunk, base, origin)
            if table is not None:
                return dict(self._rows(chunk, table, origin))
        return {}

    def _chunk(self, chunk: Chunk, base: int, origin: Origin) -> pa.Table | None:
        there = base_chunk(chunk, base)
        if not self.store.exists(there.name):
            return None
        record = chunk_record(self.store, there)
        if record["fingerprint"] != origin.fingerprint:
            raise damaged(self.store, there.name, f"was not made by the pipeline of plan {base}")
        columns = ["_row", "_outcome", "_error", *dict.fromkeys(origin.columns.values())]
        return self._table(there.name, columns)

    def _seeds(self, chunk: Chunk, folder: str) -> pa.Table | None:
        tables = [
            self._table(name, None, [("_row", ">=", chunk.first), ("_row", "<", chunk.last)])
            for name in seed_names(folder, chunk)
            if self.store.exists(name)
        ]
        return pa.concat_tables(tables) if tables else None

    def _table(self, name: str, columns: list[str] | None, filters: Any = None) -> pa.Table:
        with damage_told(self.store, name), self.store.open(name) as file:
            return pq.read_table(
                file, columns=columns, filters=filters, use_threads=False, page_checksum_verification=True
            )

    def _rows(self, chunk: Chunk, table: pa.Table, origin: Origin) -> Iterator[tuple[int, RowResult]]:
        left_out = set(range(chunk.first, chunk.last)) if origin.folder is None else set()
        for values in table.to_pylist():
            left_out.discard(values["_row"])
            row, outcome = values["_row"], values["_outcome"]
            answers = {column: values[had] for column, had in origin.columns.items()}
            if outcome == FILTERED:
                left_out.add(row)
            elif outcome == ANSWERED:
                earlier = Earlier(answers, frozenset(origin.steps))
                yield row, RowResult(row, ANSWERED, dict(answers), earlier=earlier)
            elif outcome == DEAD:
                yield row, self._dead(chunk, row, answers, DeadLetter.stored(values["_error"]), origin)
        if origin.filters:
            for row in left_out:
                yield row, RowResult(row, FILTERED)

    def _dead(
        self, chunk: Chunk, row: int, answers: Mapping[str, Any], letter: DeadLetter, origin: Origin
    ) -> RowResult:
        now = {had: name for name, had in origin.steps.items()}
        step = letter.step if letter.step == DOCUMENT else now.get(letter.step)
        stands = origin.documents if letter.step == DOCUMENT else step in origin.dead
        if stands and step and not chunk.retry:
            return RowResult(row, DEAD, dict(answers), replace(letter, step=step))
        kept = self._answered(answers, origin.steps)
        answers = {column: value for column, value in answers.items() if self.givers[column] in kept}
        failed = replace(letter, step=step) if stands and step and step != DOCUMENT else None
        return RowResult(row, ANSWERED, dict(answers), earlier=Earlier(answers, kept, failed))

    def _answered(self, answers: Mapping[str, Any], steps: Collection[str]) -> frozenset[str]:
        """The answered steps of a dead row, for certain. A null proves nothing, nor does what depends on a null."""
        given = {self.givers[column] for column, value in answers.items() if value is not None}
        kept: set[str] = set()
        for name in self.graph.order:
            waits = self.graph.waits_for[name] - self.filters
            if name in steps and name in given and waits <= kept:
                kept.add(name)
        return frozenset(kept)


def merged(stage: Sequence[RowResult], seeds: Mapping[int, RowResult]) -> list[RowResult]:
    """Rows as an earlier stage left them, with what is known about their later steps; unchanged in the first stage."""
    found = []
    for result in stage:
        seed = seeds.get(result.row)
        if seed is None:
            found.append(result)
        elif result.outcome != ANSWERED:  # settled before: a dead row may have more answers
            found.append(replace(result, answers={**seed.answers, **result.answers}))
        elif seed.outcome != ANSWERED:
            found.append(seed)
        else:
            found.append(replace(result, answers={**seed.answers, **result.answers}, earlier=seed.earlier))
    return found


def _gating(pipeline: Mapping[str, Any]) -> set[str]:
    """The steps of a stored pipeline that may leave rows out, including those of operators that are not installed."""
    steps = [next(iter(step.items())) for step in pipeline.get("steps", ())]
    return {body["name"] for kind, body in steps if kind not in OPERATORS or OPERATORS[kind].gates}


def _passed(plan: Plan) -> Mapping[str, frozenset[str]]:
    """The filters before each step of a plan; nothing is known about a pipeline that this version cannot read."""
    try:
        return filters_before(Pipeline.model_validate(plan.pipeline))
    except (ValueError, UserError):
        return {}


def load_bases(store: Store, plan: Plan) -> dict[int, Plan]:
    """The plans that the bases of ``plan``'s spans belong to, by number.

    Raises:
        UserError: one is gone.
    """
    numbers = {abs(base) for shard in plan.shards for span in shard.spans for base in span.bases}
    found = {}
    for number in sorted(numbers):
        base = plan if number == plan.number else load_plan(store, number)
        if base is None:
            raise UserError(
                f"The plan {number} of {shown(store.uri)} is gone, but plan {plan.number} needs it. Restore it."
            )
        found[number] = base
    return found


def newest_bases(store: Store, chunks: Iterable[Chunk]) -> dict[Chunk, int]:
    """The base that counts for each chunk, for chunks that have one."""
    chunks = [chunk for chunk in chunks if chunk.bases]
    numbers = sorted({base for chunk in chunks for base in chunk.bases if base > 0})
    there = {entry.path for number in numbers for entry in store.list(f"{CHUNKS}/{number:06d}")}
    found = {}
    for chunk in chunks:
        base = next((base for base in chunk.bases if base < 0 or base_chunk(chunk, base).name in there), None)
        if base is not None:
            found[chunk] = base
    return found


def idle_stages(
    store: Store,
    stages: Sequence[Stage],
    asking: Collection[str],
    todo: Collection[Chunk],
    bases: Mapping[Chunk, int],
    found: Mapping[int, Origin],
) -> frozenset[int]:
    """The numbers of the stages that need no engine, because they have nothing to ask their model.

    ``asking`` are the steps that ask a model, ``todo`` the remaining chunks, ``bases`` the result of
    :func:`newest_bases`.
    """
    if not todo or any(bases.get(chunk, 0) <= 0 for chunk in todo):
        return frozenset()
    used = {bases[chunk] for chunk in todo}
    idle = [
        stage.number
        for stage in stages
        if all(name in found[base].steps for base in used for name in stage.steps if name in asking)
    ]
    if not idle or any(chunk.retry for chunk in todo):
        return frozenset()
    loose = {base for base in used if not (found[base].whole and found[base].documents)}
    there = [base_chunk(chunk, bases[chunk]) for chunk in todo if bases[chunk] in loose]
    for chunk, record in zip(there, chunk_records(store, there), strict=True):
        counts = counts_of(record)
        if counts.dead or (counts.filtered and not found[chunk.plan].filters):
            return frozenset()  # these rows may be settled no more, and would be asked from scratch
    return frozenset(idle)


def copied(seed: RowResult | None, asking: Collection[str]) -> bool:
    """Whether nothing is left to ask about a row, given the steps that ask."""
    if seed is None:
        return False
    return seed.outcome != ANSWERED or (seed.earlier is not None and seed.earlier.steps >= set(asking))
