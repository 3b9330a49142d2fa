"""Writing parts: the rows of committed chunks, merged into row groups of a useful size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from headrace.pipelines.input.arrow_types import fit
from headrace.pipelines.output.checkpoint import ANSWERED, letters_of, parquet_writer
from headrace.pipelines.output.damaged import opened
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.storage.store import Store

GROUP_ROWS = 131_072
GROUP_BYTES = 64 << 20
"""A row group of a part is closed at this many rows or bytes: large enough to scan, small enough to hold in memory."""

READ_AHEAD = 8
"""Chunks read concurrently for a part: in an object store each takes two calls of some tens of milliseconds."""


def part_writer(
    schema: pa.Schema,
    metadata: Mapping[bytes, bytes],
    tables: Callable[[], Iterable[pa.Table]],
    check: Callable[[], None],
) -> Callable[[BinaryIO], None]:
    """A function that writes what ``tables()`` yields, a row group at a time.

    Args:
        metadata: of the file.
        check: called last; if it raises, the file is not written.
    """

    def write(file: BinaryIO) -> None:
        with parquet_writer(file, schema) as writer:
            for group in grouped(tables()):
                writer.write_table(group, row_group_size=GROUP_ROWS)
            writer.add_key_value_metadata(metadata)
        check()

    return write


def grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, merged until a row group is full."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(held)


def answered_rows(store: Store, schema: pa.Schema, chunks: Iterable[Chunk]) -> Iterator[pa.Table]:
    """The answered rows of committed chunks, with a part's ``schema``."""
    for table in _tables(store, chunks, [*schema.names, "_outcome"]):
        yield fit(table.filter(pc.equal(table["_outcome"], ANSWERED)), schema)


def dead_rows(store: Store, schema: pa.Schema, chunks: Iterable[Chunk]) -> Iterator[pa.Table]:
    """The dead rows of committed chunks, with the ``schema`` of a file in ``_errors/``."""
    for table in _tables(store, chunks, None):
        yield fit(letters_of(table), schema)


def _tables(store: Store, chunks: Iterable[Chunk], columns: list[str] | None) -> Iterator[pa.Table]:
    def read(chunk: Chunk) -> pa.Table:
        with opened(store, chunk.name) as file:
            return file.read(columns=columns, use_threads=False)

    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="chunks") as pool:
        coming: deque[Future[pa.Table]] = deque()
        for chunk in chunks:
            coming.append(pool.submit(read, chunk))
            if len(coming) == READ_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
