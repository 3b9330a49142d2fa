"""The section "Over time": rates of the run as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headrace.cluster.observability.pace import duration
from headrace.cluster.report.page.charts import Charts
from headrace.cluster.report.page.formats import percent
from headrace.pipelines.report.series import Rate, rates


@dataclass(frozen=True, slots=True)
class TimeChart:
    """A rate over time, and its explanation."""

    name: str
    chart: Markup
    said: str


@dataclass(frozen=True, slots=True)
class TimelineView:
    """Charts, and their numbers as a table."""

    charts: list[TimeChart]
    said: str
    caption: str
    head: list[str]
    rows: list[tuple[str, ...]]


def timeline(report: Mapping[str, Any], charts: Charts) -> TimelineView | None:
    """The rates of the last run; None if it was too short, or made no requests."""
    found = rates(report.get("series") or {})
    if not any(each.tokens or each.rows for each in found):
        return None
    return TimelineView(
        [
            _chart(charts, "Rows per second", "Finished rows.", found, [each.rows for each in found]),
            _chart(
                charts, "Tokens per second", "Prompts and answers together.", found, [each.tokens for each in found]
            ),
            _share_chart(
                charts,
                "Cached prompts",
                "Share of the prompt tokens that were in the prefix cache.",
                found,
                [each.cached for each in found],
            ),
            _share_chart(
                charts,
                "Full batch",
                "Share of the engines' time in which documents waited because the engine was full. Below 100%, there "
                "is room.",
                found,
                [each.full for each in found],
            ),
        ],
        "The last run, in minutes and seconds from when the workers were requested. There is nothing to show before "
        "the engines have started.",
        "the run over time",
        ["until", "rows/s", "tokens/s", "cached", "full batch"],
        [
            (duration(each.end), f"{each.rows:,.3g}", f"{each.tokens:,.0f}", percent(each.cached), percent(each.full))
            for each in found
        ],
    )


def _chart(charts: Charts, name: str, said: str, found: Sequence[Rate], values: Sequence[float]) -> TimeChart:
    points = [(each.begin, each.end, value) for each, value in zip(found, values, strict=True)]
    return TimeChart(name, charts.lines(name, points, ends=_ends(found)), said)


def _share_chart(
    charts: Charts, name: str, said: str, found: Sequence[Rate], shares: Sequence[float | None]
) -> TimeChart:
    """The same for shares, from 0 to 100%."""
    points = [
        (each.begin, each.end, share if share is None else share * 100)
        for each, share in zip(found, shares, strict=True)
    ]
    return TimeChart(name, charts.lines(name, points, ends=_ends(found), top=100.0, unit="%"), said)


def _ends(found: Sequence[Rate]) -> tuple[str, str]:
    return duration(found[0].begin), duration(found[-1].end)
