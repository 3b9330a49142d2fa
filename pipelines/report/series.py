"""The progress of a run over time: a limited number of points, however long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

MOST_POINTS = 240
"""Points that are kept. If there are more, every other one is dropped and points are taken half as often."""

FIRST_INTERVAL = 1.0
"""Seconds between points at first."""

NAMES = ("seconds", "rows", "dead", "prompt", "cached", "output", "busy", "full")
"""The values of a point: seconds since the run's first request, and totals up to then (tokens, and engine seconds)."""


@dataclass(slots=True)
class Series:
    """Totals of a run over time.

    Attributes:
        points: each has the values of :data:`NAMES`, all of them totals since the first.
        interval: seconds between two points.
    """

    points: list[tuple[float, ...]] = field(default_factory=list)
    interval: float = FIRST_INTERVAL
    clock: Callable[[], float] = time.monotonic
    _began: float | None = None

    def see(self, totals: Mapping[str, float], *, last: bool = False) -> None:
        """Record the current totals, with the keys of :data:`NAMES` except the first. ``last`` ones are always kept."""
        now = self.clock()
        if self._began is None:
            self._began = now
        at = now - self._began
        near = bool(self.points) and at - self.points[-1][0] < self.interval
        if near and not last:
            return
        if near and len(self.points) > 1:
            self.points.pop()  # what the run has come to, in the place of what it had nearly come to
        self.points.append((round(at, 3), *(totals[name] for name in NAMES[1:])))
        if len(self.points) > MOST_POINTS:
            # The newest stays: it is what the run has come to.
            self.points = [*self.points[:-1:2], self.points[-1]]
            self.interval *= 2

    def to_data(self) -> dict[str, Any]:
        """As ``report.json`` has it: a list for each name."""
        columns = zip(*self.points, strict=True) if self.points else ([] for _ in NAMES)
        return {name: list(values) for name, values in zip(NAMES, columns, strict=True)}


@dataclass(frozen=True, slots=True)
class Rate:
    """What happened between two points, ``begin`` and ``end`` in seconds. None if there is nothing to divide by."""

    begin: float
    end: float
    rows: float
    tokens: float
    cached: float | None
    full: float | None


def rates(series: Mapping[str, list[float]], most: int = 80) -> list[Rate]:
    """Over time: rows and tokens a second, the share of prompts from the cache, the share of time with a full batch.

    Args:
        series: the result of :meth:`Series.to_data`.
        most: maximum number of intervals, with equal numbers of points.
    """
    count = len(series.get("seconds", ()))
    if count < 2:
        return []
    step = max(1, -(-(count - 1) // most))
    marks = [*range(0, count - 1, step), count - 1]
    found = []
    for first, last in pairwise(marks):
        # A worker that dies takes totals back that nobody has committed: less than nothing is nothing.
        rose = {name: max(0.0, series[name][last] - series[name][first]) for name in NAMES}
        if rose["seconds"] <= 0:
            continue
        found.append(
            Rate(
                begin=series["seconds"][first],
                end=series["seconds"][last],
                rows=rose["rows"] / rose["seconds"],
                tokens=(rose["prompt"] + rose["output"]) / rose["seconds"],
                cached=rose["cached"] / rose["prompt"] if rose["prompt"] else None,
                full=min(1.0, rose["full"] / rose["busy"]) if rose["busy"] else None,
            )
        )
    return found
