"""The layouts and priors for rows that are at hand, where no plan fixes them: what a run over them would choose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.outlook import look_ahead
from headrace.pipelines.forecast.survey import survey_texts, text_of
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.spec.pipeline import Pipeline


def choose_at_hand(
    pipeline: Pipeline,
    model: ModelInterface,
    history: History,
    sample: Sequence[Mapping[str, Any]],
    rows: int,
    steps: Collection[str] | None = None,
) -> LayoutChoice:
    """The layouts, and known priors, for ``rows`` rows.

    Args:
        history: what earlier runs and measurements of the pipeline found. Where it is empty, the layouts are those that
            the pipeline fixes, else the default.
        sample: some of the rows: the columns that the pipeline reads.
        steps: those that run on this model; None for all.

    Raises:
        UserError: as in :func:`~headrace.pipelines.inference.prepare.prepare`.
    """
    if not history.quality and not history.priors:
        return LayoutChoice({}, "nothing is known of this pipeline")
    template = pipeline.document_template
    seen = survey_texts([text_of(template, values) for values in sample], model.tokenizer, rows)
    return look_ahead(pipeline, model, seen, history, steps=steps).choice
