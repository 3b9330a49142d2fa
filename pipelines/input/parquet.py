"""Parquet files: described by their footers and read in a stream. Of a damaged row group, the rows before the damage.

Memory is that of the requested rows, however large the row groups are.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.pipelines.input.arrow_types import kept_type
from headrace.pipelines.input.corpus import DEFAULT_SOURCE, Shard
from headrace.pipelines.input.cursor import Cursor
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.files import InputFile, check_unchanged
from headrace.pipelines.input.rows import Rows
from headrace.pipelines.input.scans import Description
from headrace.pipelines.input.wording import quoted
from headrace.pipelines.spec.errors import StorageUnavailable, UserError

BATCH_BYTES = 16 << 20
"""Decoded bytes of one batch that a reader aims at, in addition to the requested rows."""

BATCH_ROWS = 1024
"""Maximum rows in a batch, for columns whose dictionary encoding hides how large they decode."""

BLOCK_ROWS = 64
"""Batches have a multiple of this many rows, and one block if a row group is damaged. So no more rows than these are
lost before the damage, and always the same ones, whatever is requested."""

BUFFER_BYTES = 1 << 20
"""Read-ahead for each column. With it a column chunk is streamed instead of loaded as a whole."""

OBJECT_BUFFER_BYTES = 4 << 20
"""The same in an object store, where each read is a call."""

REMEMBERED = 64
"""Files whose row groups are cached, and schemas: the most recent ones."""

DAMAGE = (OSError, pa.ArrowException, ValueError, ArithmeticError, RuntimeError, MemoryError, TypeError, SystemError)
"""What pyarrow may raise for invalid bytes."""


class Parquet(FileSource):
    """Parquet files. Page checksums are verified if a file has them."""

    name = DEFAULT_SOURCE
    suffixes = (".parquet",)

    def __init__(self) -> None:
        self._starts: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._schemas: list[tuple[pa.lib.Schema, bytes | None, pa.Schema]] = []
        self._lock = Lock()

    def describe(self, file: InputFile) -> Description:
        with _opened(file) as parquet:
            footer = parquet.metadata
            return Description(self._schema(footer, file), footer.num_rows)

    def problem(self, file: InputFile, error: Exception) -> str:
        with file.open(0) as opened:
            head = opened.read(4)
            size = opened.seek(0, os.SEEK_END)
            opened.seek(-min(4, size), os.SEEK_END)
            tail = opened.read(4)
        if not head:
            return "is empty: 0 bytes, not even a Parquet footer"
        if head == b"PARE":
            return "is encrypted Parquet, which is not supported"
        if head != b"PAR1":
            hint = "" if file.path.endswith(self.suffixes) else ". A file of JSON Lines must be named .jsonl"
            return f"is not a Parquet file: it begins with {head!r}{hint}"
        if tail != b"PAR1":
            return "is truncated: it begins as Parquet, but has no footer"
        return f"has a damaged Parquet footer: {error}"

    def start(self, shard: Shard, row: int) -> int:
        starts = self._starts.get((shard.uri, shard.etag), [0])
        return starts[bisect_right(starts, row) - 1]

    def read(self, shard: Shard, columns: pa.Schema, first: int, at_once: int) -> Iterator[Rows]:
        file = InputFile.of(shard)
        with _opened(file) as parquet:
            footer = parquet.metadata
            sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            starts = list(accumulate(sizes, initial=0))
            self._remember(shard, starts)
            for group in range(bisect_right(starts, first) - 1, footer.num_row_groups):
                rows = self._row_group(parquet, shard, group, starts, columns.names, at_once)
                yield from _without(rows, first - starts[group])

    def _row_group(
        self, parquet: pq.ParquetFile, shard: Shard, group: int, starts: list[int], names: list[str], at_once: int
    ) -> Iterator[Rows]:
        """A row group: as a whole up to the first damage, then column by column."""
        promised = starts[group + 1] - starts[group]
        done = 0
        batch_rows = _batch_rows(parquet.metadata.row_group(group), at_once)
        try:
            # One row group: pyarrow cannot decode a nested dictionary column across two in one batch.
            for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False):
                # With more columns than were asked for, maybe: one named "a.b" comes along with one named "a".
                table = pa.table({name: batch.column(name) for name in names}).slice(0, promised - done)
                done += table.num_rows
                yield Rows(table)
        except DAMAGE as error:
            _see_that_it_is_damage(shard, error)
        if done < promised:
            yield from _without(_damaged(parquet.metadata, shard, group, starts, names), done)

    def _remember(self, shard: Shard, starts: list[int]) -> None:
        with self._lock:
            self._starts[shard.uri, shard.etag] = starts
            self._starts.move_to_end((shard.uri, shard.etag))
            while len(self._starts) > REMEMBERED:
                self._starts.popitem(last=False)

    def _schema(self, footer: pq.FileMetaData, file: InputFile) -> pa.Schema:
        """The columns of a file; the same object for files of one kind, because there may be a million."""
        written = (footer.metadata or {}).get(b"ARROW:schema")
        known = list(self._schemas)
        for like, seen, schema in reversed(known):
            if written == seen and footer.schema.equals(like):
                return schema
        schema = _plain_schema(footer.schema, file)
        with self._lock:
            self._schemas = [*self._schemas[1 - REMEMBERED :], (footer.schema, written, schema)]
        return schema


def _opened(file: InputFile, **options: Any) -> pq.ParquetFile:
    # Checksums are verified where the file has them: a flipped bit is an error then, and not an odd text.
    local = file.local
    return pq.ParquetFile(
        local or file.open(0),
        buffer_size=BUFFER_BYTES if local else OBJECT_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
        **options,
    )


def _without(pieces: Iterator[Rows], rows: int) -> Iterator[Rows]:
    """Rows without the first ``rows`` of them."""
    for piece in pieces:
        if rows <= 0:
            yield piece
        elif rows < piece.table.num_rows:
            bad = {row - rows: why for row, why in piece.bad.items() if row >= rows}
            yield Rows(piece.table.slice(rows), bad)
        rows -= piece.table.num_rows


def _damaged(footer: pq.FileMetaData, shard: Shard, group: int, starts: list[int], names: list[str]) -> Iterator[Rows]:
    """A row group with a damaged column: each column up to its damage, followed by nulls."""
    rows = starts[group + 1] - starts[group]
    columns = {name: Cursor(_column(footer, shard, group, starts, name), 0) for name in names}
    try:
        for first in range(0, rows, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, rows)
            found = {name: cursor.read(first, last) for name, cursor in columns.items()}
            bad: dict[int, str] = {}
            for cells in found.values():
                bad = {**cells.bad, **bad}
            yield Rows(pa.table({name: cells.table.column(0) for name, cells in found.items()}), bad)
    finally:
        for cursor in columns.values():
            cursor.close()


def _column(footer: pq.FileMetaData, shard: Shard, group: int, starts: list[int], name: str) -> Iterator[Rows]:
    """A column of a row group up to its damage, if any, followed by nulls."""
    rows = starts[group + 1] - starts[group]
    done = 0
    with _opened(InputFile.of(shard), metadata=footer) as parquet:
        kind = parquet.schema_arrow.field(name).type
        block = _block_rows(footer.row_group(group))
        batches = parquet.iter_batches(block, row_groups=[group], columns=[name], use_threads=False)
        why = f"the row group ends there, but its footer promises {rows} rows"
        try:
            for batch in batches:
                cells = batch.column(name).slice(0, rows - done)
                done += len(cells)
                yield Rows(pa.table({name: cells}))
        except DAMAGE as error:
            _see_that_it_is_damage(shard, error)
            why = str(error)
    if done == rows:
        return
    first, end = starts[group] + done, starts[group + 1]
    said = (
        f"rows {first} to {end - 1} of the column {name!r} of the input file {shard.path!r} ({shard.uri}) cannot be "
        f"read: {why}"
    )
    for at in range(done, rows, BATCH_ROWS):
        lost = min(BATCH_ROWS, rows - at)
        yield Rows(pa.table({name: pa.nulls(lost, kind)}), dict.fromkeys(range(lost), said))


def _see_that_it_is_damage(shard: Shard, error: BaseException) -> None:
    """Raise errors that are not damage: failures of the disk or the network, which may pass, and changed files."""
    if isinstance(error, OSError) and (isinstance(error, StorageUnavailable) or error.errno is not None):
        raise error
    check_unchanged(shard)


def _block_rows(group: pq.RowGroupMetaData) -> int:
    """Rows per block: ``BLOCK_ROWS``, or fewer if these have more than about ``BATCH_BYTES``."""
    return max(1, min(BLOCK_ROWS, _most_rows(group)))


def _batch_rows(group: pq.RowGroupMetaData, wanted: int) -> int:
    """Rows per batch, in whole blocks: not many more than requested, and than about ``BATCH_BYTES``."""
    block = _block_rows(group)
    return max(1, min(wanted, BATCH_ROWS, _most_rows(group)) // block) * block


def _most_rows(group: pq.RowGroupMetaData) -> int:
    row_bytes: float = max(group.total_byte_size / max(group.num_rows, 1), 1.0)
    return math.floor(BATCH_BYTES / row_bytes)


def _plain_schema(parquet_schema: pa.lib.Schema, file: InputFile) -> pa.Schema:
    """A file's schema without its writer's metadata, which would be wrong for our output."""
    try:
        schema = parquet_schema.to_arrow_schema().remove_metadata()
    except pa.ArrowException as error:
        raise UserError(f"The input file {file.path!r} ({file.uri}) has columns of unknown type: {error}.") from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise UserError(
            f"The input file {file.path!r} ({file.uri}) has more than one column named {quoted(twice)}. "
            "Write it again with distinct names."
        )
    return pa.schema([pa.field(field.name, kept_type(field.type)) for field in schema])
