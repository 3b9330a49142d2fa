"""Makes the parts of finished shards while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore

from headrace.pipelines.output.checkpoint import committed
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.plan import Chunk, Plan, PlannedShard
from headrace.pipelines.output.publish import publish_shard
from headrace.pipelines.output.stages import sweep
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.storage.store import Store

PUBLISHERS = 4
"""Parts made at the same time; each mostly waits for the disk or for an object store."""


class Publisher:
    """Makes a shard's part as soon as its last chunk is committed, a few at a time, in threads.

    Leaving the context waits for the parts in progress. ``staged``: stages have left files of their own.
    ``made`` is called from another thread with each shard whose part is made.

    Raises (from any method, and on leaving):
        Unaccounted, OSError: a part could not be made.
        Superseded: another run has planned the output again.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        done: Ledger,
        published: Collection[int],
        *,
        staged: bool = False,
        made: Callable[[int], None] = lambda shard: None,
    ) -> None:
        self.store = store
        self._staged = staged
        self._tell = made
        self._plan = plan
        self._done = done
        self._published = published
        self._pool = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="publish")
        self._room = BoundedSemaphore(2 * PUBLISHERS)
        self._failure: BaseException | None = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ended = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(cancel_futures=ended)
        if kind is None and self._failure is not None:
            raise self._failure

    def publish_ready(self) -> None:
        """Publish shards that earlier runs finished but did not publish; remove leftover files of published ones."""
        for shard in self._plan.shards:
            if shard.has_part and not shard.gone and self._done.has_all_of(shard):
                self._publish(shard)
        if self._staged:
            sweep(self.store, (self._plan.shards[index] for index in self._published))

    def add(self, chunk: Chunk) -> bool:
        """Note that a chunk is committed; return whether that is new."""
        self._check()
        new = self._done.add(chunk)
        shard = self._plan.shards[chunk.shard]
        if new and self._done.has_all_of(shard):
            self._publish(shard)
        return new

    def unheard_of(self) -> list[Chunk]:
        """The chunks left although none failed: they are committed, but their records were lost.

        Raises:
            ChunksFailed: they are not committed.
        """
        left = list(self._done.left)
        there = committed(self.store, self._plan) if left else ()
        if missing := [chunk for chunk in left if chunk not in there]:
            raise ChunksFailed(
                f"{len(missing)} chunks were not returned by any worker. Committed chunks are kept. "
                "Run the same command again."
            )
        return left

    def _publish(self, shard: PlannedShard) -> None:
        if shard.index in self._published:
            return
        self._room.acquire()
        self._check()
        self._pool.submit(self._make, shard).add_done_callback(self._made)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _make(self, shard: PlannedShard) -> None:
        publish_shard(self.store, self._plan, shard)
        if self._staged:
            sweep(self.store, [shard])
        self._tell(shard.index)

    def _made(self, made: Future[None]) -> None:
        if not made.cancelled() and (failure := made.exception()) is not None:
            self._failure = failure
        self._room.release()
