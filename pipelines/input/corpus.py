"""The input: which Parquet files there are, what columns they have, and their rows, a range at a time.

Finding reads footers only. Reading streams: memory is that of the rows asked for, however large the row
groups are, and consecutive ranges of one file are read in one pass. Files are local, or lie in an object store
(``object_input``).
"""

from __future__ import annotations

import difflib
import math
import os
import shutil
import tempfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.pipelines.input.globs import BELOW, escaped, is_pattern, matches, with_contents
from headrace.pipelines.input.salvage import DAMAGE, rescue
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.storage.locations import joined, local_path, object_uri, shown
from headrace.pipelines.storage.threads import THREADS, each

BATCH_BYTES = 16 << 20
"""Decoded bytes of one batch that a reader aims at, on top of the rows asked for."""

BATCH_ROWS = 1024
"""Rows in a batch at most, for columns whose dictionary encoding hides how large they decode."""

OBJECT_FOOTER_THREADS = 48
"""The same in an object store, where each takes a call of some tens of milliseconds."""

BUFFER_BYTES = 1 << 20
"""Read-ahead for each column: with it a column chunk is streamed, not loaded whole."""

OBJECT_BUFFER_BYTES = 4 << 20
"""The same in an object store, where it is a call of its own."""

SALVAGED_ROWS = 100_000
"""Rows behind a damaged page that are read page by page before the file is believed again."""


class InputChanged(Exception):
    """An input file is no longer the one that was planned. The message names it and says what to do."""


class InputUnreadable(Exception):
    """Rows of an input file cannot be decoded. The message names the file, the rows and the reason (``why``)."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file as it was when it was found.

    ``path`` is relative to the corpus's base, with ``/`` (the ``_shard`` of its rows); ``size`` is in bytes;
    ``etag`` changes with the content; ``row_groups`` are rows per row group (empty where nobody has looked).
    """

    path: str
    uri: str
    size: int
    etag: str
    rows: int
    row_groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """A schema that some of the files have, and the path of the first of them."""

    schema: pa.Schema
    path: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The input files, sorted by path, and the schemas that they have.

    ``base`` is the folder that paths are relative to, as a URI.
    """

    base: str
    shards: tuple[Shard, ...]
    variants: tuple[Variant, ...]

    @property
    def rows(self) -> int:
        """Rows in all files together."""
        return sum(shard.rows for shard in self.shards)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that any file has, in the order of first appearance."""
        return tuple(dict.fromkeys(name for variant in self.variants for name in variant.schema.names))

    @property
    def schema(self) -> pa.Schema:
        """All columns, each with the type that holds its values in every file that has it.

        A column whose types cannot be brought together has the first one here; :meth:`require` refuses it.
        """
        fields = []
        for name in self.columns:
            types = [variant.schema.field(name).type for variant in self.variants if name in variant.schema.names]
            merged = reduce(lambda a, b: None if a is None else _widest(a, b), types)
            fields.append(pa.field(name, types[0] if merged is None else merged))
        return pa.schema(fields)

    def require(self, columns: Mapping[str, str]) -> pa.Schema:
        """The schema of ``columns``, in their order.

        Args:
            columns: who needs it (for the message), by column.

        Raises:
            UserError: a column that no file or not every file has, or whose types cannot be brought together.
        """
        fields = [pa.field(name, self._type(name, needed_by)) for name, needed_by in columns.items()]
        return pa.schema(fields)

    def _type(self, name: str, needed_by: str) -> pa.DataType:
        lacking = [variant for variant in self.variants if name not in variant.schema.names]
        if len(lacking) == len(self.variants):
            raise UserError(
                f"The input has no column {name!r}, which {needed_by} needs.{_nearest(name, self.columns)} "
                f"Its columns are: {_quoted(self.columns)}."
            )
        if lacking:
            raise UserError(
                f"The input file {lacking[0].path!r} has no column {name!r}, which {needed_by} needs; other "
                f"files have it.{_nearest(name, lacking[0].schema.names)} Its columns are: "
                f"{_quoted(lacking[0].schema.names)}. Leave that file out of the input, or add the column "
                "to it."
            )
        first, *others = self.variants
        merged = first.schema.field(name).type
        for other in others:
            wider = _widest(merged, other.schema.field(name).type)
            if wider is None:
                raise UserError(
                    f"The column {name!r}, which {needed_by} needs, is {first.schema.field(name).type} in "
                    f"{first.path!r} and {other.schema.field(name).type} in {other.path!r}, and there is no "
                    "type for both. Write one of the files anew with the other's type, or run them apart."
                )
            merged = wider
        return merged


def find_shards(input_uri: str) -> Corpus:
    """Find the Parquet files of an input, and read their footers.

    Args:
        input_uri: a file, a folder (searched at any depth for ``*.parquet``) or a glob (``*``, ``?``, ``[...]``,
            and ``**`` for any number of folders). Names that begin with ``_`` or ``.`` are left out, as other
            readers do, unless the glob spells them out.

    Raises:
        UserError: nothing there, no Parquet there, or a file that is not Parquet or cannot be read.
    """
    found = _find(input_uri)
    shards = []
    variants: list[tuple[Variant, pa.lib.Schema, bytes | None]] = []
    # One after another: a schema weighs several kB, and files may be many.
    footers = each(_read_footer, found.files, "footers", found.threads)
    for shard, parquet_schema, arrow_schema in footers:
        shards.append(shard)
        known = any(arrow_schema == seen and parquet_schema.equals(like) for _, like, seen in reversed(variants))
        if not known:
            schema = _plain_schema(parquet_schema, shard)
            variants.append((Variant(schema, shard.path), parquet_schema, arrow_schema))
    return Corpus(found.base, tuple(shards), tuple(variant for variant, _, _ in variants))


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with the columns, types and metadata of ``schema``.

    Raises:
        KeyError: a column is not there.
        pyarrow.ArrowException: a value does not fit its type; it is never bent to fit.
    """
    table = table.select(schema.names)
    if table.schema.equals(schema):
        return pa.Table.from_arrays(table.columns, schema=schema)
    return table.cast(schema)


def would_read(input_uri: str, folder_uri: str) -> bool:
    """Whether ``input_uri`` takes in Parquet files that are written into a folder, now or next time."""
    given, output = object_uri(input_uri), object_uri(folder_uri)
    if given is not None and output is not None:
        from headrace.pipelines.input.object_input import pattern_of

        there, pattern = pattern_of(given)
        if there.at("") != output.at("") or not output.prefix.startswith(there.prefix):
            return False
        below = tuple(output.prefix[len(there.prefix) :].split("/")[:-1])
    elif given is None and output is None:
        base, pattern = _pattern(input_uri)
        folder = Path(os.path.realpath(local_path(folder_uri)))
        base = Path(os.path.realpath(base))
        if not folder.is_relative_to(base):
            return False
        below = folder.relative_to(base).parts
    else:
        return False
    if pattern == BELOW:
        return True
    return matches((*below, "part.parquet"), pattern)


class ChunkReader:
    """Reads row ranges of shards, as tables of ``schema``'s types.

    Keeps a few files open where it stopped, so that the next range of a file goes on from there. Safe for
    threads: a file that one thread reads from is not offered to another.
    """

    def __init__(self, schema: pa.Schema, open_files: int = 4) -> None:
        """``schema`` types the columns that will be asked for (see :meth:`Corpus.require`)."""
        self._schema = schema
        self._open_files = open_files
        self._cursors: OrderedDict[int, _Cursor] = OrderedDict()
        self._damaged: dict[tuple[str, str, str], tuple[int, str]] = {}
        self._lock = Lock()

    def read(self, shard: Shard, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Rows ``first`` to ``last`` (exclusive) of ``shard``, with ``columns`` in that order.

        Values are as the file has them: text may not be UTF-8 (see :func:`headrace.pipelines.output.rows.sound`).

        Raises:
            InputChanged: the file is not the one that ``shard`` describes.
            InputUnreadable: the rows cannot be decoded or do not fit the schema.
        """
        if not 0 <= first <= last <= shard.rows:
            raise ValueError(f"rows {first} to {last} are not inside {shard.path!r}, which has {shard.rows}")
        watched = object_uri(shard.uri) is None  # a read from an object store fails by itself when it has changed
        if watched or first == last or not columns:
            _check_unchanged(shard)
        schema = pa.schema([self._schema.field(name) for name in columns])
        if first == last:
            return schema.empty_table()
        if not columns:
            return _rows_without_columns(last - first)
        for name in columns:
            if (why := self._damage(shard, first, name)) is not None:
                raise _unreadable(shard, first, last, why)
        try:
            cursor = self._take(shard, first, last, tuple(columns))
            try:
                table = fit(cursor.read(first, last), schema)
            except BaseException:
                cursor.close()
                raise
        except StorageUnavailable:  # which says nothing of the file
            raise
        except DAMAGE as error:
            _check_unchanged(shard)
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's trouble, or the network's, which may pass
            raise _unreadable(shard, first, last, str(error)) from error
        self._give(cursor)
        if watched:
            _check_unchanged(shard)  # it may have been written to while it was read
        return table

    def salvage(self, shard: Shard, first: int, last: int, columns: Sequence[str]) -> tuple[pa.Table, dict[int, str]]:
        """What can be read of rows that :meth:`read` cannot, column by column: slower, and page by page.

        Returns:
            The table, with null for what is lost, and for each row that has lost a value (counted from ``first``) a
            sentence that says which.

        Raises:
            InputChanged: the file is not the one that ``shard`` describes.
        """
        values: dict[str, pa.ChunkedArray] = {}
        lost: dict[int, str] = {}
        whole = [name for name in columns if self._damage(shard, first, name) is None]
        try:
            table = self.read(shard, first, last, whole)
            values = {name: table[name] for name in whole}
        except InputUnreadable:
            pass  # one of them; which, is seen below
        for name in columns:
            if name in values:
                continue
            try:
                values[name] = self.read(shard, first, last, [name])[name]
            except InputUnreadable as problem:
                with _as_file(shard) as file:
                    found = rescue(file, name, self._schema.field(name).type, first, last)
                values[name] = found.values
                for begin, end in found.lost:
                    said = (
                        f"rows {begin} to {end - 1} of the column {name!r} of the input file {shard.path!r} "
                        f"({shard.uri}) cannot be read: {problem.why}"
                    )
                    for row in range(begin, end):
                        lost.setdefault(row - first, said)
                if problem.__cause__ and sum(end - begin for begin, end in found.lost) < last - first:
                    self._damaged[shard.uri, shard.etag, name] = (first, problem.why)
        _check_unchanged(shard)
        return pa.table(values).select(list(columns)), lost

    def _damage(self, shard: Shard, first: int, name: str) -> str | None:
        """What is wrong with a column not far before row ``first``: a reader would begin at its row group, and end
        there once more."""
        at, why = self._damaged.get((shard.uri, shard.etag, name), (first, ""))
        return why if 0 < first - at < SALVAGED_ROWS else None

    def close(self) -> None:
        """Close the files that are held open. The reader can still be used."""
        with self._lock:
            cursors = list(self._cursors.values())
            self._cursors.clear()
        for cursor in cursors:
            cursor.close()

    def _take(self, shard: Shard, first: int, last: int, columns: tuple[str, ...]) -> _Cursor:
        source = (shard.uri, shard.etag, columns)
        with self._lock:
            usable = [c for c in self._cursors.values() if c.source == source and c.reaches(first)]
            if usable:
                return self._cursors.pop(id(max(usable, key=lambda cursor: cursor.position)))
        return _Cursor(shard, first, last, columns)

    def _give(self, cursor: _Cursor) -> None:
        closing = []
        if cursor.position < cursor.rows:
            with self._lock:
                self._cursors[id(cursor)] = cursor
                while len(self._cursors) > self._open_files:
                    closing.append(self._cursors.popitem(last=False)[1])
        else:
            closing.append(cursor)
        for done in closing:
            done.close()


class _Cursor:
    """One pass over a file's columns, from the row group that holds its first row to the end."""

    def __init__(self, shard: Shard, first: int, last: int, columns: tuple[str, ...]) -> None:
        self.source = (shard.uri, shard.etag, columns)
        self._columns = columns
        # Checksums are verified where the file has them: a flipped bit is an error then, and not an odd text.
        source = _source(shard.uri, shard.size, shard.etag)
        buffer = BUFFER_BYTES if isinstance(source, Path) else OBJECT_BUFFER_BYTES
        self._file = pq.ParquetFile(source, buffer_size=buffer, pre_buffer=False, page_checksum_verification=True)
        try:
            footer = self._file.metadata
            self.rows = footer.num_rows
            self._starts = [0]
            for group in range(footer.num_row_groups):
                self._starts.append(self._starts[-1] + footer.row_group(group).num_rows)
            group = self._group(first)
            self.position = self._starts[group]
            self._rest: pa.RecordBatch | None = None
            self._batches = self._decode(group, last - first)
        except BaseException:
            self._file.close()
            raise

    def reaches(self, first: int) -> bool:
        """Whether going on from here to row ``first`` is no longer than starting at its row group."""
        return self._starts[self._group(first)] <= self.position <= first

    def read(self, first: int, last: int) -> pa.Table:
        pieces = []
        while self.position < last:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid(f"the file ends at row {self.position}, its footer promises {self.rows}")
            skipped = min(max(first - self.position, 0), batch.num_rows)
            taken = min(last - self.position, batch.num_rows)
            if taken > skipped:
                pieces.append(batch.slice(skipped, taken - skipped))
            self._rest = batch.slice(taken) if taken < batch.num_rows else None
            self.position += taken
        # With more columns than were asked for, maybe: one named "a.b" comes along with one named "a".
        return pa.Table.from_batches(pieces)

    def close(self) -> None:
        self._rest = None
        self._batches.close()
        self._file.close()

    def _decode(self, group: int, wanted: int) -> Generator[pa.RecordBatch, None, None]:
        # A row group at a time: pyarrow cannot decode a nested dictionary column across two in one batch.
        for at in range(group, self._file.num_row_groups):
            batch_rows = _batch_rows(self._file.metadata.row_group(at), wanted)
            yield from self._file.iter_batches(
                batch_rows, row_groups=[at], columns=list(self._columns), use_threads=False
            )

    def _group(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1


@dataclass(frozen=True, slots=True)
class _File:
    """An input file; with size and etag where finding it has told them."""

    path: str
    uri: str
    size: int = 0
    etag: str = ""

    def source(self) -> Path | BinaryIO:
        return _source(self.uri, self.size, self.etag)


@dataclass(frozen=True, slots=True)
class _Found:
    base: str
    files: list[_File]
    threads: int = THREADS


def _source(uri: str, size: int, etag: str) -> Path | BinaryIO:
    """What pyarrow reads a file from: a path, or an object that it reads by ranges."""
    if object_uri(uri) is None:
        return local_path(uri)
    from headrace.pipelines.input.object_input import open_shard

    return open_shard(uri, size, etag)


def _find(input_uri: str) -> _Found:
    if (there := object_uri(input_uri)) is not None:
        from headrace.pipelines.input.object_input import find_objects

        found = find_objects(there)
        base = str(found.base)
        files = [
            _File(found.path(each), joined(base, found.path(each)), each.size, each.etag) for each in found.objects
        ]
        return _Found(base, files, OBJECT_FOOTER_THREADS)
    folder, paths = _find_local(input_uri)
    return _Found(folder.as_uri(), [_File(path, (folder / path).as_uri()) for path in paths])


def _find_local(input_uri: str) -> tuple[Path, list[str]]:
    path = local_path(input_uri)
    if path.is_file():
        return path.parent, [_utf8(path.name, path)]
    base, pattern = _pattern(input_uri)
    if not base.is_dir():
        parent = next(parent for parent in base.parents if parent.exists())
        raise UserError(
            f"The input {input_uri!r} does not exist. The folder {str(parent)!r} does, and holds {_contents(parent)}."
        )
    paths = sorted(_utf8("/".join(parts), base) for parts in _descend(base, pattern))
    if not paths:
        wanted = "no file that ends with .parquet" if pattern == BELOW else "no file that matches"
        raise UserError(
            f"The input {input_uri!r} has {wanted} (names that begin with '_' or '.' do not count). "
            f"The folder {str(base)!r} holds {_contents(base)}."
        )
    return base, paths


def _pattern(input_uri: str) -> tuple[Path, tuple[str, ...]]:
    """An input as a base folder and a pattern for what is below it; a path that exists is never a glob."""
    path = local_path(input_uri)
    if path.is_file():
        return path.parent, (escaped(path.name),)
    magic = next((at for at, part in enumerate(path.parts) if is_pattern(part)), None)
    if magic is None or path.is_dir():
        return path, BELOW
    pattern = path.parts[magic:]
    return Path(*path.parts[:magic]), (*pattern, "*.parquet") if pattern[-1] == "**" else pattern


def _descend(base: Path, pattern: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Files below ``base`` that match or lie in a folder that does. Follows links, never in a circle."""
    inside = with_contents(pattern)
    folders: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while folders:
        here, above = folders.pop()
        folder = base.joinpath(*here)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in above:
            continue
        above |= {(status.st_dev, status.st_ino)}
        try:
            found = os.scandir(folder)
        except PermissionError as error:
            raise UserError(f"The input folder {str(folder)!r} may not be read: {error.strerror}.") from error
        with found:
            for each in found:
                parts = (*here, each.name)
                if each.is_dir():
                    if matches(parts, inside, partial=True):
                        folders.append((parts, above))
                elif matches(parts, pattern) or matches(parts, inside):
                    yield parts


def _read_footer(file: _File) -> tuple[Shard, pa.lib.Schema, bytes | None]:
    try:
        source = file.source()
        size, etag = file.size, file.etag
        if isinstance(source, Path):
            status = source.stat()
            size, etag = status.st_size, _etag(status)
        footer = pq.read_metadata(source)
    except StorageUnavailable:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(_what_is_wrong(file, error)) from error
    groups = tuple(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    shard = Shard(file.path, file.uri, size, etag, footer.num_rows, groups)
    return shard, footer.schema, (footer.metadata or {}).get(b"ARROW:schema")


def _what_is_wrong(file: _File, error: Exception) -> str:
    advice = "Leave it out of the input (a glob such as 'folder/**/*.parquet' chooses files), or write it anew."
    named = f"The input file {file.path!r} ({shown(file.uri)})"
    try:
        source = file.source()
        with open(source, "rb") if isinstance(source, Path) else source as opened:
            head = opened.read(4)
            size = opened.seek(0, os.SEEK_END)
            opened.seek(-min(4, size), os.SEEK_END)
            tail = opened.read(4)
    except FileNotFoundError:
        return f"{named} was deleted, or is a link to nothing. {advice}"
    except StorageUnavailable:
        raise
    except OSError as refused:
        return f"{named} cannot be read: {refused.strerror or refused}. {advice}"
    if not head:
        return f"{named} is empty: 0 bytes, not even a Parquet footer. {advice}"
    if head == b"PARE":
        return f"{named} is encrypted Parquet, which is not supported. {advice}"
    if head != b"PAR1":
        return f"{named} is not a Parquet file: it begins with {head!r}. {advice}"
    if tail != b"PAR1":
        return f"{named} is cut off: it begins as Parquet and has no footer. {advice}"
    return f"{named} has a damaged Parquet footer: {error}. {advice}"


def _plain_schema(parquet_schema: pa.lib.Schema, shard: Shard) -> pa.Schema:
    """A file's schema without its writer's metadata, which would not be true of our output."""
    try:
        schema = parquet_schema.to_arrow_schema().remove_metadata()
    except pa.ArrowException as error:
        raise UserError(f"The input file {shard.path!r} ({shard.uri}) has columns of unknown type: {error}.") from error
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise UserError(
            f"The input file {shard.path!r} ({shard.uri}) has more than one column named {_quoted(twice)}. "
            "Write it anew with distinct names."
        )
    return pa.schema([pa.field(field.name, _kept_type(field.type)) for field in schema])


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _check_unchanged(shard: Shard) -> None:
    try:
        size, etag = _as_it_is(shard.uri)
    except FileNotFoundError as error:
        raise InputChanged(
            f"The input file {shard.path!r} ({shard.uri}) was deleted after it was planned. Run the same "
            "command again: what is done stays, and the new plan leaves the file out."
        ) from error
    if (size, etag) != (shard.size, shard.etag):
        raise InputChanged(
            f"The input file {shard.path!r} ({shard.uri}) has changed since it was planned ({shard.size} "
            f"bytes then, {size} now). Run the same command again when it no longer changes: its "
            "rows are planned anew."
        )


def _as_it_is(uri: str) -> tuple[int, str]:
    """Size and etag of a file now."""
    if object_uri(uri) is not None:
        from headrace.pipelines.input.object_input import etag_of

        return etag_of(uri)
    status = local_path(uri).stat()
    return status.st_size, _etag(status)


@contextmanager
def _as_file(shard: Shard) -> Iterator[Path]:
    """The shard as a local file; of an object a copy, as long as it is needed."""
    source = _source(shard.uri, shard.size, shard.etag)
    if isinstance(source, Path):
        yield source
        return
    with source, tempfile.NamedTemporaryFile(prefix="headrace-", suffix=".parquet") as copy:
        shutil.copyfileobj(source, copy, 8 << 20)
        copy.flush()
        yield Path(copy.name)


def _unreadable(shard: Shard, first: int, last: int, why: str) -> InputUnreadable:
    return InputUnreadable(
        f"Rows {first} to {last - 1} of the input file {shard.path!r} ({shard.uri}) cannot be read: {why}", why
    )


def _batch_rows(group: pq.RowGroupMetaData, wanted: int) -> int:
    """Rows per batch, so that a batch is no larger than what was asked for and than about ``BATCH_BYTES``."""
    row_bytes: float = max(group.total_byte_size / max(group.num_rows, 1), 1.0)
    return max(1, min(wanted, BATCH_ROWS, math.floor(BATCH_BYTES / row_bytes)))


def _rows_without_columns(rows: int) -> pa.Table:
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(pa.nulls(rows, pa.struct([])).fill_null({}))])


def _widest(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, or None. Dictionaries are kept only where both have them."""
    if one.equals(other):
        return one
    for pair in ((one, other), (_without_encodings(one), _without_encodings(other))):
        try:
            schemas = [pa.schema([pa.field("x", kind)]) for kind in pair]
            return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        except pa.ArrowException:
            continue
    return None


def _kept_type(kind: pa.DataType) -> pa.DataType:
    """``kind`` as we read and write it: with a dictionary only where it is the column itself."""
    return kind if pa.types.is_dictionary(kind) else _without_encodings(kind)


def _without_encodings(kind: pa.DataType) -> pa.DataType:
    """``kind`` with dictionaries and views, at any depth, as the plain values that they stand for."""
    if pa.types.is_dictionary(kind):
        return _without_encodings(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_encodings(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_encodings(kind.key_type), _without_encodings(kind.item_type))
    for is_one, make in _LISTS:
        if is_one(kind):
            return make(kind.value_field.with_type(_without_encodings(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_without_encodings(kind.value_type)), kind.list_size)
    return kind


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
)


def _utf8(path: str, base: Path) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The input file {os.fsencode(path)!r} in {str(base)!r} has a name that is not UTF-8. Rename it."
        ) from error
    return path


def _contents(folder: Path) -> str:
    """A few of the names in ``folder``, for a message."""
    names = sorted(each.name + ("/" if each.is_dir() else "") for each in folder.iterdir())
    return _quoted(names, most=8) if names else "nothing"


def _quoted(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    folded = [each for each in names if each.casefold() == name.casefold()]
    return f" Did you mean {(folded or near)[0]!r}?" if folded or near else ""
