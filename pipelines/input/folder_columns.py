"""Columns in the names of an input's folders, as Hive and Spark write them: ``day=2026-05-04/part.parquet``.

They are text, whatever they look like: a type that depends on the values of all folders would change with the next one.
A column that files have themselves is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import pyarrow as pa

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark call a folder whose rows have no value."""

_MARK = {b"headrace": b"folder"}
"""The metadata of a field whose values are in the names of folders."""


def folder_values(path: str) -> dict[str, str | None]:
    """The columns in the names of the folders of a file's path, with their values.

    >>> folder_values("day=2026-05-04/shop=A%2FB/part-0.parquet")
    {'day': '2026-05-04', 'shop': 'A/B'}
    """
    if "=" not in path:
        return {}
    named = (folder.split("=", 1) for folder in path.split("/")[:-1] if folder.find("=") > 0)
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, value in named}


def folder_columns(paths: Iterable[str]) -> tuple[str, ...]:
    """The names of the columns in the folders of files, in the order of first appearance."""
    return tuple(dict.fromkeys(name for path in paths if "=" in path for name in folder_values(path)))


def with_folder_columns(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """``schema`` with a column for each of ``names`` that it does not have."""
    there = set(schema.names)
    return pa.schema([*schema, *(pa.field(name, pa.string(), metadata=_MARK) for name in names if name not in there)])


def is_folder_column(field: pa.Field) -> bool:
    """Whether the values of a column are in the names of folders."""
    return (field.metadata or {}).items() >= _MARK.items()


def with_folder_values(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """Rows of a file with the columns of ``schema``: those in ``table``, and those in the names of its folders."""
    if table.num_columns == len(schema):
        return table
    values = folder_values(path)
    columns = [
        pa.array([values.get(field.name)] * table.num_rows, field.type)
        if is_folder_column(field)
        else table.column(field.name)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
