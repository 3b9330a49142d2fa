"""Rows of a damaged Parquet column: those of its sound pages, and which rows the others held.

pyarrow reads a column chunk from its beginning and gives up at the first page that is damaged. Here its page headers
are walked (where a page has a checksum it is verified), and Polars, which skips the pages that it is not asked for,
reads the sound ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

DAMAGE = (OSError, pa.ArrowException, ValueError, ArithmeticError, RuntimeError, MemoryError, TypeError, SystemError)
"""What pyarrow may raise over bytes that are not what they should be."""

_DICTIONARY_PAGE = 2

_MOST_FIELDS, _MOST_DEPTH = 64, 8


@dataclass(frozen=True, slots=True)
class Page:
    """A data page: the rows of the file that it holds (the last exclusive), and whether its checksum is right."""

    first: int
    last: int
    sound: bool


@dataclass(frozen=True, slots=True)
class Rescued:
    """A row range of a column: values, with null for the rows that are lost, and these rows as ranges."""

    values: pa.ChunkedArray
    lost: tuple[tuple[int, int], ...]


def rescue(path: Path, column: str, kind: pa.DataType, first: int, last: int) -> Rescued:
    """Rows ``first`` to ``last`` (exclusive) of a column, as far as its pages are sound.

    Raises:
        OSError: the file itself cannot be read.
    """
    pieces: list[pa.ChunkedArray] = []
    lost: list[tuple[int, int]] = []
    at = first

    def give_up(until: int) -> None:
        if at < until:
            lost.append((at, until))
            pieces.append(pa.chunked_array([pa.nulls(until - at, kind)]))

    with open(path, "rb") as file:
        for page in _pages(file, column, first, last):
            begin, end = max(page.first, at), min(page.last, last)
            found = _read(path, column, kind, begin, end) if page.sound and begin < end else None
            if found is not None:
                give_up(begin)
                pieces.append(found)
                at = end
    give_up(last)
    return Rescued(pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], kind), tuple(lost))


def _read(path: Path, column: str, kind: pa.DataType, first: int, last: int) -> pa.ChunkedArray | None:
    import polars as pl

    try:
        rows = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(pl.col(column))
        values = rows.slice(first, last - first).collect().to_arrow().column(0).cast(kind)
    except (*DAMAGE, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return values if len(values) == last - first else None


def _pages(file: BinaryIO, column: str, first: int, last: int) -> Iterator[Page]:
    """The data pages of a flat column, in the row groups that hold rows of a range; none of one that is nested."""
    try:
        footer = pq.read_metadata(file)
    except DAMAGE:
        return
    index = next((i for i in range(footer.num_columns) if footer.schema.column(i).path == column), None)
    if index is None or footer.schema.column(index).max_repetition_level:
        return
    start = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        if start < last and first < start + group.num_rows:
            yield from _pages_of(file, group.column(index), start, start + group.num_rows)
        start += group.num_rows


def _pages_of(file: BinaryIO, chunk: Any, first: int, last: int) -> Iterator[Page]:
    offset = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        offset = min(offset, chunk.dictionary_page_offset)
    file.seek(offset)
    data = memoryview(file.read(chunk.total_compressed_size))
    at, readable = 0, True
    while first < last and at < len(data):
        try:
            header, at = _struct(data, at)
            size, kind = header[3], header[1]
            rows = next((header[i][1] for i in (8, 5) if i in header), 0)
        except (IndexError, KeyError, TypeError, ValueError):
            return
        body = data[at : at + size]
        if size < 0 or rows < 0 or len(body) < size:
            return
        sound = 4 not in header or zlib.crc32(body) == header[4] & 0xFFFFFFFF
        at += size
        if kind == _DICTIONARY_PAGE:
            readable = sound  # the pages that follow are numbers of its entries
        elif rows:
            yield Page(first, min(first + rows, last), sound and readable)
            first += rows


# Thrift's compact protocol, as far as a page header needs it.


def _struct(data: memoryview, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A struct's fields by number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    for _ in range(_MOST_FIELDS):
        head = data[at]
        at += 1
        if head == 0:
            return fields, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, head & 15, depth)
    raise ValueError("more fields than a page header has")


def _value(data: memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > _MOST_DEPTH:
        raise ValueError("nested deeper than a page header is")
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"a page header has no field of type {kind}")


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
