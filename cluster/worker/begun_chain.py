"""A chain for rows in memory, for which no plan fixes layouts and priors: begun with those that a run would take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import Engine
from headrace.pipelines.inference.layouts import LayoutChoice, Priors
from headrace.pipelines.inference.sampled_priors import sample_priors
from headrace.pipelines.spec.pipeline import Pipeline


async def begin_chain(
    pipeline: Pipeline,
    engine: Engine,
    columns: pa.Schema,
    steps: Collection[str],
    choice: LayoutChoice,
    sample: Callable[[], Sequence[Mapping[str, Any]]],
    *,
    keep_raw: bool = False,
) -> tuple[Chain, Priors]:
    """The chain, which is ready for rows, and the priors that were taken from a sample, by step.

    Args:
        columns: the types of the input's columns.
        steps: the names of the steps that run here.
        choice: the layouts, and priors that are known.
        sample: returns rows to take the priors of other steps from; called if some come from a sample.

    Raises:
        RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
    """
    chain = Chain(pipeline, engine, columns, choice.layouts, choice.priors, steps=steps, keep_raw=keep_raw)
    taken: Priors = {}
    if chain.samples_priors:
        taken = (await sample_priors(chain, pipeline, columns, sample())).priors
        chain.know_priors(taken)
    await chain.start()
    return chain, taken
