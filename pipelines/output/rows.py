"""Between Arrow and rows: input columns as Python values, results as the table of a chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from headrace.pipelines.inference.results import DeadLetter, RowResult
from headrace.pipelines.output.checkpoint import DIGEST, DIGEST_TYPE, Counts, chunk_schema
from headrace.pipelines.output.plan import Chunk


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


def earlier_results(table: pa.Table, chunk: Chunk) -> list[RowResult]:
    """Each row of a chunk as an earlier stage left it: those that are not in its ``table`` were filtered out."""
    results = [RowResult(row, "filtered") for row in range(chunk.first, chunk.last)]
    for values in table.drop_columns(["_shard"]).to_pylist():
        row, outcome, error = (values.pop(name) for name in ("_row", "_outcome", "_error"))
        results[row - chunk.first] = RowResult(row, outcome, values, DeadLetter(**error) if error else None)
    return results


def digests(table: pa.Table, key: Sequence[str], reads: Sequence[str]) -> list[bytes]:
    """16 bytes for each row: the same for rows that have the same key, and the same in all that the pipeline reads.

    Types do not count where values print alike: an integer is one whether it is kept in 32 bits or in 64.
    """
    rows = as_rows(table.select(list(dict.fromkeys((*key, *sorted(reads))))))
    return [
        hashlib.blake2b(repr(list(row.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for row in rows
    ]


def count(results: Sequence[RowResult]) -> Counts:
    """Results by outcome."""
    outcomes = [result.outcome for result in results]
    return Counts(outcomes.count("answered"), outcomes.count("filtered"), outcomes.count("dead"))


def chunk_table(
    part: pa.Schema, chunk: Chunk, results: Sequence[RowResult], keep: pa.Table, digests: Sequence[bytes] | None = None
) -> pa.Table:
    """The table that :func:`~headrace.pipelines.output.checkpoint.commit_chunk` takes.

    Args:
        part: the schema of a part.
        results: one for each row of the chunk, in any order.
        keep: the kept columns of the chunk's rows, in the file's order.
        digests: of all rows of a keyed chunk, in the file's order; its filtered rows are in the table, too.
    """
    whole = digests is not None
    there = sorted((r for r in results if whole or r.outcome != "filtered"), key=lambda result: result.row)
    kept = keep.take(pa.array([result.row - chunk.first for result in there], pa.int64()))
    columns: dict[str, Any] = {
        "_shard": pa.array([chunk.path] * len(there), pa.string()),
        "_row": pa.array([result.row for result in there], pa.int64()),
        **{name: kept[name] for name in kept.column_names},
        "_outcome": pa.array([result.outcome for result in there], pa.string()),
    }
    schema = chunk_schema(part, keyed=whole)
    if digests is not None:
        columns[DIGEST] = pa.array([digests[result.row - chunk.first] for result in there], DIGEST_TYPE)
    columns["_error"] = pa.array(
        [
            None
            if result.dead is None
            else {
                "step": result.dead.step,
                "reason": _text(result.dead.reason),
                "raw": _text(result.dead.raw),
                "tries": result.dead.tries,
            }
            for result in there
        ],
        schema.field("_error").type,
    )
    for field in part:
        if field.name not in columns:
            answers = [r.answers.get(field.name) if r.outcome != "filtered" else None for r in there]
            columns[field.name] = _column(answers, field.type)
    return pa.table({field.name: columns[field.name] for field in schema}, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _text(text: str) -> str:
    """Text that Arrow can hold: a lone surrogate becomes the replacement character."""
    return text.encode("utf-8", "replace").decode()
