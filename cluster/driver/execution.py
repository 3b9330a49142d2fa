"""Ray: chunk descriptors go through a pool of workers, or through one pool after another with several models.

Neither documents nor answers travel: a descriptor is a few hundred bytes, and the worker reads its own rows. A chunk
enters at the stage that it needs next. While the second stage works on it, the first works on the next chunk.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from headrace.cluster.driver.measure import sample_rows
from headrace.cluster.driver.ray_connection import LOCAL, cluster_gpus, connect, disconnect, node_cpus
from headrace.cluster.driver.trial import Found, measure_and_look
from headrace.cluster.driver.watcher import Watcher
from headrace.cluster.engines.resources import NOTHING, Allotment, Demand, cores, gpus_here
from headrace.cluster.engines.sharing import share
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord, Descriptor
from headrace.cluster.state.engine_of import demand_of, engine_config
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.assignment import Assignment
from headrace.cluster.worker.chunk_runner import CHUNKS_AT_ONCE
from headrace.cluster.worker.worker import Worker
from headrace.operators.base import ModelStep
from headrace.pipelines.forecast.outlook import sample_size
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.spread import Place, spread
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.names import priors_name
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.stages import commits
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.resources import Resources
from headrace.pipelines.storage.store import Store

MOST_IN_A_BLOCK = 500
"""Chunks in a block of descriptors: some 200 kB."""

MOST_AT_ONCE = 500
"""Blocks that are enough to keep any number of workers busy; this bounds the blocks of a run to a few thousand."""

RECORDS_BYTES = 8 << 10
"""Records are returned in batches of up to this many bytes (about ten records): each batch costs the driver
milliseconds."""


NO_ENGINE = Demand("copying answers", Resources(gpus=0, cpus=1), 0, NOTHING)
"""What a worker needs that only copies answers."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers of one stage: their assignment and their resources."""

    assignment: Assignment
    allotment: Allotment


class Execution:
    """The pools of workers of a run on a Ray cluster, one for each stage."""

    def __init__(
        self, checked: Checked, store: Store, allotments: Sequence[Allotment], idle: Collection[int] = ()
    ) -> None:
        self._checked = checked
        self._store = store
        self._allotments = allotments
        self.run_id = uuid.uuid4().hex[:12]
        self.traced = False
        """Whether workers record times in the records of chunks, for traces."""
        self._idle = idle

    @classmethod
    def begin(cls, checked: Checked, store: Store, address: str | None, idle: Collection[int] = ()) -> Execution:
        """Connect to Ray, or start it here, and divide the machine.

        Args:
            idle: numbers of stages that need no engine.

        Raises:
            UserError: the cluster cannot be reached, or lacks the resources that the pipeline needs.
        """
        address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        demands = [NO_ENGINE if stage.number in idle else demand_of(checked, stage) for stage in checked.stages]
        cpus = cores()
        if address == LOCAL:
            # Before Ray takes its seconds to start.
            allotments = share(demands, cluster_gpus=gpus_here(), node_cpus=cpus, local=True)
            # Engines that have a core each, on a machine with fewer cores, take turns.
            cpus = max(cpus, sum(allotment.cpus * allotment.least for allotment in allotments))
        connect(address, cpus)
        try:
            if address != LOCAL:
                allotments = share(demands, cluster_gpus=cluster_gpus(), node_cpus=node_cpus(), local=False)
            return cls(checked, store, allotments, idle)
        except BaseException:
            disconnect()
            raise

    @property
    def gpus(self) -> bool:
        """Whether the first stage's engines have GPUs."""
        return self._allotments[0].gpus > 0

    def measure(self, seen: Survey) -> Found:
        """Measure the layouts on a sample, on an engine like a worker's.

        Raises:
            ChunksFailed: the engine does not start, or dies.
        """
        import ray
        from ray.exceptions import RayError

        checked, allotment = self._checked, self._allotments[0]
        task = ray.remote(num_cpus=allotment.cpus, num_gpus=allotment.gpus or None, max_retries=0)(measure_and_look)
        engine = engine_config(checked, allotment, checked.stages[0])
        sample = sample_rows(checked, sample_size(seen.rows))
        try:
            found: Found = ray.get(
                task.remote(checked.pipeline.to_data(), folder_of(checked), checked.columns, engine, sample, seen)
            )
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
        """Process the chunks, in any order; yield a record of each once it is committed or has failed.

        ``entering`` are the chunks to process, by the stage that they need next.
        ``origins`` say which answers of the chunks' bases are still valid.

        Raises:
            ChunksFailed: the workers cannot start, or Ray gave up on them.
        """
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
            with Watcher(run_id, watch):
                for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                    for text in batch["chunk"]:
                        record = Descriptor.from_json(text).record
                        assert record is not None, "a worker returns a record with each chunk"
                        yield record
        except RayError as error:
            raise ChunksFailed(explain(error)) from error

    def _pools(self, run_id: str, plan: Plan, origins: Mapping[int, Origin]) -> list[Pool]:
        """The pools for the stages of ``plan``."""
        checked, infos = self._checked, commits(plan, self._checked.pipeline, self._checked.stages)
        sample = _sample(checked, plan)
        return [
            Pool(
                Assignment(
                    run_id=run_id,
                    pipeline=checked.pipeline.to_data(),
                    folder=folder_of(checked),
                    engine=None if stage.number in self._idle else engine_config(checked, allotment, stage),
                    output=self._store.uri,
                    commit=infos[i],
                    layouts=plan.layouts,
                    priors=plan.priors,
                    columns=checked.columns,
                    keep=checked.keep if infos[i] is infos[-1] else (),
                    stage=stage.number,
                    steps=stage.steps,
                    before=infos[i - 1] if i else None,
                    chunk_seconds=checked.pipeline.resources_of(stage.model).chunk_seconds,
                    origins=origins,
                    key=plan.key,
                    reads=plan.reads,
                    sample=sample,
                    priors_file=priors_name(plan.number, infos[i].suffix),
                    traced=self.traced,
                ),
                allotment,
            )
            for i, (stage, allotment) in enumerate(zip(checked.stages, self._allotments, strict=True))
        ]

    def end(self) -> None:
        """Stop the workers, and Ray if this process started it."""
        disconnect()


def _sample(checked: Checked, plan: Plan) -> tuple[Place, ...]:
    """The rows that workers take priors of labels from, if a step needs some and the plan has none."""
    asking = (step for step in checked.pipeline.steps if isinstance(step, ModelStep))
    if not any(step.samples_priors and step.name not in plan.priors for step in asking):
        return ()
    return tuple((shard.near(row), row) for shard, row in spread(checked.corpus.shards, PRIOR_ROWS))


def folder_of(checked: Checked) -> str | None:
    """The folder that Map's functions are imported from."""
    return str(checked.pipeline.folder) if checked.pipeline.folder else None


def descriptor(plan: Plan, chunk: Chunk) -> str:
    return Descriptor(chunk, plan.shards[chunk.shard].as_found().near(chunk.first)).to_json()


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
