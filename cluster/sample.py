"""``headrace sample``: a few rows through the whole chain, on an engine in this process, with nothing written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.cluster.engines import engine_config, start_engine
from headrace.cluster.preflight import Preflight
from headrace.cluster.resources import Allotment, allot, cores, gpus_here
from headrace.cluster.run import Checked, check
from headrace.pipelines.chain import DOCUMENT, Chain, DeadLetter, RowResult
from headrace.pipelines.corpus import ChunkReader, Shard
from headrace.pipelines.errors import UserError
from headrace.pipelines.graph import Graph
from headrace.pipelines.rows import as_rows, sound
from headrace.pipelines.spec import Pipeline


@dataclass(frozen=True, slots=True)
class Sampled:
    """A row and what became of it."""

    shard: str
    result: RowResult


def sample_pipeline(pipeline: Pipeline, input: str, rows: int) -> list[Sampled]:
    """Run ``rows`` rows, evenly spread over the input.

    Raises:
        UserError: whatever :func:`~headrace.cluster.run.check` finds, or an input without rows.
    """
    checked = check(pipeline, input)
    places = spread(checked.corpus.shards, rows)
    if not places:
        raise UserError("The input has no rows.")
    config = engine_config(checked, allot_one(checked))
    Preflight.begin(pipeline, checked.model, checked.revision).finish()
    print(f"headrace: starting the engine for {len(places)} rows", file=sys.stderr, flush=True)
    engine = start_engine(config)
    try:
        chain = Chain(pipeline, engine, checked.columns, keep_raw=True)
        return asyncio.run(_run(chain, checked, places))
    finally:
        engine.shutdown()


async def _run(chain: Chain, checked: Checked, places: Sequence[tuple[Shard, int]]) -> list[Sampled]:
    reader = ChunkReader(checked.columns)
    columns = Graph.of(checked.pipeline).input_columns
    await chain.start()

    async def one(shard: Shard, row: int) -> Sampled:
        table, bad = sound(reader.read(shard, row, row + 1, columns))
        if bad:
            return Sampled(shard.path, RowResult(row, "dead", dead=DeadLetter(DOCUMENT, bad[0])))
        return Sampled(shard.path, await chain.run(row, as_rows(table)[0]))

    return list(await asyncio.gather(*(one(shard, row) for shard, row in places)))


def allot_one(checked: Checked, *, starting: bool = True) -> Allotment:
    """What one engine on this machine gets; it must fit if it is ``starting``."""
    one = checked.pipeline.resources.model_copy(update={"workers": 1})
    return allot(one, cluster_gpus=gpus_here(), node_cpus=cores(), local=True, weights=checked.weights * starting)


def spread(shards: Sequence[Shard], rows: int) -> list[tuple[Shard, int]]:
    """``rows`` places (all, if there are fewer) at equal distances over the rows of all shards."""
    total = sum(shard.rows for shard in shards)
    wanted = sorted({i * total // rows for i in range(rows)}) if total > rows else list(range(total))
    places = []
    first = 0
    for shard in shards:
        places += [(shard, row - first) for row in wanted if first <= row < first + shard.rows]
        first += shard.rows
    return places
