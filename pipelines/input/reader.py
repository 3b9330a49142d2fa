"""Row ranges of shards, from any source, with unusable values told apart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa

from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.cursor import Cursor
from headrace.pipelines.input.folder_columns import is_folder_column, with_folder_values
from headrace.pipelines.input.rows import Rows, fitted, rows_without_columns, sound
from headrace.pipelines.input.source import Source
from headrace.pipelines.input.sources import source_named
from headrace.pipelines.spec.errors import StorageUnavailable, UserError

_Key = tuple[str, str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass over columns of a shard, and why it ended before the shard's end."""

    key: _Key
    cursor: Cursor
    problems: list[str]


class ChunkReader:
    """Reads row ranges of shards, as tables of ``schema``'s types.

    A few passes are kept open where they stopped, so that the next range of a shard continues there. Safe for threads:
    a pass that one thread reads from is not given to another.
    """

    def __init__(
        self, schema: pa.Schema, open_passes: int = 4, *, named: Callable[[str], Source] = source_named
    ) -> None:
        """``schema`` gives the types of the columns that will be requested (see :meth:`Corpus.require`)."""
        self._schema = schema
        self._open_passes = open_passes
        self._named = named
        self._passes: OrderedDict[int, _Pass] = OrderedDict()
        self._lock = Lock()

    def read(
        self, shard: Shard, first: int, last: int, columns: Sequence[str], used: Collection[str] | None = None
    ) -> Rows:
        """Rows ``first`` to ``last`` (exclusive) of ``shard``, with ``columns`` in that order.

        Every row is included. A row that cannot be read, or has a value that cannot be used, is bad: it has null there.

        Args:
            used: the columns that become Python values, all by default; see :func:`~.rows.sound`.

        Raises:
            InputChanged: the shard has changed since it was found.
            OSError: a failure that may pass.
            UserError: the source is not installed, or the user has to act.
        """
        if not 0 <= first <= last <= shard.rows:
            raise ValueError(f"rows {first} to {last} are not inside {shard.path!r}, which has {shard.rows}")
        schema = pa.schema([self._schema.field(name) for name in columns])
        stored = pa.schema([field for field in schema if not is_folder_column(field)])
        source = self._named(shard.source)
        watched = not source.is_pinned(shard)
        if watched or first == last or not stored:
            source.check(shard)
        if first == last:
            return Rows(schema.empty_table())
        if not columns:
            return Rows(rows_without_columns(last - first))
        found = Rows(rows_without_columns(last - first))
        if stored:
            found = self._read(source, shard, stored, first, last)
            if watched:
                source.check(shard)  # it may have been written to while it was read
        table, unusable = sound(with_folder_values(found.table, schema, shard.path), used)
        return Rows(table, {**unusable, **found.bad})

    def close(self) -> None:
        """Close the passes that are kept open. The reader can still be used."""
        with self._lock:
            passes = list(self._passes.values())
            self._passes.clear()
        for one in passes:
            one.cursor.close()

    def _read(self, source: Source, shard: Shard, schema: pa.Schema, first: int, last: int) -> Rows:
        """The rows from a pass over the shard, with nulls for the rows that it lacks."""
        one = self._take(source, shard, schema, first, last - first)
        try:
            found = one.cursor.read(first, last)
        except BaseException:
            one.cursor.close()
            raise
        there = found.table.num_rows
        self._give(one, shard, whole=there == last - first)
        if there == last - first:
            return found
        lost = f"rows {first + there} to {last - 1} of the input file {shard.path!r} ({shard.uri})"
        why = one.problems[0] if one.problems else "it ends there"
        bad = dict.fromkeys(range(there, last - first), f"{lost} cannot be read: {why}")
        nulls = pa.table({field.name: pa.nulls(len(bad), field.type) for field in schema}, schema=schema)
        return Rows(pa.concat_tables([found.table, nulls]) if there else nulls, {**found.bad, **bad})

    def _take(self, source: Source, shard: Shard, schema: pa.Schema, first: int, rows: int) -> _Pass:
        """The open pass that is nearest before row ``first``, unless a new pass gets there sooner."""
        key = (shard.source, shard.uri, shard.etag, tuple(schema.names))
        start = source.start(shard, first)
        with self._lock:
            usable = [one for one in self._passes.values() if one.key == key and start <= one.cursor.position <= first]
            if usable:
                return self._passes.pop(id(max(usable, key=lambda one: one.cursor.position)))
        problems: list[str] = []
        return _Pass(key, Cursor(_pieces(source, shard, schema, first, rows, problems), first), problems)

    def _give(self, one: _Pass, shard: Shard, *, whole: bool) -> None:
        closing = [one]
        if whole and one.cursor.position < shard.rows:
            with self._lock:
                self._passes[id(one)] = one
                closing = []
                while len(self._passes) > self._open_passes:
                    closing.append(self._passes.popitem(last=False)[1])
        for done in closing:
            done.cursor.close()


def _pieces(
    source: Source, shard: Shard, schema: pa.Schema, first: int, at_once: int, problems: list[str]
) -> Iterator[Rows]:
    """What a source reads, with the types of ``schema``, up to its end or to what cannot be read: see ``problems``."""
    try:
        for piece in source.read(shard, schema, first, at_once):
            rows = fitted(piece.table, schema)
            yield Rows(rows.table, {**rows.bad, **piece.bad})
    except (UserError, StorageUnavailable):
        raise
    except Exception as error:  # a source may be anybody's, and an input may hold anything
        source.check(shard)
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problems.append(str(error) or type(error).__name__)
