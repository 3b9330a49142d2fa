"""Documents for a report: read back from the input, because an output does not contain them.

The input may be gone or changed by then; the report says so in place of the document. Reading a row far into a large
row group takes a while, so no more rows are read after a time limit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.operators.templates import TemplateProblem, render_document
from headrace.pipelines.input.folder_columns import folder_columns, with_folder_columns
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import Rows, as_rows, plain_value
from headrace.pipelines.input.source import InputChanged
from headrace.pipelines.input.sources import source_named
from headrace.pipelines.output.dead_letters import Letter
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.report.inspection import PickedRow
from headrace.pipelines.report.lengths import LengthStats, LengthTally
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline

BUDGET_SECONDS = 60.0
"""Time limit for reading documents; a read in progress is finished."""

NEIGHBOURS = 64
"""Further rows that are read with each shown row, to measure how long documents are."""

READ_BYTES = 4 << 20
"""Maximum bytes of the input file that these rows may have."""

Place = tuple[int, int]
"""A shard's index and a row."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the model read it, or why there is none to show; ``kept`` has the row's kept columns."""

    text: str | None
    problem: str = ""
    kept: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents that were read back, by place, and the lengths of all documents that were read on the way."""

    found: Mapping[Place, Document]
    lengths: LengthStats

    def of(self, picked: PickedRow) -> Document:
        """The document of a shown row."""
        return self.found.get((picked.shard, picked.row), Document(None, "it was not read"))


def read_documents(plan: Plan, places: Sequence[Place], seconds: float = BUDGET_SECONDS) -> Documents:
    """Read the documents of some rows back from the input, as many as ``seconds`` allow."""
    found: dict[Place, Document] = {}
    lengths = LengthTally("characters")
    deadline = time.monotonic() + seconds
    try:
        pipeline = Pipeline.model_validate(plan.pipeline)
    except ValueError as error:  # another version has made the plan
        why = f"this version of headrace cannot read the plan's pipeline: {str(error).splitlines()[0]}"
        return Documents({place: Document(None, why) for place in places}, lengths.stats())
    source: _Source | None = None
    for index, row in sorted(set(places)):
        if time.monotonic() > deadline:
            found[index, row] = Document(None, f"the time limit for reading documents ({seconds:g} s) was reached")
            continue
        if source is None or source.shard.index != index:
            source = _Source(plan.shards[index], pipeline, plan.keep, lengths)
        found[index, row] = source.document(row)
    return Documents(found, lengths.stats())


class _Source:
    """An input file while its rows are read one after another."""

    def __init__(self, shard: PlannedShard, pipeline: Pipeline, keep: Sequence[str], lengths: LengthTally) -> None:
        self.shard = shard
        self._pipeline = pipeline
        self._lengths = lengths
        self._keep = keep
        self._reads = sorted(pipeline.document_template.variables)
        self._problem = "its input file is gone" if shard.gone else ""
        self._reader: ChunkReader | None = None
        self._columns: tuple[str, ...] = ()
        self._measured = 0  # rows before it are measured

    def document(self, row: int) -> Document:
        """The document of one row."""
        try:
            if not self._problem and self._reader is None:
                self._open()
            if self._problem or self._reader is None:
                return Document(None, self._problem)
            rows = self._read(self._reader, row)
        except InputChanged:
            self._problem = "its input file has changed since"
            return Document(None, self._problem)
        except (UserError, OSError) as problem:
            self._problem = f"its input file is gone, or cannot be reached from here: {problem}"
            return Document(None, self._problem)
        if 0 in rows.bad:
            return Document(None, rows.bad[0])
        table = rows.table.slice(0, 1)
        values = as_rows(table.select(self._reads))[0]
        kept = {name: _shown(plain_value(table[name][0])) for name in self._keep if name in table.column_names}
        try:
            text = render_document(self._pipeline.document_template, values)
        except TemplateProblem as problem:
            return Document(None, str(problem), kept)
        return Document(text, "" if text is not None else "it is null", kept)

    def _open(self) -> None:
        corpus = source_named(self.shard.source).find(self.shard.uri)
        now, then = corpus.shards[0], self.shard
        if (now.size, now.etag) != (then.size, then.etag):
            raise InputChanged(then.path)
        schema = with_folder_columns(corpus.schema, folder_columns([then.path]))
        self._columns = tuple(name for name in dict.fromkeys((*self._reads, *self._keep)) if name in schema.names)
        if missing := [name for name in self._reads if name not in self._columns]:
            self._problem = f"its input file has no column {', '.join(map(repr, missing))}"
        self._reader = ChunkReader(schema)

    def _read(self, reader: ChunkReader, row: int) -> Rows:
        """The row and some after it, whose documents are measured on the way."""
        source = self.shard.as_found()
        size = max(1, source.size // max(1, source.rows))
        last = min(row + max(1, min(NEIGHBOURS, READ_BYTES // size)), source.rows)
        rows = reader.read(source, row, last, self._columns, self._reads)
        # Rows that are shown come in order, and what is read with one may hold the next.
        beside = rows.table.slice(max(0, self._measured - row)).select(self._reads)
        for text in _texts(self._pipeline, beside):
            self._lengths.add(len(text))
        self._measured = max(self._measured, last)
        return rows


def _texts(pipeline: Pipeline, table: pa.Table) -> Iterator[str]:
    for values in as_rows(table):
        try:
            text = render_document(pipeline.document_template, values)
        except TemplateProblem:
            continue
        if text:
            yield text


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)


def place_of(plan: Plan, letter: Letter) -> Place | None:
    """Where the row of a dead letter is; None for a file that the plan does not know."""
    index = next((shard.index for shard in plan.shards if shard.path == letter.shard), None)
    return None if index is None else (index, letter.row)
