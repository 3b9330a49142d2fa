"""Between Arrow and rows: input columns as Python values, results as the table of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from headrace.pipelines.chain import RowResult
from headrace.pipelines.checkpoint import Counts, chunk_schema
from headrace.pipelines.plan import Chunk


def as_rows(table: pa.Table) -> list[Mapping[str, Any] | str]:
    """The rows of ``table`` as mappings; a row whose values are no Python values (text that is not UTF-8) is the
    sentence that says so."""
    if not table.num_columns:
        return [{} for _ in range(table.num_rows)]
    try:
        return list(table.to_pylist())
    except (UnicodeDecodeError, ValueError, OverflowError):
        # One bad cell spoils the conversion of its whole column; row by row it spoils only its own.
        return [_row(table, i) for i in range(table.num_rows)]


def _row(table: pa.Table, i: int) -> Mapping[str, Any] | str:
    values = {}
    for name in table.column_names:
        try:
            values[name] = table[name][i].as_py()
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            return f"the column {name!r} cannot be read: {error}"
    return values


def count(results: Sequence[RowResult]) -> Counts:
    """Results by outcome."""
    outcomes = [result.outcome for result in results]
    return Counts(outcomes.count("answered"), outcomes.count("filtered"), outcomes.count("dead"))


def chunk_table(part: pa.Schema, chunk: Chunk, results: Sequence[RowResult], keep: pa.Table) -> pa.Table:
    """The table that :func:`~headrace.pipelines.checkpoint.commit_chunk` takes.

    Args:
        part: the schema of a part.
        results: one for each row of the chunk, in any order.
        keep: the kept columns of the chunk's rows, in the file's order.
    """
    there = sorted((result for result in results if result.outcome != "filtered"), key=lambda result: result.row)
    kept = keep.take(pa.array([result.row - chunk.first for result in there], pa.int64()))
    columns: dict[str, Any] = {
        "_shard": pa.array([chunk.path] * len(there), pa.string()),
        "_row": pa.array([result.row for result in there], pa.int64()),
        **{name: kept[name] for name in kept.column_names},
        "_outcome": pa.array([result.outcome for result in there], pa.string()),
    }
    schema = chunk_schema(part)
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
            columns[field.name] = _column([result.answers.get(field.name) for result in there], field.type)
    return pa.table({field.name: columns[field.name] for field in schema}, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _text(text: str) -> str:
    """Text that Arrow can hold: a lone surrogate becomes the replacement character."""
    return text.encode("utf-8", "replace").decode()
