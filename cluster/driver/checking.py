"""``headrace check``: all checks of a run, without starting anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from headrace.cluster.driver.preflight import Preflights
from headrace.cluster.engines.locate import locate_models
from headrace.cluster.engines.provider import Located
from headrace.cluster.state.checked import check, notes_of, step_fields
from headrace.pipelines.output.stages import Stage, stages_of
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check: the output's columns (without the kept ones if no input was given), and notes."""

    pipeline: Pipeline
    stages: tuple[Stage, ...]
    models: Mapping[str, Located]
    fields: tuple[pa.Field, ...]
    notes: tuple[str, ...]
    shards: int | None = None
    rows: int | None = None


def check_pipeline(pipeline: Pipeline, input: str | None) -> CheckReport:
    """Check ``pipeline`` alone, or against ``input``.

    Raises:
        UserError: the mistakes that were found.
    """
    if input is None:
        fields = tuple(step_fields(pipeline))
        stages = stages_of(pipeline)
        models = locate_models(pipeline, stages)
        with Preflights.begin(pipeline, stages, models) as preflight:
            preflight.finish()
        return CheckReport(pipeline, stages, models, fields, notes_of(pipeline, stages))
    checked = check(pipeline, input)
    stages, models = checked.stages, checked.models
    with Preflights.begin(pipeline, stages, models) as preflight:
        preflight.finish()
    corpus = checked.corpus
    fields = tuple(checked.schema)
    return CheckReport(pipeline, stages, models, fields, checked.notes, len(corpus.shards), corpus.rows)
