"""The report at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.cluster.driver.clock import Clock
from headrace.cluster.state.result import RunResult
from headrace.pipelines.output.names import REPORT
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store


def last_report(store: Store) -> dict[str, Any]:
    """The report of the run that completed the output."""
    last: dict[str, Any] = json.loads(store.read(REPORT))
    return last


def report_before(store: Store) -> dict[str, Any] | None:
    """The last run's report; None if there is none, or if it cannot be read."""
    try:
        return last_report(store)
    except (OSError, ValueError):
        return None


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
