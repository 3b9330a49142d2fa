"""A table in memory as an input: the same checks as for files, and rows as a chain takes them."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from headrace.pipelines.input.arrow_types import kept_type
from headrace.pipelines.input.corpus import Corpus, Shard, Variant
from headrace.pipelines.input.rows import Rows, fitted, rows_without_columns, sound

TABLE = "table"
"""The name of a table where messages name a file."""


def corpus_of(schema: pa.Schema, rows: int) -> Corpus:
    """A table in memory as a corpus of one shard. Its rows cannot be read through a source."""
    columns = pa.schema([pa.field(field.name, kept_type(field.type)) for field in schema])
    return Corpus("", (Shard(TABLE, TABLE, 0, "", rows, TABLE),), (Variant(columns, TABLE),))


def table_rows(table: pa.Table, columns: pa.Schema, used: Collection[str] | None = None) -> Rows:
    """The rows of a table, with ``columns`` of these types. A row that has a value that cannot be used is bad.

    ``used`` are the columns that become Python values, all by default; see :func:`~.rows.sound`.
    """
    if not columns.names:
        return Rows(rows_without_columns(table.num_rows))
    found = fitted(table, columns)
    whole, unusable = sound(found.table, used)
    return Rows(whole, {**unusable, **found.bad})
