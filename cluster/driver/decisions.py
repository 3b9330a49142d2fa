"""The layouts that ``auto`` has chosen after a measurement: later outputs keep them, and are compared with that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from headrace.cluster.driver.history import read_history
from headrace.cluster.driver.observations import keep_history
from headrace.cluster.engines.locate import provider_of
from headrace.cluster.report.baseline import Baseline
from headrace.cluster.state.checked import Checked
from headrace.pipelines.forecast.forecast import Decision, History, terms_of
from headrace.pipelines.inference.layouts import REFERENCE, leaves_open
from headrace.pipelines.output.plan import Plan

DECIDED = "the run that decided the layouts"


def keep_decision(checked: Checked, plan: Plan, report: Mapping[str, Any]) -> list[str]:
    """Keep the layouts of a plan that were chosen after a measurement; return a note if that is not possible.

    Args:
        report: of the run, with which later ones are compared.
    """
    when = datetime.now(UTC).date().isoformat()
    made = Decision(plan.layouts, terms_of(checked.pipeline), when)
    notes: list[str] = []
    for stage in checked.stages:
        history = read_history(checked, stage)
        remembered = provider_of(checked.models[stage.model]).remembered
        measured = any(layout != REFERENCE for layout in history.measured)
        if (
            remembered
            and measured
            and leaves_open(checked.pipeline, stage.steps)
            and not history.keeps(checked.pipeline)
        ):
            # One of them is enough to compare with.
            baseline = Baseline.of_report(report, f"{DECIDED} ({when})").to_data() if stage.number == 1 else {}
            notes += keep_history(checked, replace(history, decided=replace(made, baseline=baseline)), stage)
    return notes


def as_before(history: History, plan: Plan) -> dict[str, Any] | None:
    """The run that decided the layouts, as a report of an output that has none before it takes it."""
    if history.decided is None or not history.decided.baseline:
        return None
    return {"plan": plan.number, "previous": dict(history.decided.baseline)}


def drifted(report: Mapping[str, Any]) -> list[str]:
    """What to do if the answers have moved since the layouts were decided."""
    since = (report.get("previous") or {}).get("what", "")
    if not since.startswith(DECIDED) or not any(shift["flagged"] for shift in report["drift"]):
        return []
    return [
        f"this is compared with {since}. If the documents have changed, the layouts and priors may no longer be the "
        "best: headrace explain --measure measures again, and the next output uses the result"
    ]
