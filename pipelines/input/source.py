"""The port for inputs: what headrace asks of a source of rows.

A source is registered in the entry-point group ``headrace.sources``; headrace registers its own in the same way. For a
format of files there is :class:`~headrace.pipelines.input.file_source.FileSource`, which leaves two methods to write.
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
"""The entry-point group. An entry is called as its source is, and names a class that is made without arguments."""


class InputChanged(UserError):
    """A shard is no longer what it was when it was planned. The message names it and says what to do."""


@runtime_checkable
class Source(Protocol):
    """Where rows come from.

    One object serves all threads of a process; workers on other machines make their own. What is raised decides what
    becomes of rows: ``UserError`` ends the run, for the user to act. An ``OSError`` with an ``errno`` is trouble that
    may pass, and the chunk is tried again. Anything else means that the rows cannot be read: they become dead letters,
    and the run goes on.

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
        name: the name of its entry point; plans have it.
        schemes: what inputs begin with that it reads, before ``:``.
        suffixes: how names of files end that it reads, with the dot, when such a file is the input.
    """

    name: str
    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    @abstractmethod
    def find(self, uri: str) -> Corpus:
        """The shards of an input, with the columns, the row count and the identity (``etag``) of each.

        Args:
            uri: what the user has given as input, or the ``uri`` of a shard that was found before.

        Raises:
            UserError: there is nothing, or it cannot be read. The message says what is there and what to do.
        """
        ...

    @abstractmethod
    def check(self, shard: Shard) -> None:
        """See that a shard is still what it was: called before and after rows are read.

        Raises:
            InputChanged: it is not.
        """
        ...

    @abstractmethod
    def read(self, shard: Shard, columns: pa.Schema, first: int, at_once: int) -> Iterator[Rows]:
        """The rows of a shard from ``first`` to its end, in order.

        The iterator may be advanced by another thread than the one that made it, and it is closed when no more rows are
        wanted.

        Args:
            columns: those that are wanted. The rows may have other types: what can be cast to these without a change of
                its value is. The types are the widest of all shards'.
            at_once: rows that are wanted now. More in one piece would only take memory.
        """
        ...

    def start(self, shard: Shard, row: int) -> int:
        """The row at which :meth:`read` has to begin to come to ``row``.

        A reader that is past it goes on from where it is instead of reading anew.
        """
        mark = shard.mark_before(row)
        return 0 if mark is None else mark[0]

    def is_pinned(self, shard: Shard) -> bool:
        """Whether reading fails by itself where the shard has changed. Then :meth:`check` is called only after that."""
        return False

    def would_read(self, uri: str, folder_uri: str) -> bool:
        """Whether the input ``uri`` takes in Parquet files that are written into a folder, now or next time."""
        return False
