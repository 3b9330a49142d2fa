"""The statistics in Parquet footers, read in a process of their own.

pyarrow ends its process when it is asked for the column of a footer with certain flipped bits (an exception of its C++
side that nobody catches). So whoever has reason to doubt a footer lets another process look.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

FOOTER_END = 8
"""Bytes behind a footer: its length and the mark of the format."""

_LENGTH = struct.Struct("<I")


class Statistics(NamedTuple):
    """What a footer says about a column of a row group. ``least`` and ``largest`` are None unless they are numbers,
    texts or truth values; ``nulls`` is None if it does not say."""

    column: str
    nulls: int | None
    least: Any
    largest: Any


class StatisticsReader:
    """A process that reads statistics; it is started again when a footer has ended it. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StatisticsReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def of(self, file: BinaryIO) -> list[list[Statistics]] | None:
        """The statistics of each row group of a Parquet file; None if the footer cannot be read."""
        footer = _footer(file)
        if footer is None:
            return None
        with self._lock:
            answer = self._ask(footer)
        if answer is None:
            return None
        return [[Statistics(*column) for column in group] for group in answer]

    def _ask(self, footer: bytes) -> list[list[list[Any]]] | None:
        if self._process is None:
            command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(_LENGTH.pack(len(footer)) + footer)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self._end()
            return None
        answer: list[list[list[Any]]] | None = json.loads(line)
        return answer

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _footer(file: BinaryIO) -> bytes | None:
    """A footer with its end; None if there is none."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - FOOTER_END))
    end = file.read(FOOTER_END)
    length = _LENGTH.unpack(end[:4])[0] if len(end) == FOOTER_END else size
    if length + FOOTER_END > size:
        return None
    file.seek(size - FOOTER_END - length)
    return file.read(length) + end


def serve() -> None:
    """Answer footers from standard input with a line of JSON each, until it ends."""
    while head := sys.stdin.buffer.read(_LENGTH.size):
        footer = sys.stdin.buffer.read(_LENGTH.unpack(head)[0])
        try:
            answer = _statistics(footer)
        except (OSError, ValueError):
            answer = None
        print(json.dumps(answer), flush=True)


def _statistics(footer: bytes) -> list[list[Statistics]]:
    import pyarrow.parquet as pq

    read = pq.read_metadata(io.BytesIO(b"PAR1" + footer))
    return [
        [_of_column(read.row_group(group).column(at)) for at in range(read.num_columns)]
        for group in range(read.num_row_groups)
    ]


def _of_column(column: Any) -> Statistics:
    said = column.statistics if column.is_stats_set else None
    if said is None:
        return Statistics(column.path_in_schema, None, None, None)
    ends = (said.min, said.max) if said.has_min_max else (None, None)
    plain = all(isinstance(value, bool | int | str) for value in ends)
    least, largest = ends if plain else (None, None)
    return Statistics(column.path_in_schema, said.null_count if said.has_null_count else None, least, largest)
