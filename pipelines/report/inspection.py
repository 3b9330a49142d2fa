"""Inspecting the answers of an output: all of them, or a sample if there are many.

A sample consists of :data:`PLACES` ranges of consecutive input rows, at equal distances over all planned rows from a
random start. All answered rows of a range are read, so each answered row is equally likely to be in the sample. Memory
use is that of a few batches, whatever the size of the output.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.pipelines.input.rows import plain_value
from headrace.pipelines.output.checkpoint import RECORD_KEY
from headrace.pipelines.output.names import TABLE, listed
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.report.answer_stats import AnswerStats
from headrace.pipelines.report.columns import ReportedColumn, reported_columns
from headrace.pipelines.report.tallies import ColumnTally
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

MOST_ROWS = 1 << 20
"""An output with at most this many planned rows is read completely. A sample of a larger one has this many rows."""

MOST_PARTS = 256
"""An output with more parts is sampled too."""

PLACES = 64
"""Ranges of a sample. For each a row group or two are decoded, so a sample costs as much as ten million rows."""

RANGE_ROWS = MOST_ROWS // PLACES

PIECE_ROWS = 1 << 17
"""Planned rows that a thread takes at once if everything is read."""

BATCH_ROWS = 4096
"""Rows that a thread holds at once."""

RANDOM_ROWS = LEAST_SURE_ROWS = 10
"""Rows that a report shows."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Input rows ``first`` to ``last`` (exclusive) of a shard, whose answers are read from its part."""

    shard: PlannedShard
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class PickedRow:
    """A row for a person to read.

    Attributes:
        shard: index of the input file in the plan; ``path`` is its path.
        answers: by output column.
        confidences: of the answers that have one, by the same names.
        confidence: the lowest of the row's confidences; None if no step has one.
        spans: where the answers' quotes stand in the document: start, end, and the quoted field.
    """

    shard: int
    path: str
    row: int
    answers: dict[str, Any]
    confidences: dict[str, Any]
    confidence: float | None
    spans: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The statistics of an output's answers, some random rows, and the rows that the model was least sure about."""

    stats: AnswerStats
    random: tuple[PickedRow, ...] = ()
    least_sure: tuple[PickedRow, ...] = ()


@dataclass(slots=True)
class _Piece:
    """The contribution of one row range. Pieces are merged."""

    tallies: list[ColumnTally]
    rows: int = 0
    random: list[tuple[float, str, int, PickedRow]] = field(default_factory=list)
    unsure: list[tuple[float, str, int, PickedRow]] = field(default_factory=list)

    def merge(self, other: _Piece) -> None:
        self.rows += other.rows
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)
        self.random = heapq.nsmallest(RANDOM_ROWS, [*self.random, *other.random])
        self.unsure = heapq.nsmallest(LEAST_SURE_ROWS, [*self.unsure, *other.unsure])


def inspect_output(store: Store, plan: Plan, *, only_plan: int | None = None, rows: bool = True) -> Inspection:
    """Inspect the published parts of an output.

    Args:
        only_plan: only rows of this generation.
        rows: also pick rows to show.

    Raises:
        OSError, pyarrow.ArrowException: a part cannot be read.
    """
    there = listed(store, TABLE)
    shards = [shard for shard in plan.shards if shard.part_name in there and not shard.pruned]
    ranges, planned, whole = row_ranges(shards, only_plan, seed=f"{plan.fingerprint}-{plan.number}")
    columns = reported_columns(plan.schema, plan.pipeline, plan.columns)
    total = _Piece([ColumnTally(column) for column in columns])
    fingerprint = plan.fingerprint
    for piece in each(lambda part: _inspect(store, part, fingerprint, columns, rows), ranges, "report"):
        total.merge(piece)
    stats = AnswerStats(
        total.rows,
        planned,
        len(ranges) if not whole else len(shards),
        whole,
        {tally.column.name: tally.stats() for tally in total.tallies},
    )
    return Inspection(stats, *(tuple(picked for *_, picked in found) for found in (total.random, total.unsure)))


def row_ranges(
    shards: Collection[PlannedShard], only_plan: int | None, *, seed: str
) -> tuple[list[RowRange], int, bool]:
    """The row ranges to read, the number of planned rows, and whether the ranges cover all of these."""
    planned_ranges = [
        RowRange(shard, span.first, span.last)
        for shard in shards
        for span in shard.spans
        if only_plan is None or span.plan == only_plan
    ]
    planned = sum(part.last - part.first for part in planned_ranges)
    if planned <= MOST_ROWS and len(shards) <= MOST_PARTS:
        pieces = [
            RowRange(part.shard, first, min(first + PIECE_ROWS, part.last))
            for part in planned_ranges
            for first in range(part.first, part.last, PIECE_ROWS)
        ]
        return pieces, planned, True
    distance = planned / PLACES
    # Nothing secret is drawn: the same output gives the same report.
    at = random.Random(seed).random() * distance
    size = min(RANGE_ROWS, max(1, int(distance)))
    found: list[RowRange] = []
    before = 0
    for part in planned_ranges:
        length = part.last - part.first
        while at < before + length and len(found) < PLACES:
            first = part.first + int(at - before)
            found.append(RowRange(part.shard, first, min(first + size, part.last)))
            at += distance
        before += length
    return found, planned, False


def _inspect(store: Store, part: RowRange, fingerprint: str, columns: Sequence[ReportedColumn], rows: bool) -> _Piece:
    piece = _Piece([ColumnTally(column) for column in columns])
    names = [name for column in columns for name in (column.name, column.shown.confidence, column.shown.spans) if name]
    dice = random.Random(f"{part.shard.path}-{part.first}")
    for table in _tables(store, part, fingerprint, list(dict.fromkeys(("_row", *names)))):
        piece.rows += table.num_rows
        for tally in piece.tallies:
            tally.add(table)
        if rows and table.num_rows:
            _pick(piece, part.shard, table, columns, dice)
    return piece


def _tables(store: Store, part: RowRange, fingerprint: str, columns: list[str]) -> Iterator[pa.Table]:
    """The answered rows of the range; empty if another pipeline made the shard's part."""
    with store.open(part.shard.part_name) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        said = json.loads((file.metadata.metadata or {}).get(RECORD_KEY, b"{}"))
        if said.get("fingerprint") != fingerprint:
            return  # an earlier generation's, until this one's is published
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata, group, part):
                continue
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                # A name with a dot also selects columns that begin alike.
                table = pa.Table.from_batches([batch]).select(columns)
                rows = table["_row"]
                inside = pc.and_(pc.greater_equal(rows, part.first), pc.less(rows, part.last))
                if (found := table.filter(inside)).num_rows:
                    yield found


def _may_hold(footer: pq.FileMetaData, group: int, part: RowRange) -> bool:
    at = footer.schema.to_arrow_schema().get_field_index("_row")
    statistics = footer.row_group(group).column(at).statistics if at == 1 else None
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min < part.last and statistics.max >= part.first)


def _pick(
    piece: _Piece,
    shard: PlannedShard,
    table: pa.Table,
    columns: Sequence[ReportedColumn],
    dice: random.Random,
) -> None:
    one_each = (column.shown.confidence for column in columns if not pa.types.is_list(column.type))
    lowest = _lowest(table, [name for name in one_each if name])
    keys = [dice.random() for _ in range(table.num_rows)]
    for i in heapq.nsmallest(RANDOM_ROWS, range(table.num_rows), key=keys.__getitem__):
        if len(piece.random) < RANDOM_ROWS or keys[i] < piece.random[-1][0]:
            picked = _picked(shard, table, i, columns, lowest)
            piece.random = heapq.nsmallest(RANDOM_ROWS, [*piece.random, (keys[i], picked.path, picked.row, picked)])
    if lowest is None:
        return
    order = pc.select_k_unstable(
        pa.table({"sure": lowest.drop_null(), "at": pa.array(range(table.num_rows)).filter(pc.is_valid(lowest))}),
        LEAST_SURE_ROWS,
        [("sure", "ascending"), ("at", "ascending")],
    )
    places = pc.indices_nonzero(pc.is_valid(lowest)).take(order).to_pylist()
    for i in places:
        sure = lowest[i].as_py()
        if len(piece.unsure) < LEAST_SURE_ROWS or sure < piece.unsure[-1][0]:
            picked = _picked(shard, table, i, columns, lowest)
            # Equal confidences are frequent (equal documents have them), so the place decides between those.
            piece.unsure = heapq.nsmallest(LEAST_SURE_ROWS, [*piece.unsure, (sure, picked.path, picked.row, picked)])


def _lowest(table: pa.Table, confidences: list[str]) -> pa.Array | None:
    """Each row's lowest confidence; None if no column has any."""
    if not confidences:
        return None
    columns = [pc.cast(table[name].combine_chunks(), pa.float64()) for name in confidences]
    return pc.min_element_wise(*columns, skip_nulls=True)


def _picked(
    shard: PlannedShard, table: pa.Table, i: int, columns: Sequence[ReportedColumn], lowest: pa.Array | None
) -> PickedRow:
    row = table.slice(i, 1)
    answers = {column.name: plain_value(row[column.name][0]) for column in columns}
    sure = {column.name: plain_value(row[named][0]) for column in columns if (named := column.shown.confidence)}
    least = None if lowest is None else lowest[i].as_py()
    spans = tuple(_spans(row, columns))
    return PickedRow(shard.index, shard.path, row["_row"][0].as_py(), answers, sure, least, spans)


def _spans(row: pa.Table, columns: Sequence[ReportedColumn]) -> Iterator[tuple[int, int, str]]:
    for column in columns:
        for span in (row[column.shown.spans][0].as_py() or ()) if column.shown.spans else ():
            path = span["path"]
            dot = "." if path and not path.startswith("[") else ""
            yield span["start"], span["end"], f"{column.name}{dot}{path}"
