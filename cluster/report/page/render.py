"""Renders a report's content as its page.

All values go through Jinja's escaping, so a document is shown as plain text. A content security policy also forbids
scripts, and all styles except the page's own.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from headrace.cluster.report.page.answers import AnswersView, inspected
from headrace.cluster.report.page.charts import Charts
from headrace.cluster.report.page.content import ReportContent
from headrace.cluster.report.page.formats import moment, visible
from headrace.cluster.report.page.overview import attention, outcomes, tiles
from headrace.cluster.report.page.plan import cost_note, cost_rows, plan_view
from headrace.cluster.report.page.rows import letter_groups, row_view
from headrace.cluster.report.page.timeline import timeline

SECTIONS = (
    ("glance", "At a glance"),
    ("outcomes", "Outcomes"),
    ("labels", "Labels"),
    ("confidence", "Confidence"),
    ("lengths", "Lengths"),
    ("nulls", "Nulls"),
    ("rows", "Rows"),
    ("dead", "Dead letters"),
    ("time", "Over time"),
    ("cost", "Cost"),
    ("plan", "Plan"),
)

NUMBER_CHARACTERS = 16
"""A cell with more characters is not a number, and may be wrapped."""


def render(content: ReportContent) -> str:
    """The page as HTML text."""
    return _template().render(_context(content))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["chart"] = lambda value: isinstance(value, Markup)
    environment.tests["words"] = lambda value: isinstance(value, str) and len(value) > NUMBER_CHARACTERS
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return files("headrace.cluster.report.page").joinpath(name).read_text(encoding="utf-8")


def _context(content: ReportContent) -> dict[str, Any]:
    """What the template needs, in the order of the page."""
    report, columns = content.report, content.inspection.stats.columns
    charts = Charts()
    answers = AnswersView(content, charts)
    return {
        **_frame(content),
        "tiles": tiles(report),
        "attention": attention(content),
        "notes": [*(report.get("notes") or []), *content.warnings],
        "outcomes": outcomes(content, charts),
        "inspected": inspected(content),
        "labels": answers.labels(),
        "confidences": answers.confidences(),
        "lengths": answers.lengths(),
        "tokens_out": answers.tokens_out(),
        "nulls": answers.nulls(),
        "random": [row_view(row, columns) for row in content.random],
        "least_sure": [row_view(row, columns) for row in content.least_sure],
        "dead": letter_groups(content),
        "dead_note": "" if report["dead_letters"]["all"] else "Only the first 200,000 were read.",
        "timeline": timeline(report, charts),
        "cost": cost_rows(report["cost"]),
        "cost_note": cost_note(report["cost"]),
        "plan": plan_view(report, columns),
    }


def _frame(content: ReportContent) -> dict[str, Any]:
    """The frame around the sections: the style, and the identity of the output."""
    report = content.report
    style = _resource("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    previous = report["previous"]
    return {
        "style": Markup(style),  # ours, and free of "</style"
        "style_hash": f"sha256-{digest}",
        "pipeline": report["pipeline"],
        "status": report["status"],
        "status_kind": "good" if report["complete"] else "bad",
        "output": report["output"],
        "plan_number": report["plan"],
        "created": moment(report["created"]),
        "made": moment(report["report"]["made"]),
        "redacted": report["report"]["redacted"],
        "made_up": report["made_up"],
        "version": report["report"]["headrace"],
        "sections": SECTIONS,
        "held_against": f"{previous['what']} ({moment(previous['made'])})" if previous else "",
    }
