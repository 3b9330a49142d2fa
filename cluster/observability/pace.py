"""The speed of a run."""

from __future__ import annotations

import time

from headrace.cluster.state.totals import Totals

LEAST_ROWS = 8
"""Rows that must be done before the time left is shown: the first ones only fill the engine."""


class Pace:
    """Rates since the first engine was ready."""

    def __init__(self) -> None:
        self._first: tuple[float, Totals] | None = None
        self._last: tuple[float, Totals] | None = None

    def see(self, totals: Totals) -> None:
        """Take the current totals."""
        if self._first is None and totals.engines:
            self._first = (time.monotonic(), totals)
        self._last = (time.monotonic(), totals)

    def figures(self) -> dict[str, float]:
        """Rates by name; empty while the engine starts. ``seconds_left`` only once it can be estimated."""
        if self._first is None or self._last is None:
            return {}
        (began, first), (now, last) = self._first, self._last
        seconds = max(now - began, 1e-9)
        rows = (last.rows - last.usage.reused - first.rows + first.usage.reused) / seconds
        tokens = (last.tokens_so_far - first.tokens_so_far) / seconds
        cached = last.usage.cached / last.usage.prompt if last.usage.prompt else 0.0
        found = {
            "rows_per_second": round(rows, 3),
            "tokens_per_second": round(tokens, 1),
            "cached_share": round(cached, 4),
        }
        through = (last.rows - first.rows) / seconds
        if last.rows - first.rows >= LEAST_ROWS and last.planned > last.rows:
            found["seconds_left"] = round((last.planned - last.rows) / through, 1)
        return found

    def text(self) -> str:
        """The rates as text, without those that are not known yet."""
        found = self.figures()
        if not found or self._last is None:
            return ""
        parts = []
        if found["rows_per_second"] > 0:
            parts.append(f"{found['rows_per_second']:.{1 if found['rows_per_second'] >= 1 else 2}f} rows/s")
        if found["tokens_per_second"] > 0:
            parts.append(f"{found['tokens_per_second']:,.0f} tokens/s")
        if self._last[1].usage.prompt:
            parts.append(f"{found['cached_share']:.0%} of prompts cached")
        parts.append(f"{self._last[1].dead} dead letters")
        if "seconds_left" in found:
            parts.append(f"{duration(found['seconds_left'])} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
