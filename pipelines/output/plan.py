"""The plan: which rows of which files are asked, in which chunks, and what decides their answers.

A plan is data, written once as ``_headrace/plan-000001.json``. If the input changes, or more of it is wanted, a next
plan follows (a generation). It keeps the spans of whatever is unchanged, and with them the committed chunks, and cuts
new ones for the rest. Shards are numbered once and forever, so a part's name never moves to another file.

Rows that were answered before, and need new answers to some or all steps, are cut again in the same places. Such a span
names its bases: the chunks with the earlier answers of the same rows (see ``carried_answers``).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa

from headrace.operators.questions import Layout
from headrace.pipelines.input.corpus import DEFAULT_SOURCE, Mark, Shard
from headrace.pipelines.output.names import chunk_folder, chunk_name, letters_name, part_name, plan_name
from headrace.pipelines.spec.errors import UserError


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows ``first`` to ``last`` (exclusive) of one shard: the unit of work, of retry and of checkpoint.

    ``plan`` is the number of the plan that cut it, ``shard`` the shard's index, ``path`` the shard's path. ``bases``
    and ``retry`` are those of its span; they are not part of the chunk's identity.
    """

    plan: int
    shard: int
    path: str
    first: int
    last: int
    bases: tuple[int, ...] = field(default=(), compare=False)
    retry: bool = field(default=False, compare=False)

    @property
    def rows(self) -> int:
        return self.last - self.first

    @property
    def name(self) -> str:
        """The chunk file's path in the output folder. It follows from the plan alone."""
        return self.file()

    def file(self, stage: str = "") -> str:
        """The path of the chunk's file, or of the file with a stage's answers for it (the stage's suffix)."""
        return chunk_name(chunk_folder(self.plan, self.shard, self.path), self.first, self.last, stage)


class Span(NamedTuple):
    """Rows ``first`` to ``last`` (exclusive) that plan number ``plan`` cut into chunks of ``chunk_rows``.

    ``bases`` say where earlier answers of these rows may be, the newest first: the number of a plan whose chunks have
    the same row ranges, or a negative number for the seeds that plan ``-base`` took from another output. ``retry`` says
    that dead letters found there are retried.
    """

    plan: int
    first: int
    last: int
    chunk_rows: int
    bases: tuple[int, ...] = ()
    retry: bool = False

    @property
    def identity(self) -> list[int]:
        """What distinguishes the chunks of one span from those of another."""
        return [self.plan, self.first, self.last, self.chunk_rows]

    @classmethod
    def from_data(cls, data: Sequence[Any]) -> Span:
        """A span from the result of :meth:`to_data`."""
        plan, first, last, chunk_rows, *more = data
        bases, retry = more or ((), 0)
        return cls(plan, first, last, chunk_rows, tuple(bases), bool(retry))

    def to_data(self) -> list[Any]:
        """The span as in the plan file."""
        return [*self.identity, list(self.bases), int(self.retry)] if self.bases else self.identity

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The chunks' row ranges, in order; the last may be shorter."""
        for first in range(self.first, self.last, self.chunk_rows):
            yield first, min(first + self.chunk_rows, self.last)

    @property
    def chunk_count(self) -> int:
        """The number of chunks."""
        return -(-(self.last - self.first) // self.chunk_rows)

    def cuts(self, first: int, last: int) -> bool:
        """Whether a chunk of this span has exactly these rows."""
        return (
            self.first <= first < self.last
            and (first - self.first) % self.chunk_rows == 0
            and last == min(first + self.chunk_rows, self.last)
        )


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """An input file in a plan.

    ``index`` is its permanent number; ``size``, ``etag``, ``rows``, ``source`` and ``marks`` are those of the
    :class:`~headrace.pipelines.input.corpus.Shard` that was planned. ``spans`` cover rows 0 to :attr:`covered`, each
    once and in order. ``gone`` says that the file is no longer in the input: its part is kept, and nothing more is
    asked about it. ``pruned`` says that it is gone, and its part too.
    """

    index: int
    path: str
    uri: str
    size: int
    etag: str
    rows: int
    spans: tuple[Span, ...] = ()
    gone: bool = False
    pruned: bool = False
    source: str = DEFAULT_SOURCE
    marks: Sequence[Mark] = ()

    @property
    def part_name(self) -> str:
        """The path of the shard's part in the output folder."""
        return part_name(self.index, self.path)

    @property
    def letters_name(self) -> str:
        """The path of the shard's dead letters in the output folder."""
        return letters_name(self.index, self.path)

    @property
    def covered(self) -> int:
        """Planned rows: the first ones of the file, up to this number."""
        return self.spans[-1].last if self.spans else 0

    @property
    def has_part(self) -> bool:
        """Whether the shard has a part; not if a limit leaves the file out completely."""
        return bool(self.spans) or self.rows == 0

    def chunks(self) -> Iterator[Chunk]:
        """The chunks, in the order of their rows."""
        for span in self.spans:
            for first, last in span.ranges():
                yield Chunk(span.plan, self.index, self.path, first, last, span.bases, span.retry)

    @property
    def chunk_count(self) -> int:
        """The number of chunks that :meth:`chunks` returns."""
        return sum(span.chunk_count for span in self.spans)

    def chunks_before(self) -> list[int]:
        """For each span, the number of chunks in the spans before it; for :meth:`place`, which is called often."""
        return list(accumulate((span.chunk_count for span in self.spans[:-1]), initial=0))

    def place(self, plan: int, first: int, last: int, before: Sequence[int]) -> int | None:
        """The index in :meth:`chunks` of the chunk with these rows that plan number ``plan`` cut; None if there is
        none.

        ``before`` is the result of :meth:`chunks_before`: a shard may have thousands of spans, and as many lookups.
        """
        at = bisect_right(self.spans, first, key=lambda span: span.first) - 1
        if at < 0 or self.spans[at].plan != plan or not self.spans[at].cuts(first, last):
            return None
        return before[at] + (first - self.spans[at].first) // self.spans[at].chunk_rows

    def as_found(self) -> Shard:
        """The file to read, for :class:`~headrace.pipelines.input.reader.ChunkReader`."""
        return Shard(self.path, self.uri, self.size, self.etag, self.rows, self.source, self.marks)


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a worker must know about a plan to commit chunks: small, and the same for all of them.

    ``suffix`` distinguishes the answers of a stage that is not the last (see ``stages``) from the chunk itself.
    ``keyed`` says that the chunk contains a digest of each row (see ``rows.digests``).
    """

    fingerprint: str
    schema: pa.Schema
    suffix: str = ""
    keyed: bool = False

    def name(self, chunk: Chunk) -> str:
        """The path of the file that is committed for ``chunk``, in the output folder."""
        return chunk.file(self.suffix)


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation of an output.

    Attributes:
        number: 1 for the first.
        created: ISO 8601, UTC.
        version: of headrace.
        base: the folder (a URI) that shard paths are relative to.
        pipeline: the pipeline as data, for readers of the file; no decision depends on it.
        fingerprints: by step name, a hash of everything that decides the step's answers.
        schema: of a part: ``_shard``, ``_row``, the ``keep`` columns, the steps' columns.
        keep: input columns that are copied to the output.
        checkpoint_rows: rows in a chunk of the spans that this plan cut.
        limit: rows wanted in total, None for all.
        shards: by index: ``shards[i].index == i``.
        layouts: by name of each model step, the layout of its prompt.
        priors: by step and option, those that were fitted on a sample.
        columns: the output columns of each step.
        key: input columns that identify a row; empty if rows need not be found again.
        reads: input columns that the pipeline reads. Digests are made of them and of ``key``.
        redo: what this plan was asked to recompute: ``changed``, ``all`` or ``errors``, or nothing.
        seeds: what this plan took from another output, if anything: its ``folder``, the ``steps`` whose answers it has,
            and the ``output`` and ``plan`` that they are from.
        command: the ``headrace run`` that made it, for messages; empty if there is none.
    """

    number: int
    created: str
    version: str
    base: str
    pipeline: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    schema: pa.Schema
    keep: tuple[str, ...]
    checkpoint_rows: int
    limit: int | None
    shards: tuple[PlannedShard, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    priors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    redo: str = ""
    seeds: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def name(self) -> str:
        """The plan file's path in the output folder."""
        return plan_name(self.number)

    @property
    def fingerprint(self) -> str:
        """One hash (16 hex digits) over all fingerprints."""
        return hashlib.sha256(json.dumps(sorted(self.fingerprints.items())).encode()).hexdigest()[:16]

    @property
    def info(self) -> CommitInfo:
        """What a worker needs to commit."""
        return CommitInfo(self.fingerprint, self.schema, keyed=bool(self.key))

    @property
    def rows(self) -> int:
        """Planned rows in files that still exist."""
        return sum(shard.covered for shard in self.shards if not shard.gone)

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk of the files that still exist, shard by shard."""
        for shard in self.shards:
            if not shard.gone:
                yield from shard.chunks()


def part_schema(keep: Sequence[pa.Field], steps: Sequence[pa.Field]) -> pa.Schema:
    """The schema of a part: ``_shard`` and ``_row`` identify the input row, then ``keep``, then the steps.

    Raises:
        UserError: a duplicate column name, or one that headrace reserves.
    """
    taken = {"_shard", "_row", "_outcome", "_error", "_step", "_class", "_rule", "_reason", "_raw", "_tries"}
    for column in keep:
        if column.name in taken:
            raise UserError(
                f"keep: the input's column {column.name!r} is a duplicate, or has a name that headrace reserves. "
                "Remove it from keep, or rename it in the input."
            )
        taken.add(column.name)
    for column in steps:
        if column.name in taken:
            raise UserError(
                f"The step column {column.name!r} is a duplicate, or has the name of a kept input column. Rename the "
                "step, or remove the input column from keep."
            )
        taken.add(column.name)
    columns = [column.remove_metadata() for column in (*keep, *steps)]
    return pa.schema([pa.field("_shard", pa.string()), pa.field("_row", pa.int64()), *columns])
