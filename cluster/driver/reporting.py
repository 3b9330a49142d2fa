"""The report at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headrace.cluster.driver.clock import Clock
from headrace.cluster.state.result import RunResult
from headrace.pipelines.output.names import REPORT
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


def report_before(store: Store) -> dict[str, Any] | None:
    """The last run's report; None if there is none, or if it cannot be read."""
    try:
        last = json.loads(store.read(REPORT))
    except (OSError, ValueError):
        return None
    return last if isinstance(last, dict) else None


def report_complete(store: Store, plan: Plan, settings: ReportSettings, result: RunResult, clock: Clock) -> None:
    """Write the report of a complete output if the run before did not, or if it is damaged.

    What only that run knew, its tokens and seconds, is lost with a damaged report.
    """
    last = report_before(store)
    if last is None:
        result.notes.append(f"{REPORT} was missing or damaged, and is made again without the run's tokens and seconds")
        facts = {"plan": plan.number, "counts": asdict(result.counts), "layouts": dict(plan.layouts), "previous": None}
        last = {"status": "complete", **facts}
    if "seen" not in last:
        report(store, plan, last, None, settings, result, clock)


def report(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    settings: ReportSettings,
    result: RunResult,
    clock: Clock,
) -> dict[str, Any] | None:
    """Write the report; return its figures. A failure becomes a note, because the run itself is done."""
    from headrace.cluster.report.writing import TROUBLE, write_report

    with clock.phase("reporting"):
        try:
            written = write_report(store, plan, facts, settings, before=before)
        except TROUBLE as problem:
            result.notes.append(
                f"the report could not be written ({type(problem).__name__}: {problem}). The output itself is not "
                f"affected. To try again: headrace report {shown(result.output)}"
            )
            return None
    result.report = written.page
    result.notes += written.warnings
    return dict(written.content.report)
