"""``headrace check``: everything that a run would check, and nothing that it would start."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from headrace.cluster.preflight import Preflight
from headrace.cluster.run import check, check_model, step_fields
from headrace.pipelines.spec import Pipeline


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found: the output's columns (without the kept ones where no input was given), and what to know."""

    pipeline: Pipeline
    model: str
    fields: tuple[pa.Field, ...]
    notes: tuple[str, ...]
    shards: int | None = None
    rows: int | None = None


def check_pipeline(pipeline: Pipeline, input: str | None) -> CheckReport:
    """Check ``pipeline`` alone, or against the input.

    Raises:
        UserError: whatever is wrong.
    """
    if input is None:
        fields = tuple(step_fields(pipeline))
        notes = tuple(note for step in pipeline.steps for note in step.notes())
        model, revision, _, _ = check_model(pipeline)
        Preflight.begin(pipeline, model, revision).finish()
        return CheckReport(pipeline, model, fields, notes)
    checked = check(pipeline, input)
    Preflight.begin(pipeline, checked.model, checked.revision).finish()
    corpus = checked.corpus
    return CheckReport(pipeline, checked.model, tuple(checked.schema), checked.notes, len(corpus.shards), corpus.rows)
