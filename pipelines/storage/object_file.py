"""An object as a file: seekable, read by ranges, with only the requested bytes and a little more in memory."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any, BinaryIO, cast

from headrace.pipelines.storage.objects import Object, Objects

TAIL_BYTES = 64 << 10
"""Bytes of the first read, from the end. They contain the footers of most Parquet files."""

WHOLE_BYTES = 1 << 20
"""Smaller objects are read as a whole: most of their bytes are needed after the footer."""

AHEAD_BYTES = 256 << 10
"""Minimum bytes of a small read, because the bytes beside it are needed next."""

PIECE_BYTES = 16 << 20
"""A large read consists of several reads of this size, each of which can fail and be retried separately."""

KEPT_PIECES = 4


def open_object(objects: Objects, key: str) -> BinaryIO:
    """The object at ``key`` as it is now. It can be read until it changes.

    Raises:
        FileNotFoundError: there is none.
    """
    found, tail = objects.tail(key, TAIL_BYTES)
    return cast(BinaryIO, ObjectFile(objects, found, tail))


class ObjectFile(io.RawIOBase):
    """A file to read from. Not for two threads at once; pyarrow ensures that itself.

    Reading raises :class:`~headrace.pipelines.storage.objects.ObjectChanged` if the object is no longer ``found``.
    """

    def __init__(self, objects: Objects, found: Object, tail: bytes = b"") -> None:
        self._objects = objects
        self._found = found
        self._tail = tail
        self._position = 0
        self._pieces: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        if self.closed:
            raise ValueError("read of a closed file")
        end = self._found.size if size is None or size < 0 else min(self._found.size, self._position + size)
        if end <= self._position:
            return b""
        content = self._range(self._position, end)
        self._position = end
        return content

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._pieces.clear()
        self._tail = b""
        super().close()

    def _range(self, first: int, last: int) -> bytes:
        size = self._found.size
        for start, piece in ((size - len(self._tail), self._tail), *self._pieces.items()):
            if start <= first and last <= start + len(piece):
                return piece[first - start : last - start]
        if size <= WHOLE_BYTES:
            return self._kept(0, size)[first:last]
        if last - first < AHEAD_BYTES:
            return self._kept(first, min(size, first + AHEAD_BYTES))[: last - first]
        starts = range(first, last, PIECE_BYTES)
        return b"".join(self._objects.get(self._found, at, min(at + PIECE_BYTES, last)) for at in starts)

    def _kept(self, first: int, last: int) -> bytes:
        piece = self._objects.get(self._found, first, last)
        self._pieces[first] = piece
        while len(self._pieces) > KEPT_PIECES:
            self._pieces.popitem(last=False)
        return piece
