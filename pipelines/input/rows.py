"""Conversion between Arrow and rows: input columns as Python values and back, with unusable values told apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.pipelines.input.arrow_types import fit

CONVERSION = (pa.ArrowException, TypeError, ValueError, ArithmeticError, RecursionError)
"""What Arrow raises for Python values that do not fit a type."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a shard as they were read.

    Attributes:
        table: the requested columns.
        bad: why a row cannot be used, by its position in ``table``. The row is included, with nulls for what is lost.
    """

    table: pa.Table
    bad: Mapping[int, str] = field(default_factory=dict)


def from_python(
    values: Sequence[Mapping[str, Any]], schema: pa.Schema, convert: Callable[[Any, pa.DataType], Any] | None = None
) -> Rows:
    """Rows given as mappings, with the columns of ``schema``; null if a row lacks the key.

    A value that does not fit its column's type becomes null, and its row is bad.

    >>> rows = from_python([{"id": 1}, {"id": "x"}], pa.schema({"id": pa.int64()}))
    >>> rows.table["id"].to_pylist(), list(rows.bad)
    ([1, None], [1])

    Args:
        convert: makes a value fit a type; called for columns that contain a value that does not fit.
    """
    bad: dict[int, str] = {}
    columns = []
    for column in schema:
        cells = [row.get(column.name) for row in values]
        try:
            array = pa.array(cells, column.type)
        except CONVERSION:
            array = _one_by_one(cells, column, convert or (lambda cell, _: cell), bad)
        columns.append(pa.chunked_array([array], column.type))
    return Rows(pa.Table.from_arrays(columns, schema=schema), bad)


def _one_by_one(
    cells: Sequence[Any], column: pa.Field, convert: Callable[[Any, pa.DataType], Any], bad: dict[int, str]
) -> pa.Array:
    fitting = []
    for row, cell in enumerate(cells):
        try:
            fitting.append(convert(cell, column.type))
            pa.array(fitting[-1:], column.type)
        except CONVERSION as error:
            fitting[row:] = [None]
            bad.setdefault(row, f"the column {column.name!r} has a value that is not of type {column.type}: {error}")
    return pa.array(fitting, column.type)


def fitted(table: pa.Table, schema: pa.Schema) -> Rows:
    """``table`` with the columns and types of ``schema``. A value that does not fit makes its row bad.

    Raises:
        KeyError: a column is missing.
    """
    table = table.select(schema.names)
    try:
        return Rows(fit(table, schema))
    except pa.ArrowException:
        pass  # by columns, and in the one that does not fit by rows
    bad: dict[int, str] = {}
    columns = [_fitted(table[column.name], column, 0, bad) for column in schema]
    return Rows(pa.Table.from_arrays(columns, schema=schema), bad)


def _fitted(column: pa.ChunkedArray, wanted: pa.Field, first: int, bad: dict[int, str]) -> pa.ChunkedArray:
    """A column cast to its type, by halves down to values that cannot be cast. ``first`` is its first row's number."""
    try:
        return column.cast(wanted.type)
    except pa.ArrowException as error:
        if len(column) == 1:
            bad.setdefault(first, f"the column {wanted.name!r} has a value that is not of type {wanted.type}: {error}")
            return pa.chunked_array([pa.nulls(1, wanted.type)])
    half = len(column) // 2
    parts = [
        _fitted(column.slice(0, half), wanted, first, bad),
        _fitted(column.slice(half), wanted, first + half, bad),
    ]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], wanted.type)


def sound(table: pa.Table, read: Collection[str] | None = None) -> tuple[pa.Table, dict[int, str]]:
    """``table`` with null for every value that cannot be used, and the rows that had one.

    Such values are those that break their type (text that is not UTF-8), and in a column that is ``read`` (all by
    default) times that no Python object can hold (the year 300,000). One of them would break the conversion of its
    whole column; the first kind would also end up in the output.

    Returns:
        The table, and for each bad row (counted from 0) a sentence that names the column.
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
                    bad.setdefault(row, f"the column {name!r} has a value that is not of type {column.type}: {error}")
            column = column.take(pa.array(places, pa.int64()))
            table = table.set_column(i, name, column)
        if (read is None or name in read) and _may_not_convert(column.type) and not _converts(column):
            kept: list[int | None] = list(range(table.num_rows))
            for row in range(table.num_rows):
                if not _converts(column.slice(row, 1)):
                    kept[row] = None
                    bad.setdefault(row, f"the column {name!r} has a {column.type} beyond what Python can represent")
            table = table.set_column(i, name, column.take(pa.array(kept, pa.int64())))
    return table, bad


def _may_not_convert(kind: pa.DataType) -> bool:
    """Whether some values of the type have no Python object: times, and types that contain them."""
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


def rows_without_columns(rows: int) -> pa.Table:
    """A table of so many rows with no columns, for a pipeline that reads none."""
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(pa.nulls(rows, pa.struct([])).fill_null({}))])


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a sound ``table`` as mappings."""
    return table.to_pylist() if table.num_columns else [{} for _ in range(table.num_rows)]


def plain_value(scalar: pa.Scalar) -> Any:
    """A value as Python, for display; as text if no Python object can hold it (the year 300,000)."""
    try:
        return scalar.as_py()
    except (ArithmeticError, ValueError):
        return str(scalar.value) if pa.types.is_temporal(scalar.type) else f"({scalar.type})"
