"""``report.json``, and the output that it lies in."""

from __future__ import annotations

import json
from typing import Any

from headrace.pipelines.output.folder import REPORT
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.opening import open_store
from headrace.pipelines.storage.store import Store

FORMAT = 1
"""Version of what a report adds to ``report.json``."""


def open_output(output: str) -> tuple[Store, Plan]:
    """An output and its latest plan.

    Raises:
        UserError: it is no output of headrace.
    """
    store = open_store(output)
    plan = load_plan(store)
    if plan is None:
        raise UserError(f"{output!r} is no output of headrace: there is no plan in it.")
    return store, plan


def read_report(store: Store) -> dict[str, Any] | None:
    """``report.json``; None where there is none, or it is damaged."""
    try:
        found = json.loads(store.read(REPORT))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
