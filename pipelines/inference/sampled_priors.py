"""Priors of labels from the scores of a sample of rows, for the steps that take them from there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.layouts import Priors
from headrace.pipelines.inference.reaching import Reaching
from headrace.pipelines.spec.pipeline import Pipeline

SAMPLE_ROWS = 64
"""Rows of the input in a sample for priors."""

LEAST_ROWS = 16
"""With fewer rows a step keeps the priors of a document that says nothing: a mean over a few rows is chance."""


@dataclass(frozen=True, slots=True)
class SampledPriors:
    """Priors by step and option, and of how many rows they are taken; of none if there were too few."""

    priors: Priors = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)


async def sample_priors(
    chain: Chain, pipeline: Pipeline, columns: pa.Schema, rows: Sequence[Mapping[str, Any]]
) -> SampledPriors:
    """Ask about a sample of rows, and take the priors of steps that have none yet from their labels' scores.

    A row counts for a step if conditions on its columns let it through; answers are not known here. A step that too few
    rows reach gets the priors of a document that says nothing.

    Args:
        columns: the types of the input's columns.
        rows: the columns that the pipeline reads.

    Raises:
        RequestRefused, EngineDied: see :meth:`TokenEngine.complete`.
    """
    wanted = chain.samples_priors
    reaches = Reaching(pipeline, columns)
    asked = (chain.label_scores(row, [name for name in wanted if reaches(name, row)]) for row in rows)
    found = await asyncio.gather(*asked)
    priors: dict[str, Mapping[str, float]] = {}
    counts: dict[str, int] = {}
    for name in wanted:
        scores = [of_row[name] for of_row in found if name in of_row and chain.is_scored(name, of_row[name])]
        enough = scores if len(scores) >= LEAST_ROWS else []
        counts[name] = len(enough)
        priors[name] = await chain.prior_of_sample(name, enough)
    return SampledPriors(priors, counts)
