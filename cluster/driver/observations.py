"""Keeps what a run did for the next forecast."""

from __future__ import annotations

from headrace.cluster.driver.history import read_history, write_history
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.totals import StageTotals, Totals
from headrace.pipelines.forecast.forecast import History, Observation
from headrace.pipelines.inference.sampled_priors import LEAST_ROWS, PRIOR_ROWS, SampledPriors
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.stages import Stage


def keep_observed(checked: Checked, totals: Totals, plan: Plan) -> list[str]:
    """Keep what each model's engines did, for the next forecast; return a note if that is not possible.

    All rows must have passed all models. The largest number of rows that reached a model is taken as the number of rows
    with a document.
    """
    documents = max((stage.documents for stage in totals.stages.values()), default=0)
    asked = max((stage.asked for stage in totals.stages.values()), default=0)
    notes: list[str] = []
    for stage in checked.stages:
        seen = totals.stages.get(stage.number)
        if seen is not None and provider_of(checked.models[stage.model]).remembered:
            run = _observation(seen, plan, totals.rows, documents, asked)
            notes += keep_history(checked, read_history(checked, stage).with_run(run, seen.engine), stage)
    return list(dict.fromkeys(notes))


def keep_priors(checked: Checked, plan: Plan, fixed: SampledPriors) -> list[str]:
    """Keep the priors of this run's sample, so that later outputs of the pipeline have the same; return notes."""
    said = [
        f"the priors of {step!r} are those of a document that says nothing, because fewer than {LEAST_ROWS} rows of a "
        f"sample of the input reach the step"
        for step, rows in fixed.rows.items()
        if not rows
    ]
    # The mean of a small input says little of the next one.
    whole = {step: prior for step, prior in fixed.priors.items() if fixed.rows[step] == PRIOR_ROWS}
    for stage in checked.stages:
        own = {step: prior for step, prior in whole.items() if step in stage.steps}
        if own and provider_of(checked.models[stage.model]).remembered:
            said += keep_history(checked, read_history(checked, stage).with_priors(plan.layouts, own), stage)
    return said


def keep_history(checked: Checked, history: History, stage: Stage | None = None) -> list[str]:
    """Keep what was observed; return a note if that is not possible."""
    try:
        write_history(checked, history, stage)
    except OSError as error:
        return [f"the observations of this run could not be stored for the next forecast: {error}"]
    return []


def _observation(totals: StageTotals, plan: Plan, rows: int, documents: int, asked: int) -> Observation:
    return Observation(
        layouts=plan.layouts,
        rows=rows,
        documents=documents,
        asked=asked,
        seconds=totals.busy_seconds,
        prompt=totals.usage.prompt,
        computed=totals.usage.prompt - totals.usage.cached,
        output=totals.usage.output,
        steps=totals.usage.steps,
    )
