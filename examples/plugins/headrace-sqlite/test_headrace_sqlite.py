"""Tables as headrace finds and reads them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from headrace_sqlite import MARK_ROWS, Sqlite

from headrace import UserError
from headrace.pipelines.input import InputChanged, Rows, Shard
from headrace.pipelines.input.reader import ChunkReader


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tickets 1.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, text TEXT, score REAL, seen DATE)")
        rows = [(row * 2, f"ticket {row}", row / 2, row) for row in range(MARK_ROWS + 5)]
        database.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?)", rows)
        database.execute("CREATE TABLE notes (text TEXT)")
        database.execute("INSERT INTO notes VALUES (CAST(x'ff' AS TEXT)), (x'00'), ('fine')")
    return path


def read(shard: Shard, schema: pa.Schema, first: int, last: int) -> Rows:
    return ChunkReader(schema, named=lambda _: Sqlite()).read(shard, first, last, schema.names)


@pytest.mark.parametrize("scheme", ["sqlite:", "sqlite://", ""])
def test_a_table_is_a_shard(file: Path, scheme: str) -> None:
    corpus = Sqlite().find(f"{scheme}{file}")
    assert [(shard.path, shard.rows) for shard in corpus.shards] == [("notes", 3), ("tickets", MARK_ROWS + 5)]
    [tickets] = Sqlite().find(corpus.shards[1].uri).shards
    assert tickets == corpus.shards[1]
    assert tickets.marks == ((0, 0), (MARK_ROWS, 2 * MARK_ROWS))


def test_any_rows_are_read_from_the_mark_before_them(file: Path) -> None:
    corpus = Sqlite().find(f"sqlite:{file}/tickets")
    assert corpus.schema == pa.schema(
        {"id": pa.int64(), "text": pa.string(), "score": pa.float64(), "seen": pa.string()}
    )
    for first in (0, 7, MARK_ROWS - 1, MARK_ROWS, MARK_ROWS + 3):
        rows = read(corpus.shards[0].near(first), corpus.schema, first, first + 2)
        wanted = [
            {"id": row * 2, "text": f"ticket {row}", "score": row / 2, "seen": str(row)} for row in (first, first + 1)
        ]
        assert (rows.table.to_pylist(), rows.bad) == (wanted, {})


def test_what_is_no_text_is_its_rows_trouble(file: Path) -> None:
    corpus = Sqlite().find(f"sqlite:{file}/notes")
    rows = read(corpus.shards[0], corpus.schema, 0, 3)
    assert rows.table["text"].to_pylist()[2] == "fine"
    assert list(rows.bad) == [0]


def test_a_change_is_noticed(file: Path) -> None:
    corpus = Sqlite().find(f"sqlite:{file}/notes")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM notes")
    with pytest.raises(InputChanged, match="has changed since it was planned"):
        read(corpus.shards[0], corpus.schema, 0, 3)


@pytest.mark.parametrize(
    ("place", "says"), [("none.sqlite", "there is no file"), ("tickets 1.sqlite/none", "no such table")]
)
def test_what_is_not_there_is_said(file: Path, place: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Sqlite().find(f"sqlite:{file.parent}/{place}")
