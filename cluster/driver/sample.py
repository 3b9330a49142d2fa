"""``headrace sample``: runs a few rows through all steps, on an engine in this process. Nothing is written.

With several models, their engines are started one after another, each for all rows.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

from headrace.cluster.driver.preflight import Preflights
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.engines.resources import Allotment, Demand, allot, cores, gpus_here
from headrace.cluster.engines.sharing import share
from headrace.cluster.engines.starting import start_beside_a_user
from headrace.cluster.state.checked import Checked, check
from headrace.cluster.state.engine_of import engine_config
from headrace.operators.error_classes import ErrorClass
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.results import DOCUMENT, DeadLetter, RowResult
from headrace.pipelines.inference.sampled_priors import SAMPLE_ROWS as PRIOR_ROWS
from headrace.pipelines.inference.sampled_priors import sample_priors
from headrace.pipelines.input.corpus import Shard
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.rows import as_rows
from headrace.pipelines.input.spread import rows_at, spread
from headrace.pipelines.output.stages import Stage
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row and its result."""

    shard: str
    result: RowResult


def sample_pipeline(pipeline: Pipeline, input: str, rows: int) -> list[Sampled]:
    """Run ``rows`` rows, evenly spread over the input.

    Raises:
        UserError: whatever :func:`~headrace.cluster.state.checked.check` finds, or an input without rows.
    """
    checked = check(pipeline, input)
    places = spread(checked.corpus.shards, rows)
    if not places:
        raise UserError("The input has no rows.")
    configs = [engine_config(checked, allot_one(checked, stage), stage) for stage in checked.stages]
    with Preflights.begin(pipeline, checked.stages, checked.models) as preflight:
        preflight.finish()
    taken = [Sampled(shard.path, RowResult(row, "answered")) for shard, row in places]
    for stage, config in zip(checked.stages, configs, strict=True):
        which = f" {stage.number} of {len(configs)}" if len(configs) > 1 else ""
        print(f"headrace: starting the engine{which} for {len(places)} rows", file=sys.stderr, flush=True)
        engine = start_beside_a_user(config)
        try:
            chain = Chain(pipeline, engine, checked.columns, steps=stage.steps, keep_raw=True)
            taken = asyncio.run(_run(chain, checked, zip(places, taken, strict=True)))
        finally:
            engine.shutdown()
    return taken


async def _run(chain: Chain, checked: Checked, taken: Iterable[tuple[tuple[Shard, int], Sampled]]) -> list[Sampled]:
    reader = ChunkReader(checked.columns)
    columns = Graph.of(checked.pipeline).input_columns
    if chain.samples_priors:
        rows = rows_at(reader, spread(checked.corpus.shards, PRIOR_ROWS), columns)
        sampled = await sample_priors(chain, checked.pipeline, checked.columns, rows)
        chain.know_priors(sampled.priors)
    await chain.start()

    async def one(shard: Shard, before: RowResult) -> Sampled:
        if before.outcome != "answered":
            return Sampled(shard.path, before)
        row = before.row
        read = reader.read(shard, row, row + 1, columns)
        if read.bad:
            return Sampled(shard.path, _damaged(row, read.bad[0]))
        result = await chain.run(row, as_rows(read.table)[0], before.answers)
        result.usage.merge(before.usage)
        result.raw = {**before.raw, **result.raw}
        return Sampled(shard.path, result)

    return list(await asyncio.gather(*(one(shard, before.result) for (shard, _), before in taken)))


def _damaged(row: int, reason: str) -> RowResult:
    return RowResult(row, "dead", dead=DeadLetter(DOCUMENT, ErrorClass.INPUT_DAMAGED, reason))


def allot_one(checked: Checked, stage: Stage | None = None, *, starting: bool = True) -> Allotment:
    """The resources of one engine that has this machine to itself: the engine of ``stage``, by default the first.

    If it is ``starting``, it must fit into the available memory.
    """
    demand = _one(checked, stage or checked.stages[0])
    if not starting:
        demand = replace(demand, weights=0)
    return allot(demand, cluster_gpus=gpus_here(), node_cpus=cores(), local=True)


def _one(checked: Checked, stage: Stage) -> Demand:
    """What one engine of a stage needs."""
    located = checked.models[stage.model]
    return Demand(
        f"the model {located.source}",
        checked.pipeline.resources_of(stage.model).model_copy(update={"workers": 1}),
        located.weights,
        provider_of(located).needs,
    )


def allot_each(checked: Checked, *, starting: bool = True) -> tuple[tuple[Allotment, ...], str]:
    """The resources of one engine per model when they share this machine, as in a run.

    If they do not fit at once, the resources of each alone, and the reason. Each alone must fit: see
    :func:`allot_one`.
    """
    alone = tuple(allot_one(checked, stage, starting=starting) for stage in checked.stages)
    if len(alone) == 1:
        return alone, ""
    demands = [_one(checked, stage) for stage in checked.stages]
    try:
        return share(demands, cluster_gpus=gpus_here(), node_cpus=cores(), local=True), ""
    except UserError as problem:
        return alone, str(problem)
