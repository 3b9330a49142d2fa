"""The sections "At a glance" and "Rows by outcome": the outcomes of rows, and what needs attention."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headrace.cluster.observability.pace import duration
from headrace.cluster.report.page.charts import Charts
from headrace.cluster.report.page.content import ReportContent
from headrace.cluster.report.page.formats import cut, first_names, money, share_of, short_count
from headrace.cluster.report.page.shifts import ShiftView, shift_view

TOO_MANY_DEAD = "too many dead letters"
"""The status of a run that the error limit has ended."""

Tile = tuple[str, str, str]
"""Name, value, and a remark."""


@dataclass(frozen=True, slots=True)
class OutcomesView:
    """Rows by outcome: a chart, the rows of its table, and remarks."""

    chart: Markup
    rows: list[tuple[Markup, str, str]]
    shift: ShiftView | None
    said: str


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """The figures at the top of the page."""
    counts = report["counts"]
    rows = sum(counts.values())
    found = [
        ("answered", f"{counts['answered']:,}", share_of(counts["answered"], rows)),
        ("filtered out", f"{counts['filtered']:,}", share_of(counts["filtered"], rows)),
        ("dead letters", f"{counts['dead']:,}", share_of(counts["dead"], rows)),
    ]
    totals, cost = report.get("totals") or {}, report["cost"]
    running = (report.get("seconds") or {}).get("running")
    if running and totals.get("rows"):
        fresh = max(0, totals["rows"] - totals.get("usage", {}).get("reused", 0))
        found.append(("rows per second", f"{fresh / running:,.3g}", f"in {duration(running)}, including the start"))
    if cost["prompt_tokens"]:
        share = share_of(cost["cached_tokens"], cost["prompt_tokens"])
        found.append(("prompt tokens", short_count(cost["prompt_tokens"]), f"{share} from the cache"))
        found.append(("output tokens", short_count(cost["output_tokens"]), ""))
    if cost["money"] is not None:
        found.append(("money", money(cost["money"]), f"{cost['gpu_hours']:,.3g} GPU-hours"))
    elif cost["gpu_hours"]:
        found.append(("GPU-hours", f"{cost['gpu_hours']:,.3g}", ""))
    return found


def attention(content: ReportContent) -> list[str]:
    """What needs attention, in sentences."""
    report = content.report
    counts = report["counts"]
    lines = []
    if report["status"] == TOO_MANY_DEAD:
        lines.append(
            "The output is not complete: more rows are dead letters than max_error_rate allows. Committed chunks are "
            f"kept. To see why: headrace errors {shlex.quote(report['output'])}"
        )
    elif not report["complete"]:
        lines.append("The output is not complete. Committed chunks are kept. Run the same command again to resume.")
    lines += [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in content.flagged]
    rows = sum(counts.values())
    if counts["dead"]:
        groups = report["dead_letters"]["groups"]
        most = f" Most frequent: {groups[0]['step']}: {cut(groups[0]['reason'], 160)}" if groups else ""
        lines.append(f"{counts['dead']:,} of {rows:,} rows are dead letters ({share_of(counts['dead'], rows)}).{most}")
    if gone := (report.get("changes") or {}).get("gone"):
        lines.append(f"{len(gone):,} input files are gone; their parts are kept: {first_names(gone)}.")
    usage = (report.get("totals") or {}).get("usage") or {}
    if usage.get("truncated"):
        lines.append(f"{usage['truncated']:,} documents were too long and were truncated.")
    return lines


def outcomes(content: ReportContent, charts: Charts) -> OutcomesView:
    """Rows of the whole output by outcome."""
    report = content.report
    counts = report["counts"]
    rows = sum(counts.values())
    parts = [
        ("answered", counts["answered"], "answered"),
        ("filtered out", counts["filtered"], "filtered"),
        ("dead letters", counts["dead"], "dead"),
    ]
    said = []
    if report.get("resumed"):
        said.append(f"{report['resumed']:,} of the rows were committed by earlier runs.")
    if report.get("reused"):
        said.append(f"{report['reused']:,} rows reused existing answers.")
    return OutcomesView(
        charts.stacked("Rows by outcome", parts),
        [(charts.key(kind, name), f"{count:,}", share_of(count, rows)) for name, count, kind in parts],
        shift_view(content.shifts, "outcomes"),
        " ".join(said),
    )
