"""Writes a report into its output: ``report.html``, and ``report.json`` with the figures.

``report.json`` contains no rows. The page does, unless it is redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from headrace.cluster.report.build import build_report
from headrace.cluster.report.page.content import ReportContent
from headrace.pipelines.output.checkpoint import Unaccounted
from headrace.pipelines.output.folder import json_bytes
from headrace.pipelines.output.names import REPORT, REPORT_PAGE
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.locations import shown
from headrace.pipelines.storage.store import Store

TROUBLE = (
    OSError,  # the storage, and files that are gone
    pa.ArrowException,  # a damaged part
    UserError,  # the previous output is not one
    Unaccounted,  # a part that somebody else has written
    TemplateError,  # a page that cannot be rendered
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,  # a value of a kind that no statistic is prepared for
    MemoryError,
)
"""Errors that a report can run into. None of them may fail a run, because its work is done."""

MOST_WARNINGS = 3
"""Most shifts that the summary of a run lists."""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A written report: the location of its page, and what needs attention."""

    page: str
    warnings: tuple[str, ...]
    content: ReportContent


def write_report(
    store: Store,
    plan: Plan,
    facts: Mapping[str, Any],
    settings: ReportSettings,
    *,
    before: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> WrittenReport:
    """Build the report of an output and write it there; see :func:`~headrace.cluster.report.build.build_report`.

    Raises:
        TROUBLE: the report cannot be built or written.
    """
    from headrace.cluster.report.page.render import render

    content = build_report(store, plan, facts, settings, before=before, strict=strict)
    # The page first: where the figures are there, the page is, too.
    store.replace(REPORT_PAGE, render(content).encode("utf-8", "replace"))
    store.replace(REPORT, json_bytes(content.report))
    place = f"{shown(store.uri).rstrip('/')}/{REPORT_PAGE}"
    return WrittenReport(place, (*content.warnings, *content.flagged[:MOST_WARNINGS]), content)
