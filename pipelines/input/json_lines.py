"""JSON Lines: one object per line, plain or compressed.

Planning reads a file once, for its columns and rows. In a plain file reading starts near the requested row, in a
compressed one at the beginning; consecutive ranges are one pass. Each line that is not blank is a row, and a bad row if
it is not a JSON object. As in Python, ``NaN`` and ``Infinity`` are numbers, and the last of several equal keys in an
object counts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.file_source import FileSource
from headrace.pipelines.input.files import BUFFER_BYTES, InputFile
from headrace.pipelines.input.json_types import Columns, as_typed
from headrace.pipelines.input.rows import Rows, from_python
from headrace.pipelines.input.scans import Description

MARK_BYTES = 16 << 20
"""Bytes between the places where reading can begin: four calls to an object store, and some milliseconds to skip."""

MOST_LINE_BYTES = 64 << 20
"""Longer lines are bad rows. BigQuery accepts 100 MB, DuckDB 16 MiB."""

BATCH_ROWS = 1024
"""Maximum rows in a piece."""

BATCH_BYTES = 16 << 20
"""A piece is full once its lines have this many bytes."""

CODECS = {".gz": "gzip", ".zst": "zstd"}

BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line that is not blank: its number from 1, the offset of its first byte, and its bytes (None if too long)."""

    number: int
    offset: int
    text: bytes | None


class BadLine(Exception):
    """A line that is not a row. The message is the rest of a sentence after "line 7 of the input file ..."."""


class JsonLines(FileSource):
    """Files with a JSON object on each line.

    A column's type holds the values of all lines of a file; if no type does, the column is text. A mark is a row, the
    offset of its line, and the number of lines before that.
    """

    name = "jsonl"
    suffixes = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst")
    scans = True
    absent_is_null = True

    def describe(self, file: InputFile) -> Description:
        columns = Columns()
        marks: list[tuple[int, int, int]] = []
        rows = bad = number = 0
        first_bad = ""
        try:
            with _opened(file) as stream:
                for number, offset, text in _lines(stream):
                    if offset >= MARK_BYTES * (len(marks) + 1):
                        marks.append((rows, offset, number - 1))
                    rows += 1
                    try:
                        columns.see(_parsed(text))
                    except BadLine as problem:
                        bad += 1
                        first_bad = first_bad or f"line {number} {problem}"
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(f"is damaged or truncated after line {number}: {error}") from error
        if rows and rows == bad:
            raise ValueError(f"has no line that is a JSON object: {first_bad}")
        schema, notes = columns.schema()
        if bad:
            notes = (f"{bad:,} of {rows:,} lines are not rows and become dead letters; {first_bad}", *notes)
        return Description(schema, rows, () if _codec(file) else tuple(marks), notes)

    def problem(self, file: InputFile, error: Exception) -> str:
        return str(error) if isinstance(error, ValueError) else f"cannot be read: {error}"

    def read(self, shard: Shard, columns: pa.Schema, first: int, at_once: int) -> Iterator[Rows]:
        row, offset, before = shard.mark_before(first) or (0, 0, 0)
        most = min(at_once, BATCH_ROWS)
        with _opened(InputFile.of(shard), offset) as stream:
            values: list[dict[str, Any]] = []
            bad: dict[int, str] = {}
            size = 0
            for number, _, text in _lines(stream, offset, before):
                row += 1
                if row <= first:
                    continue
                try:
                    values.append(_parsed(text))
                except BadLine as problem:
                    bad[len(values)] = f"line {number} of the input file {shard.path!r} {problem}"
                    values.append({})
                size += len(text or b"")
                if len(values) == most or size >= BATCH_BYTES:
                    yield _rows(values, columns, bad)
                    values, bad, size = [], {}, 0
            if values:
                yield _rows(values, columns, bad)


def _rows(values: list[dict[str, Any]], columns: pa.Schema, bad: dict[int, str]) -> Rows:
    found = from_python(values, columns, as_typed)
    return Rows(found.table, {**found.bad, **bad})


def _codec(file: InputFile) -> str | None:
    return next((codec for suffix, codec in CODECS.items() if file.path.endswith(suffix)), None)


@contextmanager
def _opened(file: InputFile, offset: int = 0) -> Iterator[BinaryIO]:
    """The lines' bytes from ``offset`` on, which is 0 for a compressed file."""
    with ExitStack() as stack:
        stream = stack.enter_context(file.open(BUFFER_BYTES))
        if (codec := _codec(file)) is not None:
            plain = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)
            yield cast(BinaryIO, stack.enter_context(io.BufferedReader(plain, BUFFER_BYTES)))
            return
        stream.seek(offset)
        yield stream


def _lines(stream: BinaryIO, offset: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines that are not blank, of a stream at ``offset``, with ``number`` lines before it."""
    while text := stream.readline(MOST_LINE_BYTES):
        start, number = offset, number + 1
        offset += len(text)
        if len(text) == MOST_LINE_BYTES and not text.endswith(b"\n"):
            while rest := stream.readline(BUFFER_BYTES):
                offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield Line(number, start, None)
        elif not text.isspace():
            yield Line(number, start, text.removeprefix(BOM) if start == 0 else text)


_BLANKS = " \t\r\n"
_DECODER = json.JSONDecoder()


def _parsed(text: bytes | None) -> dict[str, Any]:
    """The object on a line.

    Raises:
        BadLine: it is not an object.
    """
    if text is None:
        raise BadLine(f"is longer than {MOST_LINE_BYTES >> 20} MiB")
    try:
        line = text.decode().rstrip(_BLANKS)
        value, end = _DECODER.raw_decode(line, len(line) - len(line.lstrip(_BLANKS)))
    except json.JSONDecodeError as error:
        raise BadLine(f"is not JSON: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise BadLine(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadLine(f"cannot be read: {error}") from error
    except RecursionError as error:
        raise BadLine("is nested too deeply") from error
    if end < len(line):
        raise BadLine(f"is not JSON: more text after the value at column {end + 1}")
    if not isinstance(value, dict):
        raise BadLine(f"is JSON, but not an object: it begins with {text[:20]!r}")
    return value
