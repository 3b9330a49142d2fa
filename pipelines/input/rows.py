"""Between Arrow and rows: input columns as Python values, with what cannot be used told apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa


def sound(table: pa.Table, read: Collection[str] | None = None) -> tuple[pa.Table, dict[int, str]]:
    """``table`` with null for every value that cannot be used, and the rows that had one.

    That is what breaks its type (text that is not UTF-8), and in a column that is ``read`` (all by default) a time
    that no Python object holds (the year 300,000). One such value would spoil the conversion of its whole column; the
    first kind would be written on into the output, too.

    Returns:
        The table, and for each bad row (counted from 0) a sentence that says which column it is.
    """
    bad: dict[int, str] = {}
    for i, name in enumerate(table.column_names):
        column = table.column(i)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            places: list[int | None] = list(range(table.num_rows))
            for row in range(table.num_rows):
                try:
                    column.slice(row, 1).combine_chunks().validate(full=True)
                except pa.ArrowInvalid as error:
                    places[row] = None
                    bad.setdefault(row, f"the column {name!r} holds what is no {column.type}: {error}")
            column = column.take(pa.array(places, pa.int64()))
            table = table.set_column(i, name, column)
        if (read is None or name in read) and _may_not_convert(column.type) and not _converts(column):
            kept: list[int | None] = list(range(table.num_rows))
            for row in range(table.num_rows):
                if not _converts(column.slice(row, 1)):
                    kept[row] = None
                    bad.setdefault(row, f"the column {name!r} holds a {column.type} that no calendar or clock holds")
            table = table.set_column(i, name, column.take(pa.array(kept, pa.int64())))
    return table, bad


def _may_not_convert(kind: pa.DataType) -> bool:
    """Whether there are values of the type that have no Python object: times, and what holds them."""
    if pa.types.is_dictionary(kind):
        return _may_not_convert(kind.value_type)
    if kind.num_fields:
        return any(_may_not_convert(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind))


def _converts(column: pa.ChunkedArray) -> bool:
    try:
        column.to_pylist()
    except (ArithmeticError, ValueError):
        return False
    return True


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a sound ``table`` as mappings."""
    return table.to_pylist() if table.num_columns else [{} for _ in range(table.num_rows)]


def plain_value(scalar: pa.Scalar) -> Any:
    """A value as Python for looking at; as text where no Python object holds it (the year 300,000)."""
    try:
        return scalar.as_py()
    except (ArithmeticError, ValueError):
        return str(scalar.value) if pa.types.is_temporal(scalar.type) else f"({scalar.type})"
