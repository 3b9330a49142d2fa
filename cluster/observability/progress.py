"""The progress of a run: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.cluster.observability.pace import Pace
from headrace.cluster.state.events import Listener
from headrace.cluster.state.totals import Totals

if TYPE_CHECKING:
    pass

LINE_SECONDS = 10.0
"""Seconds between lines if there is no terminal."""


PHASES = {
    "checking": "checking the pipeline and the input",
    "reusing": "looking for answers to reuse",
    "starting": "starting Ray and checking the prompts",
    "measuring": "measuring the layouts on a sample",
    "running": "starting the engine",
    "publishing": "publishing the output",
    "reporting": "writing the report",
}


class LineListener(Listener):
    """A line for each phase, and one every :data:`LINE_SECONDS` while rows are processed."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._said = 0.0

    def phase(self, name: str) -> None:
        print(f"headrace: {PHASES[name]}", file=sys.stderr, flush=True)

    def say(self, note: str) -> None:
        print(f"headrace: {note}", file=sys.stderr, flush=True)

    def progress(self, totals: Totals) -> None:
        now = time.monotonic()
        self._pace.see(totals)
        if totals.rows and now - self._said >= LINE_SECONDS:
            self._said = now
            print(
                f"headrace: {totals.rows:,} of {totals.planned:,} rows, {self._pace.text()}",
                file=sys.stderr,
                flush=True,
            )


class BarListener(Listener):
    """A progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._pace = Pace()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, pace="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar inside the context."""
        with self._progress:
            yield

    def phase(self, name: str) -> None:
        self._progress.update(self._task, description=PHASES[name])

    def say(self, note: str) -> None:
        self._progress.console.print(note, markup=False, highlight=False)

    def progress(self, totals: Totals) -> None:
        self._pace.see(totals)
        if totals.rows:
            self._progress.update(
                self._task,
                description="rows",
                completed=totals.rows,
                total=totals.planned,
                pace=self._pace.text(),
            )
