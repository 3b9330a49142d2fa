"""A pipeline's steps over tables in memory, on engines of this process: the worker's chain without its commits.

Rows go through the same :class:`~headrace.cluster.worker.chunk_runner.ChunkRunner` as a worker's, so equal rows run
once, and no more rows are in flight than the engine has room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE, ChunkRows, ChunkRunner, Hooks
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import EngineDied
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.input.rows import Rows, as_rows
from headrace.pipelines.input.tables import TABLE
from headrace.pipelines.output.checkpoint import ERROR
from headrace.pipelines.output.plan import Chunk
from headrace.pipelines.output.rows import chunk_table
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.pipeline import Pipeline

MADE = ("_shard", "_row", "_outcome", "_error", *(f"_{field.name}" for field in ERROR))
"""Columns that headrace makes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of a table, with what is known of each."""

    chunk: Chunk
    rows: Rows
    results: Sequence[RowResult]

    @classmethod
    def of(cls, rows: Rows, first: int = 0, path: str = TABLE) -> Piece:
        """Rows that nobody has been asked about; ``first`` is the number of the first one."""
        last = first + rows.table.num_rows
        return cls(Chunk(0, 0, path, first, last), rows, [RowResult(row, "answered") for row in range(first, last)])


def pieces(rows: Rows, size: int) -> list[Piece]:
    """A table cut into pieces of ``size`` rows."""
    cut = []
    for first in range(0, rows.table.num_rows, size):
        bad = {row - first: why for row, why in rows.bad.items() if first <= row < first + size}
        cut.append(Piece.of(Rows(rows.table.slice(first, size), bad), first))
    return cut


def rows_of(whole: Sequence[Piece], most: int) -> list[dict[str, Any]]:
    """At most so many undamaged rows of a table, at equal distances, as Python values."""
    total = sum(piece.chunk.rows for piece in whole)
    wanted = sorted({i * total // most for i in range(most)}) if total > most else list(range(total))
    found: list[dict[str, Any]] = []
    for piece in whole:
        here = [row - piece.chunk.first for row in wanted if piece.chunk.first <= row < piece.chunk.last]
        found += as_rows(piece.rows.table.take([row for row in here if row not in piece.rows.bad]))
    return found


async def answer(
    chain: Chain, steps: Collection[str], piece: Piece, done: Callable[[RowResult], None] = lambda _: None
) -> list[RowResult]:
    """Send a piece's rows through the steps of a chain that has been started; return their results in order.

    Args:
        done: is called with each finished row.

    Raises:
        ChunksFailed: the engine died.
    """
    hooks = Hooks(set(), lambda: None, done, lambda _: None)
    runner = ChunkRunner(
        chain, ChunkRows(piece.chunk, piece.rows.table, piece.rows.bad, piece.results), hooks, here=steps
    )
    try:
        await runner.ask()
    except EngineDied as error:
        first, last = piece.chunk.first, piece.chunk.last - 1
        raise ChunksFailed(
            f"The engine died at rows {first} to {last} of the {piece.chunk.path}: {error}. If one of them kills "
            "engines, `headrace run` finds it, and makes it a dead letter."
        ) from error
    return sorted(runner.results, key=lambda result: result.row)


async def answer_all(
    chain: Chain, steps: Collection[str], whole: Sequence[Piece], done: Callable[[RowResult], None]
) -> list[Piece]:
    """:func:`answer` for all pieces of a table, some at a time; return them with their results."""
    turn = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def one(piece: Piece) -> Piece:
        async with turn:
            return Piece(piece.chunk, piece.rows, await answer(chain, steps, piece, done))

    tasks = [asyncio.ensure_future(one(piece)) for piece in whole]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def result_table(fields: pa.Schema, piece: Piece) -> pa.Table:
    """The answered and the dead rows of a piece: ``_row``, the answers, ``_outcome`` and ``_error``.

    ``fields`` is the schema of a part without kept columns.
    """
    nothing = piece.rows.table.select([])
    return chunk_table(fields, piece.chunk, piece.results, nothing).drop_columns(["_shard"])


def kept(pipeline: Pipeline, columns: Sequence[str], fields: pa.Schema) -> list[str]:
    """The columns of a table that stay beside the answers: those in ``keep``, or all if it is not set.

    An answer replaces a column of the same name.
    """
    wanted = columns if pipeline.keep is None else pipeline.keep
    return [name for name in columns if name in wanted and name not in fields.names and name not in MADE]
