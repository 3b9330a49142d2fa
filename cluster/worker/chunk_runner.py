"""Runs the rows of one chunk through the chain, all at once or some of them; identical rows run once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import EngineDied
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, Earlier, RowResult
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.output.plan import Chunk

CHUNKS_AT_ONCE = 4
"""Chunks in flight at one engine, so that the next one fills the tail of the one before."""

ROWS_PER_SLICE = 256
"""Rows converted into Python objects at a time."""


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """What is known of a chunk's rows before they run.

    Attributes:
        table: the input columns that the pipeline reads, one row for each row of the chunk.
        bad: rows (counted from the chunk's first) that cannot be used, with the reasons.
        earlier: each row's result from the stage before, or from an earlier plan.
    """

    chunk: Chunk
    table: pa.Table
    bad: Mapping[int, str]
    earlier: Sequence[RowResult]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks for the progress of a chunk's rows.

    Attributes:
        in_flight: holds the rows that an engine or a function is working on.
        first: is called when the engine gets a row and has no other.
        done: is called with each finished row.
        died: is called when the engine has died, while the rows in flight are still known; does not return.
    """

    in_flight: set[int]
    first: Callable[[], None]
    done: Callable[[RowResult], None]
    died: Callable[[EngineDied], None]


class ChunkRunner:
    """One attempt at a chunk.

    Args:
        here: the steps that run here.
        unasked: those of them that cannot run, because there is no engine.
    """

    def __init__(
        self, chain: Chain, rows: ChunkRows, hooks: Hooks, *, here: Collection[str], unasked: Collection[str] = ()
    ) -> None:
        self._chain = chain
        self._chunk = rows.chunk
        self._table = rows.table
        self._bad = rows.bad
        self._earlier = rows.earlier
        self._hooks = hooks
        self._here = frozenset(here)
        self._unasked = frozenset(unasked)
        self._first: dict[bytes, asyncio.Task[RowResult]] = {}
        self._given_up: dict[bytes, DeadLetter] = {}
        self._results: dict[int, RowResult] = {}

    @property
    def results(self) -> list[RowResult]:
        """The results of all rows that have run so far."""
        return list(self._results.values())

    def give_up(self, row: int, letter: DeadLetter) -> None:
        """Make a row a dead letter without running it, and all rows identical to it."""
        for _, values in self._rows({row}):
            self._given_up[_digest(values, self._earlier[row - self._chunk.first])] = letter

    def left(self) -> list[int]:
        """Rows that are not finished."""
        return [row for row in range(self._chunk.first, self._chunk.last) if row not in self._results]

    def was_asked(self, row: int) -> bool:
        """Whether a finished row was sent to the engine."""
        return self._results[row].usage.requests > 0

    async def ask(self, wanted: Collection[int] | None = None) -> None:
        """Run rows (by default all) through the chain; finished rows are left as they are.

        Only as many rows are started ahead as the window can soon take.
        """
        gate = asyncio.Semaphore(2 * self._chain.window.documents)
        try:
            async with asyncio.TaskGroup() as group:
                for row, values in self._rows(wanted):
                    if row not in self._results:
                        await self._take(row, values, group, gate)
        except ExceptionGroup as errors:
            # One is enough to say: what fails one row's way fails others' alike.
            raise errors.exceptions[0] from errors

    async def _take(
        self, row: int, values: Mapping[str, Any], group: asyncio.TaskGroup, gate: asyncio.Semaphore
    ) -> None:
        """Settle a row at once, or start the task that will."""
        before = self._earlier[row - self._chunk.first]
        key = _digest(values, before)
        if (reason := self._bad.get(row - self._chunk.first)) is not None:
            before = unless_settled(before, DeadLetter(DOCUMENT, ErrorClass.INPUT_DAMAGED, reason))
        elif key in self._given_up:
            before = unless_settled(before, self._given_up[key])
        if before.outcome != "answered":
            self._end(before)
            return
        known = replace(before.earlier or Earlier(), answers=before.answers)
        if before.usage.reused or known.steps >= self._here:
            await self._reuse(row, values, known, before.usage.reused)
            return
        if not known.steps >= self._unasked:
            raise RuntimeError(f"{self._chunk.name}: row {row} needs an engine, but none was started")
        if (same := self._first.get(key)) is not None:
            group.create_task(self._repeat(row, same))
            return
        await gate.acquire()
        self._first[key] = group.create_task(self._ask(row, values, known, gate))

    async def _ask(self, row: int, values: Mapping[str, Any], known: Earlier, gate: asyncio.Semaphore) -> RowResult:
        try:
            return self._end(await self._chain.run(row, values, known, partial(self._begin, row)))
        except EngineDied as error:
            self._hooks.died(error)
            raise
        finally:
            self._hooks.in_flight.discard(row)
            gate.release()

    async def _reuse(self, row: int, values: Mapping[str, Any], known: Earlier, reused: int) -> None:
        """Run the steps without a model for a row whose answers exist."""
        self._begin(row)  # a function may yet hang
        try:
            result = await self._chain.run(row, values, known)
        finally:
            self._hooks.in_flight.discard(row)
        result.usage.reused = reused
        self._end(result)

    async def _repeat(self, row: int, same: asyncio.Task[RowResult]) -> None:
        self._end((await same).repeated(row))

    def _begin(self, row: int) -> None:
        if not self._hooks.in_flight:
            self._hooks.first()
        self._hooks.in_flight.add(row)

    def _end(self, result: RowResult) -> RowResult:
        self._results[result.row] = result
        self._hooks.done(result)
        return result

    def _rows(self, wanted: Collection[int] | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        first = self._chunk.first
        chosen = None if wanted is None else set(wanted)
        for offset in range(0, self._chunk.rows, ROWS_PER_SLICE):
            rows = range(first + offset, min(first + offset + ROWS_PER_SLICE, self._chunk.last))
            if chosen is not None and chosen.isdisjoint(rows):
                continue
            for row, values in zip(rows, as_rows(self._table.slice(offset, ROWS_PER_SLICE)), strict=True):
                if chosen is None or row in chosen:
                    yield row, values


def unless_settled(result: RowResult, letter: DeadLetter) -> RowResult:
    """A row that cannot run any more is a dead letter, unless an earlier stage has settled it."""
    return RowResult(result.row, "dead", result.answers, letter) if result.outcome == "answered" else result


def _digest(values: Mapping[str, Any], before: RowResult) -> bytes:
    """A digest of everything that the chain gets of a row."""
    known = before.earlier or Earlier()
    told = (values, before.answers, sorted(known.steps), known.failed)
    return hashlib.blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).digest()
