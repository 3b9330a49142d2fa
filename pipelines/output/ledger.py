"""Which chunks of a plan are done, in one byte per chunk: a corpus may have millions.

The files are the ledger (see ``checkpoint``); this is what the driver remembers of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Set
from itertools import chain, compress
from typing import Any

from headrace.pipelines.output.plan import Chunk, Plan, PlannedShard


class Ledger(Set[Chunk]):
    """A set of chunks of one plan. Chunks that are not in the plan are never in it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Of shards that are done in part: a byte for each chunk, and how many are left.
        self._marks: dict[int, bytearray] = {}
        self._missing: dict[int, int] = {}
        self._whole: set[int] = set()
        # Of shards with several spans: what `PlannedShard.chunks_before` says.
        self._before: dict[int, list[int]] = {}

    def add(self, chunk: Chunk) -> bool:
        """Add a chunk. Returns whether it is a chunk of the plan, and new here."""
        shard = self._shard(chunk.shard, chunk.path)
        return shard is not None and self.mark(shard, chunk.plan, chunk.first, chunk.last)

    def mark(self, shard: PlannedShard, plan: int, first: int, last: int) -> bool:
        """:meth:`add` for the chunk of ``shard`` that plan number ``plan`` cut for these rows."""
        place = None if shard.index in self._whole else self._place(shard, plan, first, last)
        if place is None:
            return False
        marks = self._marks.get(shard.index)
        if marks is None:
            marks = self._marks[shard.index] = bytearray(shard.chunk_count)
            self._missing[shard.index] = len(marks)
        if marks[place]:
            return False
        marks[place] = 1
        self._missing[shard.index] -= 1
        if not self._missing[shard.index]:
            self.add_shard(shard)
        return True

    def add_shard(self, shard: PlannedShard) -> None:
        """All chunks of a shard are done."""
        self._marks.pop(shard.index, None)
        self._missing.pop(shard.index, None)
        self._before.pop(shard.index, None)
        self._whole.add(shard.index)

    def has_all_of(self, shard: PlannedShard) -> bool:
        """Whether the shard has no unfinished chunk."""
        return shard.index in self._whole or not shard.chunk_count

    def __contains__(self, chunk: object) -> bool:
        if not isinstance(chunk, Chunk):
            return False
        shard = self._shard(chunk.shard, chunk.path)
        place = None if shard is None else self._place(shard, chunk.plan, chunk.first, chunk.last)
        return place is not None and (
            chunk.shard in self._whole or (chunk.shard in self._marks and bool(self._marks[chunk.shard][place]))
        )

    def __iter__(self) -> Iterator[Chunk]:
        return self.chunks_of(self._plan.shards)

    def chunks_of(self, shards: Iterable[PlannedShard]) -> Iterator[Chunk]:
        """The chunks of ``shards`` that are done."""
        return chain.from_iterable(self._of(shard) for shard in shards)

    def __len__(self) -> int:
        shards = self._plan.shards
        part = sum(map(len, self._marks.values())) - sum(self._missing.values())
        return sum(shards[i].chunk_count for i in self._whole) + part

    @classmethod
    def _from_iterable(cls, chunks: Iterable[Any]) -> Set[Any]:
        return set(chunks)

    @property
    def rows(self) -> int:
        """Rows of the chunks that are done."""
        shards = self._plan.shards
        return sum(shards[i].covered for i in self._whole) + sum(
            chunk.rows for i in self._marks for chunk in self._of(shards[i])
        )

    @property
    def left(self) -> Left:
        """The remaining chunks as of now, in files that still exist."""
        return Left(self._plan, self)

    def left_of(self, shard: PlannedShard) -> Iterator[Chunk]:
        """The remaining chunks of a shard."""
        if shard.index in self._whole:
            return iter(())
        marks = self._marks.get(shard.index)
        if marks is None:
            return shard.chunks()
        return compress(shard.chunks(), (not mark for mark in bytes(marks)))

    def _of(self, shard: PlannedShard) -> Iterator[Chunk]:
        if shard.index in self._whole:
            return shard.chunks()
        return compress(shard.chunks(), bytes(self._marks.get(shard.index, b"")))

    def _place(self, shard: PlannedShard, plan: int, first: int, last: int) -> int | None:
        if len(shard.spans) < 2:
            return shard.place(plan, first, last, (0,))
        before = self._before.get(shard.index)
        if before is None:
            before = self._before[shard.index] = shard.chunks_before()
        return shard.place(plan, first, last, before)

    def _shard(self, index: int, path: str) -> PlannedShard | None:
        shards = self._plan.shards
        return shards[index] if index < len(shards) and shards[index].path == path else None


class Left(Collection[Chunk]):
    """The remaining chunks, made as they are requested."""

    def __init__(self, plan: Plan, done: Ledger) -> None:
        self._plan = plan
        self._done = done

    def __iter__(self) -> Iterator[Chunk]:
        for shard in self._plan.shards:
            if not shard.gone:
                yield from self._done.left_of(shard)

    def __len__(self) -> int:
        gone = sum(1 for _ in self._done.chunks_of(shard for shard in self._plan.shards if shard.gone))
        return sum(shard.chunk_count for shard in self._plan.shards if not shard.gone) - (len(self._done) - gone)

    def __contains__(self, chunk: object) -> bool:
        return isinstance(chunk, Chunk) and not self._plan.shards[chunk.shard].gone and chunk not in self._done
