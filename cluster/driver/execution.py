"""Where a run's workers are: what every such place does.

:mod:`~headrace.cluster.driver.on_ray` has workers on a Ray cluster, :mod:`~headrace.cluster.driver.on_this_machine` one
in a process beside this one. Both give the same worker the same assignment and the same chunks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.cluster.driver.measured_answers import Known
from headrace.cluster.driver.trial import Found, Task, Trial
from headrace.cluster.engines.resources import NOTHING, Allotment, Demand
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.chunks import ChunkRecord, Descriptor
from headrace.cluster.state.engine_of import engine_config
from headrace.cluster.state.totals import Totals
from headrace.cluster.worker.assignment import Assignment
from headrace.operators.base import ModelStep
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.spread import Place, spread
from headrace.pipelines.output.carried_answers import Origin
from headrace.pipelines.output.names import priors_name
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.stages import Stage, commits
from headrace.pipelines.spec.resources import Resources
from headrace.pipelines.storage.store import Store

MEASURING_CHUNKS = 2
"""How many times the time of a chunk a measurement may take before its engine counts as hanging."""

NO_ENGINE = Demand("copying answers", Resources(gpus=0, cpus=1), 0, NOTHING)
"""What a worker needs that only copies answers."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers of one stage: their assignment and their resources."""

    assignment: Assignment
    allotment: Allotment


class Execution:
    """The workers of a run, in a pool for each stage."""

    place = ""
    """Where they are, for the summary."""
    board = ""
    """The folder in which workers put what the driver reads of them; empty for Ray's key-value store."""
    measures_apart = True
    """Whether a measurement starts an engine of its own."""

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
        self.known: Known = {}
        """What a measurement has answered already."""

    @property
    def gpus(self) -> bool:
        """Whether engines have GPUs."""
        return any(allotment.gpus > 0 for allotment in self._allotments)

    def measure(self, stage: Stage, task: Task) -> Found:
        """Measure the layouts of a model on a sample, on an engine like a worker's.

        Raises:
            ChunksFailed: the engine does not start, dies or hangs.
        """
        raise NotImplementedError

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
            ChunksFailed: the workers cannot start, or were given up.
        """
        raise NotImplementedError

    def end(self) -> None:
        """Stop the workers, and what this process started for them."""
        raise NotImplementedError

    def _trial(self, stage: Stage, task: Task) -> Trial:
        """A measurement on an engine of a stage."""
        checked = self._checked
        return Trial(
            checked.pipeline.to_data(),
            folder_of(checked),
            checked.columns,
            engine_config(checked, self._allotments[stage.number - 1], stage),
            task,
        )

    def _measuring_seconds(self, stage: Stage) -> float:
        """The time after which the engine of a measurement counts as hanging."""
        return MEASURING_CHUNKS * self._checked.pipeline.resources_of(stage.model).chunk_seconds

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
                    known=self.known,
                    key=plan.key,
                    reads=plan.reads,
                    sample=sample,
                    priors_file=priors_name(plan.number, infos[i].suffix),
                    traced=self.traced,
                    board=self.board,
                ),
                allotment,
            )
            for i, (stage, allotment) in enumerate(zip(checked.stages, self._allotments, strict=True))
        ]


def _sample(checked: Checked, plan: Plan) -> tuple[Place, ...]:
    """The rows that workers take priors of labels from, if a step needs some and the plan has none."""
    asking = (step for step in checked.pipeline.steps if isinstance(step, ModelStep))
    if not any(step.samples_priors and step.name not in plan.priors for step in asking):
        return ()
    return tuple((shard.near(row), row) for shard, row in spread(checked.corpus.shards, PRIOR_ROWS))


def folder_of(checked: Checked) -> str | None:
    """The folder that Map's functions are imported from."""
    return checked.pipeline.code_folder


def descriptor(plan: Plan, chunk: Chunk) -> str:
    return Descriptor(chunk, plan.shards[chunk.shard].as_found().near(chunk.first)).to_json()
