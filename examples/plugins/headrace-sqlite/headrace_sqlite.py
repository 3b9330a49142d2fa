"""SQLite tables as inputs of headrace: ``sqlite:FILE/TABLE``, or ``sqlite:FILE`` for all tables of a file."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from headrace import UserError
from headrace.pipelines.input import Corpus, InputChanged, Rows, Shard, Source, Variant, from_python

SCHEME = "sqlite"

MARK_ROWS = 10_000
"""Rows between marks: a mark is a row and its rowid, where SQLite can go at once."""


class Sqlite(Source):
    """A table is a shard, and the database is the folder that it is in."""

    name = "sqlite"
    schemes = (SCHEME,)
    suffixes = (".sqlite",)

    def find(self, uri: str) -> Corpus:
        file, table = _place(uri)
        if not file.is_file():
            raise UserError(f"The input {uri!r}: there is no file {str(file)!r}. Write {SCHEME}:FILE/TABLE.")
        size, etag = _identity(file)
        base = f"{SCHEME}:{quote(str(file))}"
        shards, variants = [], []
        try:
            with closing(_connect(file)) as database:
                for name in [table] if table else _tables(database):
                    schema, rows, marks = _describe(database, name)
                    shards.append(Shard(name, f"{base}/{quote(name)}", size, etag, rows, self.name, marks))
                    variants.append(Variant(schema, name))
        except sqlite3.Error as error:
            raise UserError(f"The input {uri!r} cannot be read: {error}. Its tables need rowids.") from error
        if not shards:
            raise UserError(f"The input {uri!r} has no tables.")
        return Corpus(base, tuple(shards), tuple(variants))

    def check(self, shard: Shard) -> None:
        file, _ = _place(shard.uri)
        try:
            same = _identity(file) == (shard.size, shard.etag)
        except FileNotFoundError:
            same = False
        if not same:
            raise InputChanged(f"{str(file)!r} has changed since it was planned. Run the same command again.")

    def read(self, shard: Shard, columns: pa.Schema, first: int, at_once: int) -> Iterator[Rows]:
        file, table = _place(shard.uri)
        row, rowid = shard.mark_before(first) or (0, -(2**63))
        wanted = ", ".join(map(_quoted, columns.names))
        query = f"SELECT {wanted} FROM {_quoted(table)} WHERE rowid >= ? ORDER BY rowid LIMIT -1 OFFSET ?"
        try:
            with closing(_connect(file)) as database:
                found = database.execute(query, (rowid, first - row))
                while some := list(islice(found, at_once)):
                    yield from_python([dict(zip(columns.names, cells, strict=True)) for cells in some], columns, _text)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED"):
                raise OSError(errno.EAGAIN, str(error)) from error  # somebody is writing: headrace tries again
            raise


def _place(uri: str) -> tuple[Path, str]:
    """The database and the table that a URI names; no table where it names the database."""
    path = Path(unquote(uri.removeprefix(f"{SCHEME}:"))).absolute()
    return (path.parent, path.name) if path.parent.is_file() else (path, "")


def _connect(file: Path) -> sqlite3.Connection:
    # Another thread may go on where this one has stopped reading.
    database = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, check_same_thread=False)
    # Text that is not UTF-8 becomes what Arrow refuses, so only its row is lost.
    database.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    return database


def _identity(file: Path) -> tuple[int, str]:
    """Size and etag of a database: of its file, and of the log that holds what was written of late."""
    status, log = file.stat(), file.with_name(f"{file.name}-wal")
    written = log.stat() if log.exists() and log.stat().st_size else None
    later = f"-{written.st_mtime_ns:x}-{written.st_size:x}" if written else ""
    return status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}{later}"


def _tables(database: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [name for (name,) in database.execute(query)]


def _describe(database: sqlite3.Connection, table: str) -> tuple[pa.Schema, int, tuple[tuple[int, int], ...]]:
    """The columns, the number of rows and the marks of a table."""
    columns = database.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
    schema = pa.schema([pa.field(name, _type(declared)) for name, declared in columns])
    rows, marks = 0, []
    for (rowid,) in database.execute(f"SELECT rowid FROM {_quoted(table)} ORDER BY rowid"):
        if rows % MARK_ROWS == 0:
            marks.append((rows, rowid))
        rows += 1
    return schema, rows, tuple(marks)


def _type(declared: str) -> pa.DataType:
    """The type of a column, by SQLite's rules of affinity."""
    words = declared.upper()
    if "INT" in words:
        return pa.int64()
    if any(word in words for word in ("REAL", "FLOA", "DOUB")):
        return pa.float64()
    return pa.binary() if "BLOB" in words else pa.string()


def _text(cell: Any, kind: pa.DataType) -> Any:
    """A number in a column of text: dates and booleans can be either."""
    return str(cell) if pa.types.is_string(kind) and isinstance(cell, int | float) else cell


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
