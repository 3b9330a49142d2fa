"""``report.json``, and its output."""

from __future__ import annotations

import json
from typing import Any

from headrace.pipelines.output.names import REPORT
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store

FORMAT = 1
"""Format version of what a report adds to ``report.json``."""


def open_output(output: str) -> tuple[Store, Plan]:
    """An output and its latest plan.

    Raises:
        UserError: it is not an output of headrace.
    """
    store = reached_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(
            f"{output!r} is not an output of headrace: it contains no plan. Name the output folder of a run."
        )
    return store, plan


def read_report(store: Store) -> dict[str, Any] | None:
    """``report.json``; None if it is missing or damaged."""
    try:
        found = json.loads(store.read(REPORT))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
