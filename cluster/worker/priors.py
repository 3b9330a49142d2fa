"""Fixes the priors of labels that are taken from a sample of rows, before the first row is answered."""

from __future__ import annotations

import asyncio

from headrace.cluster.worker.assignment import Assignment
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.sampled_priors import sample_priors
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.spread import Place, rows_at
from headrace.pipelines.output.fixed_priors import FixedPriors, fix_priors, read_priors
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.store import Store


async def settle_priors(
    chain: Chain, pipeline: Pipeline, assignment: Assignment, store: Store, reader: ChunkReader, *, deaths: int
) -> None:
    """Give ``chain`` the priors that all workers use; if there are none yet, take them from the sample.

    Args:
        deaths: how often the engine has died before its first answer, perhaps of a row of the sample.

    Raises:
        EngineDied, OSError, UserError: the sample cannot be read or asked.
    """
    if not chain.samples_priors:
        return
    name = assignment.priors_file
    try:
        fixed = await asyncio.to_thread(read_priors, store, name)
    except FileNotFoundError:
        places = _without_suspects(assignment.sample, deaths)
        rows = await asyncio.to_thread(rows_at, reader, places, Graph.of(pipeline).input_columns)
        found = await sample_priors(chain, pipeline, assignment.columns, rows)
        fixed = await asyncio.to_thread(fix_priors, store, name, FixedPriors(found.priors, found.rows))
    chain.know_priors(fixed.priors)


def _without_suspects(places: tuple[Place, ...], deaths: int) -> tuple[Place, ...]:
    """The sample to try: all of it, then every second row, then none. A row that kills engines must not end the run."""
    return places[::2] if deaths == 1 else places if not deaths else ()
