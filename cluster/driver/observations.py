"""Keeps what a run did for the next forecast."""

from __future__ import annotations

from headrace.cluster.driver.history import read_history, write_history
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.state.checked import Checked
from headrace.cluster.state.totals import StageTotals, Totals
from headrace.pipelines.forecast.forecast import History, Observation
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
