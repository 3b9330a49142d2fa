"""Results of rows as the table of a chunk, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace.pipelines.inference.results import DeadLetter, RowResult
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.output.checkpoint import DIGEST, DIGEST_TYPE, Counts, chunk_schema
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.spec.errors import UserError


def earlier_results(table: pa.Table, chunk: Chunk) -> list[RowResult]:
    """Each row of a chunk as an earlier stage left it. Rows that are not in its ``table`` were filtered out."""
    results = [RowResult(row, "filtered") for row in range(chunk.first, chunk.last)]
    for values in table.drop_columns(["_shard"]).to_pylist():
        row, outcome, error = (values.pop(name) for name in ("_row", "_outcome", "_error"))
        results[row - chunk.first] = RowResult(row, outcome, values, DeadLetter.stored(error) if error else None)
    return results


def digests(table: pa.Table, key: Sequence[str], reads: Sequence[str]) -> list[bytes]:
    """16 bytes for each row: the same for rows with the same key that are equal in everything the pipeline reads.

    Types do not count if values print alike: an integer is the same in 32 and in 64 bits.
    """
    rows = as_rows(table.select(list(dict.fromkeys((*key, *sorted(reads))))))
    return [
        hashlib.blake2b(repr(list(row.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for row in rows
    ]


def count(results: Sequence[RowResult]) -> Counts:
    """The number of results by outcome."""
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
        digests: of all rows of a keyed chunk, in the file's order; its filtered rows are in the table too.
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
                "class": str(result.dead.error_class),
                "rule": result.dead.rule or None,
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
            try:
                columns[field.name] = _column(answers, field.type)
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
                row, value = _misfit(there, answers, field.type)
                # Not the value itself: logs must hold nothing of a row.
                raise UserError(
                    f"{chunk.path} row {row}: the operator of the column {field.name!r} returned a value of the type "
                    f"{type(value).__name__!r}, which does not fit into {field.type}. It must reject such an answer"
                ) from error
    return pa.table({field.name: columns[field.name] for field in schema}, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _misfit(results: Sequence[RowResult], values: list[Any], kind: pa.DataType) -> tuple[int, Any]:
    """The first row whose value does not fit the type, and the value."""
    for result, value in zip(results, values, strict=True):
        try:
            _column([value], kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return result.row, value
    raise AssertionError("each value by itself fits its column")


def _text(text: str) -> str:
    """Text that Arrow can hold: a lone surrogate becomes the replacement character."""
    return text.encode("utf-8", "replace").decode()
