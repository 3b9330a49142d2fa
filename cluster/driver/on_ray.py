"""Runs on Ray: chunk descriptors go through a pool of workers, or through one pool after another with several models.

Neither documents nor answers travel: a descriptor is a few hundred bytes, and the worker reads its own rows. A chunk
enters at the stage that it needs next. While the second stage works on it, the first works on the next chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from headrace.cluster.driver.execution import Execution, Pool, descriptor
from headrace.cluster.driver.ray_connection import disconnect
from headrace.cluster.driver.slots import waited_for
from headrace.cluster.driver.trial import Found, Task, measure_and_look
from headrace.cluster.driver.watcher import Watcher
from headrace.cluster.state.board import RayBoard
from headrace.cluster.state.chunks import ChunkRecord, Descriptor
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.cluster.worker.worker import Worker
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import ChunksFailed

MOST_IN_A_BLOCK = 500
"""Chunks in a block of descriptors: some 200 kB."""

MOST_AT_ONCE = 500
"""Blocks that are enough to keep any number of workers busy; this bounds the blocks of a run to a few thousand."""

RECORDS_BYTES = 8 << 10
"""Records are returned in batches of up to this many bytes (about ten records): each batch costs the driver
milliseconds."""


class RayExecution(Execution):
    """Workers on the Ray cluster that this process is connected to."""

    place = "Ray"

    def measure(self, stage: Stage, task: Task) -> Found:
        """Measure on an engine like a worker's; see the base class."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        allotment, most = self._allotments[stage.number - 1], self._measuring_seconds(stage)
        remote = ray.remote(num_cpus=allotment.cpus, num_gpus=allotment.gpus or None, max_retries=0)(measure_and_look)
        running = remote.remote(self._trial(stage, task))
        try:
            found: Found = ray.get(running, timeout=most)
        except GetTimeoutError as error:
            ray.cancel(running, force=True)
            raise ChunksFailed(f"The engine has not answered the sample within {most:g} s.") from error
        except RayError as error:
            raise ChunksFailed(explain(error)) from error
        return found

    def records(
        self,
        plan: Plan,
        entering: Sequence[Collection[Chunk]],
        watch: Callable[[Totals], None],
        origins: Mapping[int, Origin] | None = None,
    ) -> Iterator[ChunkRecord]:
        """Process the chunks; see the base class."""
        import ray
        from ray.exceptions import RayError

        _quiet()
        run_id = self.run_id
        dataset = None
        coming = 0
        for pool, chunks in zip(self._pools(run_id, plan, origins or {}), entering, strict=True):
            coming += len(chunks)
            if chunks:
                groups = block_sizes(len(chunks), CHUNKS_AT_ONCE * pool.allotment.most)
                rest = (descriptor(plan, chunk) for chunk in chunks)
                blocks = [pa.table({"chunk": pa.array(islice(rest, size), pa.string())}) for size in groups]
                entered = ray.data.from_blocks(blocks)  # from_arrow would start a task for each block to look at it
                dataset = dataset.union(entered) if dataset is not None else entered
            if dataset is not None:
                dataset = _through(dataset, pool, coming)
        if dataset is None:
            return
        try:
            with Watcher(RayBoard(), run_id, watch, waited_for):
                for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                    for text in batch["chunk"]:
                        record = Descriptor.from_json(text).record
                        assert record is not None, "a worker returns a record with each chunk"
                        yield record
        except RayError as error:
            raise ChunksFailed(explain(error)) from error

    def end(self) -> None:
        """Stop the workers, and Ray if this process started it."""
        disconnect()


def block_sizes(chunks: int, at_once: int) -> Iterator[int]:
    """Number of chunks in each block: many at first, one at the end, so that the workers finish together.

    A block costs the driver milliseconds and tens of kilobytes, so there cannot be one for each of a million chunks.
    ``at_once`` is the number of blocks that all workers together hold.
    """
    while chunks > 0:
        size = max(1, min(MOST_IN_A_BLOCK, chunks // (2 * min(at_once, MOST_AT_ONCE))))
        yield size
        chunks -= size


def _through(dataset: Any, pool: Pool, chunks: int) -> Any:
    """``dataset`` of ``chunks`` descriptors through a pool of workers."""
    import ray

    return dataset.map_batches(
        Worker,
        fn_constructor_args=(pool.assignment,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=min(pool.allotment.least, chunks),
            max_size=min(pool.allotment.most, chunks),
            max_tasks_in_flight_per_actor=CHUNKS_AT_ONCE,
            max_concurrent_calls_per_actor=CHUNKS_AT_ONCE,
        ),
        num_cpus=pool.allotment.cpus,
        num_gpus=pool.allotment.gpus or None,
    )


_LATER = "The above exception was the direct cause of the following exception"
"""What Python writes between an exception and one that was raised from it: Ray's own, in Ray's errors."""


def explain(error: Exception) -> str:
    """The message for a failure in Ray: the worker's own message if there is one, without stack frames."""
    text = str(error)
    if "EngineStartFailed" in text:
        return "The engine did not start. " + text.rpartition("EngineStartFailed:")[2].strip()
    lines = [line for line in text.partition(_LATER)[0].splitlines() if line.strip()]
    return "The workers failed: " + "\n".join(lines[-5:])


def _quiet() -> None:
    """Keep Ray Data's own bars and log lines out of the terminal; its log files have them."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = RECORDS_BYTES
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = 1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
