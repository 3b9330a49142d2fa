"""The progress of a run: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.cluster.observability.pace import Pace, duration
from headrace.cluster.state.events import Listener
from headrace.cluster.state.totals import Totals

LINE_SECONDS = 10.0
"""Seconds between lines if there is no terminal."""


PHASES = {
    "checking": "checking the pipeline and the input",
    "reusing": "looking for answers to reuse",
    "starting": "starting, and checking the prompts",
    "measuring": "measuring the layouts on a sample",
    "running": "starting the engine",
    "publishing": "publishing the output",
    "reporting": "writing the report",
}


class Doing:
    """What a run is doing right now, in a few words."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._began = time.monotonic()

    def begin(self) -> None:
        """Another phase begins."""
        self._began = time.monotonic()

    def text(self, totals: Totals) -> str:
        """From the start of the engine to the last row; rates only once they are known."""
        self._pace.see(totals)
        if totals.rows:
            return f"{totals.rows:,} of {totals.planned:,} rows, {self._pace.text()}"
        if not totals.engines:
            return f"starting the engine ({duration(time.monotonic() - self._began)})"
        if not totals.tokens_so_far:
            return "the engine is ready and reads the first prompts"
        rate = self._pace.figures()["tokens_per_second"]
        return f"no row is finished yet: {totals.tokens_so_far:,} tokens processed" + (
            f", {rate:,.0f} tokens/s" if rate else ""
        )


class LineListener(Listener):
    """A line for each phase, and one every :data:`LINE_SECONDS` while engines start and rows are processed."""

    def __init__(self) -> None:
        self._doing = Doing()
        self._said = 0.0

    def phase(self, name: str) -> None:
        self._doing.begin()
        self._said = time.monotonic()
        print(f"headrace: {PHASES[name]}", file=sys.stderr, flush=True)

    def say(self, note: str) -> None:
        print(f"headrace: {note}", file=sys.stderr, flush=True)

    def progress(self, totals: Totals) -> None:
        now = time.monotonic()
        text = self._doing.text(totals)
        if now - self._said >= LINE_SECONDS:
            self._said = now
            print(f"headrace: {text}", file=sys.stderr, flush=True)


class BarListener(Listener):
    """A progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._doing = Doing()
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=Console(stderr=True, force_terminal=True),  # it is one; a filter of lines may stand before it
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar inside the context."""
        with self._progress:
            yield

    def phase(self, name: str) -> None:
        self._doing.begin()
        self._progress.update(self._task, description=PHASES[name])

    def say(self, note: str) -> None:
        self._progress.console.print(note, markup=False, highlight=False)

    def progress(self, totals: Totals) -> None:
        text, total = self._doing.text(totals), totals.planned if totals.rows else None
        self._progress.update(self._task, description=text, completed=totals.rows, total=total)
