"""Looking at an output for a report: all of its answers, or a sample of those of a large one, a piece at a time.

A sample is of :data:`PLACES` windows of consecutive input rows, at equal distances over all planned rows from a random
start. Of each window all rows are taken that were answered, so each answered row is as likely as any other to be seen.
Memory is that of a few batches, whatever the size of the output.
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
from headrace.pipelines.output.plan import Plan, PlannedShard
from headrace.pipelines.report.figures import Seen, Tally, Wanted, wanted_columns
from headrace.pipelines.storage.store import Store
from headrace.pipelines.storage.threads import each

MOST_ROWS = 1 << 20
"""Planned rows up to which all of an output is looked at, and that a sample of a larger one has."""

MOST_PARTS = 256
"""Parts up to which all of an output is looked at."""

PLACES = 64
"""Windows of a sample. For each a row group or two are decoded, so a sample costs as much as ten million rows."""

WINDOW = MOST_ROWS // PLACES

PIECE_ROWS = 1 << 17
"""Planned rows that a thread takes at once where all are looked at."""

BATCH_ROWS = 4096
"""Rows that are held at once by a thread."""

RANDOM_ROWS = LEAST_SURE_ROWS = 10
"""Rows that a report shows."""


@dataclass(frozen=True, slots=True)
class Window:
    """Input rows ``first`` to ``last`` (exclusive) of a shard whose part is looked at."""

    shard: PlannedShard
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Picked:
    """A row that is shown: where it is, its answers by column, their confidences, and the lowest of these."""

    shard: int
    path: str
    row: int
    answers: dict[str, Any]
    confidences: dict[str, Any]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of a look: the figures, some random rows, and those that the model was least sure of."""

    seen: Seen
    random: tuple[Picked, ...] = ()
    least_sure: tuple[Picked, ...] = ()


@dataclass(slots=True)
class _Piece:
    """What one window adds; pieces add up."""

    tallies: list[Tally]
    rows: int = 0
    random: list[tuple[float, str, int, Picked]] = field(default_factory=list)
    unsure: list[tuple[float, str, int, Picked]] = field(default_factory=list)

    def merge(self, other: _Piece) -> None:
        self.rows += other.rows
        for mine, theirs in zip(self.tallies, other.tallies, strict=True):
            mine.merge(theirs)
        self.random = heapq.nsmallest(RANDOM_ROWS, [*self.random, *other.random])
        self.unsure = heapq.nsmallest(LEAST_SURE_ROWS, [*self.unsure, *other.unsure])


def look(store: Store, plan: Plan, *, only_plan: int | None = None, rows: bool = True) -> Looked:
    """Look at the published parts of an output.

    Args:
        only_plan: only rows that were asked in this generation.
        rows: pick rows to show, too.

    Raises:
        OSError, pyarrow.ArrowException: a part cannot be read.
    """
    there = set(store.names())
    shards = [shard for shard in plan.shards if shard.part_name in there and not shard.pruned]
    windows, planned, whole = windows_of(shards, only_plan, seed=f"{plan.fingerprint}-{plan.number}")
    wanted = wanted_columns(plan.schema, plan.pipeline, plan.columns)
    total = _Piece([Tally(column) for column in wanted])
    fingerprint = plan.fingerprint
    for piece in each(lambda window: _look_at(store, window, fingerprint, wanted, rows), windows, "report"):
        total.merge(piece)
    seen = Seen(
        total.rows,
        planned,
        len(windows) if not whole else len(shards),
        whole,
        {tally.wanted.name: tally.seen() for tally in total.tallies},
    )
    return Looked(seen, *(tuple(picked for *_, picked in found) for found in (total.random, total.unsure)))


def windows_of(shards: Collection[PlannedShard], only_plan: int | None, *, seed: str) -> tuple[list[Window], int, bool]:
    """What to look at, how many planned rows there are, and whether that is all of them."""
    ranges = [
        Window(shard, span.first, span.last)
        for shard in shards
        for span in shard.spans
        if only_plan is None or span.plan == only_plan
    ]
    planned = sum(part.last - part.first for part in ranges)
    if planned <= MOST_ROWS and len(shards) <= MOST_PARTS:
        pieces = [
            Window(part.shard, first, min(first + PIECE_ROWS, part.last))
            for part in ranges
            for first in range(part.first, part.last, PIECE_ROWS)
        ]
        return pieces, planned, True
    distance = planned / PLACES
    # No secret is drawn: the same output gives the same report.
    at = random.Random(seed).random() * distance
    size = min(WINDOW, max(1, int(distance)))
    found: list[Window] = []
    before = 0
    for part in ranges:
        length = part.last - part.first
        while at < before + length and len(found) < PLACES:
            first = part.first + int(at - before)
            found.append(Window(part.shard, first, min(first + size, part.last)))
            at += distance
        before += length
    return found, planned, False


def _look_at(store: Store, window: Window, fingerprint: str, wanted: Sequence[Wanted], rows: bool) -> _Piece:
    piece = _Piece([Tally(column) for column in wanted])
    answers = [name for column in wanted for name in (column.name, column.shown.confidence) if name]
    dice = random.Random(f"{window.shard.path}-{window.first}")
    for table in _tables(store, window, fingerprint, list(dict.fromkeys(("_row", *answers)))):
        piece.rows += table.num_rows
        for tally in piece.tallies:
            tally.add(table)
        if rows and table.num_rows:
            _pick(piece, window.shard, table, wanted, dice)
    return piece


def _tables(store: Store, window: Window, fingerprint: str, columns: list[str]) -> Iterator[pa.Table]:
    """The window's rows, as far as they are in its part, and were answered by this pipeline."""
    with store.open(window.shard.part_name) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        said = json.loads((file.metadata.metadata or {}).get(RECORD_KEY, b"{}"))
        if said.get("fingerprint") != fingerprint:
            return  # an earlier generation's, until this one's is there
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata, group, window):
                continue
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                # A name with a dot brings others along that begin alike.
                table = pa.Table.from_batches([batch]).select(columns)
                rows = table["_row"]
                inside = pc.and_(pc.greater_equal(rows, window.first), pc.less(rows, window.last))
                if (found := table.filter(inside)).num_rows:
                    yield found


def _may_hold(footer: pq.FileMetaData, group: int, window: Window) -> bool:
    at = footer.schema.to_arrow_schema().get_field_index("_row")
    statistics = footer.row_group(group).column(at).statistics if at == 1 else None
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min < window.last and statistics.max >= window.first)


def _pick(
    piece: _Piece,
    shard: PlannedShard,
    table: pa.Table,
    wanted: Sequence[Wanted],
    dice: random.Random,
) -> None:
    one_each = (column.shown.confidence for column in wanted if not pa.types.is_list(column.type))
    lowest = _lowest(table, [name for name in one_each if name])
    keys = [dice.random() for _ in range(table.num_rows)]
    for i in heapq.nsmallest(RANDOM_ROWS, range(table.num_rows), key=keys.__getitem__):
        if len(piece.random) < RANDOM_ROWS or keys[i] < piece.random[-1][0]:
            picked = _picked(shard, table, i, wanted, lowest)
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
            picked = _picked(shard, table, i, wanted, lowest)
            # Equal confidences (there are many, of equal documents) are told apart by the place.
            piece.unsure = heapq.nsmallest(LEAST_SURE_ROWS, [*piece.unsure, (sure, picked.path, picked.row, picked)])


def _lowest(table: pa.Table, confidences: list[str]) -> pa.Array | None:
    """Each row's lowest confidence; None where no column has any."""
    if not confidences:
        return None
    columns = [pc.cast(table[name].combine_chunks(), pa.float64()) for name in confidences]
    return pc.min_element_wise(*columns, skip_nulls=True)


def _picked(shard: PlannedShard, table: pa.Table, i: int, wanted: Sequence[Wanted], lowest: pa.Array | None) -> Picked:
    row = table.slice(i, 1)
    answers = {column.name: plain_value(row[column.name][0]) for column in wanted}
    sure = {column.name: plain_value(row[named][0]) for column in wanted if (named := column.shown.confidence)}
    lowest_here = None if lowest is None else lowest[i].as_py()
    return Picked(shard.index, shard.path, row["_row"][0].as_py(), answers, sure, lowest_here)
