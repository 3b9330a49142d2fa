"""The port for inputs: what headrace expects of a source of rows.

A source is registered in the entry-point group ``headrace.sources``; headrace registers its own the same way. For a
file format there is :class:`~headrace.pipelines.input.file_source.FileSource`, which leaves two methods to write.
docs/extending.md has a complete package.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import pyarrow as pa

from headrace.pipelines.input.corpus import Corpus, Shard
from headrace.pipelines.input.rows import Rows
from headrace.pipelines.spec.errors import UserError

GROUP = "headrace.sources"
"""The entry-point group. An entry has the name of its source, and points to a class that is made without arguments."""


class InputChanged(UserError):
    """A shard is no longer what it was when it was planned. The message names it and says what to do."""


@runtime_checkable
class Source(Protocol):
    """Where rows come from.

    One object serves all threads of a process; workers on other machines make their own. The exception decides what
    happens to rows: ``UserError`` ends the run, for the user to act. An ``OSError`` with an ``errno`` is a failure that
    may pass, and the chunk is retried. Anything else means that the rows cannot be read: they become dead letters, and
    the run continues.

    Example, with ``counter = "counter:Counter"`` in the entry-point group. ``--input count:5`` has five rows::

        class Counter(Source):
            name = "counter"
            schemes = ("count",)
            columns = pa.schema({"id": pa.int64(), "text": pa.string()})

            def find(self, uri):
                rows = int(uri.rpartition("/")[2].removeprefix("count:"))
                shard = Shard(str(rows), f"count:/{rows}", 0, "always the same", rows, self.name)
                return Corpus("count:", (shard,), (Variant(self.columns, shard.path),))

            def check(self, shard):
                pass

            def read(self, shard, columns, first, at_once):
                for start in range(first, shard.rows, at_once):
                    numbers = range(start, min(start + at_once, shard.rows))
                    yield from_python([{"id": number, "text": f"number {number}"} for number in numbers], columns)

    Attributes:
        name: the name of its entry point; plans contain it.
        schemes: the URI schemes of inputs that it reads, without the ``:``.
        suffixes: the suffixes of files that it reads, with the dot, if such a file is the input.
    """

    name: str
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    @abstractmethod
    def find(self, uri: str) -> Corpus:
        """The shards of an input, with the columns, the row count and the identity (``etag``) of each.

        Args:
            uri: what the user gave as input, or the ``uri`` of a shard that was found before.

        Raises:
            UserError: there is nothing, or it cannot be read. The message says what is there and what to do.
        """
        ...

    @abstractmethod
    def check(self, shard: Shard) -> None:
        """Check that a shard is unchanged. Called before and after rows are read.

        Raises:
            InputChanged: it has changed.
        """
        ...

    @abstractmethod
    def read(self, shard: Shard, columns: pa.Schema, first: int, at_once: int) -> Iterator[Rows]:
        """The rows of a shard from ``first`` to its end, in order.

        The iterator may be advanced by another thread than the one that made it. It is closed once no more rows are
        needed.

        Args:
            columns: the requested columns. The rows may have other types if their values can be cast to these without
                a change. The types are the widest of all shards'.
            at_once: rows that are needed now. More in one piece would only take memory.
        """
        ...

    def start(self, shard: Shard, row: int) -> int:
        """The row at which :meth:`read` has to begin to reach ``row``.

        A reader that is past it continues from where it is instead of starting again.
        """
        mark = shard.mark_before(row)
        return 0 if mark is None else mark[0]

    def is_pinned(self, shard: Shard) -> bool:
        """Whether reading itself fails if the shard has changed. If so, :meth:`check` is called only after reading."""
        return False

    def would_read(self, uri: str, folder_uri: str) -> bool:
        """Whether the input ``uri`` includes Parquet files that are written into a folder, now or next time."""
        return False
