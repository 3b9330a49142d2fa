"""How a run shows itself: a bar on a terminal, a plain line now and then elsewhere, and a summary at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.cluster.observability import terminal
from headrace.cluster.state.events import Listener
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.totals import Totals
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.locations import shown

if TYPE_CHECKING:
    from rich.table import Table

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""

LEAST_ROWS = 8
"""Rows that must be through before it is said how long the rest will take: the first ones fill the engine."""

PHASES = {
    "checking": "checking the pipeline and the input",
    "reusing": "looking for rows that were answered before",
    "starting": "starting Ray and checking the prompts",
    "measuring": "measuring the layouts on a sample",
    "running": "starting the engine",
    "publishing": "publishing",
    "reporting": "writing the report",
}


LOG_FORMATS = ("text", "json")
"""What ``--log-format`` takes."""


@contextmanager
def listener(log_format: str = "text") -> Iterator[Listener]:
    """The listener that is wanted, and fits what standard error is.

    Raises:
        UserError: there is no such format.
    """
    if log_format not in LOG_FORMATS:
        raise UserError(f"--log-format takes {' or '.join(LOG_FORMATS)}, not {log_format!r}.")
    if log_format == "json":
        from headrace.cluster.observability.json_log import JsonListener, json_lines

        with json_lines():
            yield JsonListener(LINE_SECONDS)
    elif sys.stderr.isatty():
        bar = BarListener()
        with bar.shown():
            yield bar
    else:
        yield LineListener()


class LineListener(Listener):
    """A line for each phase, and one every :data:`LINE_SECONDS` while rows are coming."""

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
        """Show the bar while inside."""
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


class Pace:
    """Rates since the first row."""

    def __init__(self) -> None:
        self._first: tuple[float, Totals] | None = None
        self._last: tuple[float, Totals] | None = None

    def see(self, totals: Totals) -> None:
        """Take in the totals of now."""
        if self._first is None and totals.usage.requests:
            self._first = (time.monotonic(), totals)
        self._last = (time.monotonic(), totals)

    def figures(self) -> dict[str, float]:
        """Rates by name; empty before there are any. ``seconds_left`` only where it can be said."""
        if self._first is None or self._last is None:
            return {}
        (began, first), (now, last) = self._first, self._last
        seconds = max(now - began, 1e-9)
        rows = (last.rows - last.usage.reused - first.rows + first.usage.reused) / seconds
        tokens = (last.usage.prompt + last.usage.output - first.usage.prompt - first.usage.output) / seconds
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
        """Rates in words; empty before there are any."""
        found = self.figures()
        if not found or self._last is None:
            return ""
        parts = [
            f"{found['rows_per_second']:.{1 if found['rows_per_second'] >= 1 else 2}f} rows/s",
            f"{found['tokens_per_second']:,.0f} tokens/s",
            f"{found['cached_share']:.0%} of prompts cached",
            f"{self._last[1].dead} dead",
        ]
        if "seconds_left" in found:
            parts.append(f"{duration(found['seconds_left'])} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _forecast_rows(table: Table, result: RunResult, outlook: Outlook) -> None:
    """What was forecast, beside what happened."""
    chosen = dict.fromkeys(outlook.choice.layouts.values())
    table.add_row("layout", f"{', '.join(chosen)} ({outlook.choice.reason})")
    totals, taken = result.totals, outlook.taken
    computed = totals.figures.computed
    said = f"{taken.computed:,.0f} prompt tokens to compute ({_off(computed, taken.computed)})"
    if taken.seconds is not None:
        said += f", {taken.seconds:,.1f} engine seconds ({_off(totals.busy_seconds, taken.seconds)})"
    if not outlook.observed:
        said += "; nothing was observed yet, so as if no condition skipped a step"
    table.add_row("forecast", said)


def _off(happened: float, forecast: float) -> str:
    return f"it was {happened / forecast - 1:+.1%}" if forecast else "it was 0"


def summary(result: RunResult, log_format: str = "text") -> None:
    """Print what a run did, or write it as a line of the log."""
    if log_format == "json":
        from headrace.cluster.observability.json_log import write_summary

        write_summary(result)
        return
    from rich.table import Table
    from rich.text import Text

    console = terminal.console()
    counts, totals = result.counts, result.totals
    if result.status == "already complete":
        console.print(Text(f"{shown(result.output)} is complete already: nothing to do."))
    for note in result.notes:
        console.print(Text(f"note: {note}"))
    for word, paths in (
        ("new", result.changes.new),
        ("replaced", result.changes.replaced),
        ("gone", result.changes.gone),
        ("pruned", result.changes.pruned),
    ):
        if paths and result.plan > 1:
            console.print(Text(f"{word} since the last run: {', '.join(paths[:5])}{' ...' if len(paths) > 5 else ''}"))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    rows = f"{counts.answered:,} answered, {counts.filtered:,} filtered out, {counts.dead:,} dead letters"
    table.add_row("rows", rows + (f" ({result.resumed:,} from earlier runs)" if result.resumed else ""))
    usage, figures = totals.usage, totals.figures
    if usage.reused:
        table.add_row("reused", f"{usage.reused:,} rows took the answers that they had")
    if usage.requests:
        share = figures.cached / max(1, figures.prompt)
        table.add_row(
            "tokens",
            f"{figures.prompt:,} in, {figures.cached:,} of them cached ({share:.0%}), {figures.computed:,} computed, "
            f"{figures.output:,} out",
        )
        table.add_row("requests", f"{usage.requests:,}, {usage.retries:,} of them second tries")
        shares = (
            ("order efficiency", figures.order_efficiency),
            ("layout efficiency", figures.layout_efficiency),
            ("useful prefill", figures.useful_prefill),
            ("full batch", figures.full_batch),
        )
        table.add_row("efficiency", ", ".join(f"{name} {share:.2f}" for name, share in shares if share is not None))
        steps = ", ".join(f"{step} {tokens:.1f}" for step, tokens in figures.output_per_row.items())
        table.add_row("out per row", f"{steps} tokens")
        if usage.truncated:
            table.add_row("truncated", f"{usage.truncated:,} documents")
        if usage.duplicates:
            table.add_row("equal rows", f"{usage.duplicates:,} took the answers of an equal one")
    if result.outlook and usage.requests:
        _forecast_rows(table, result, result.outlook)
    if result.seconds:
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())
        table.add_row("seconds", phases)
    table.add_row("output", Text(shown(result.output)))
    if result.report:
        table.add_row("report", Text(result.report))
    console.print(table)
    if result.exit_code:
        rate = counts.dead / max(1, counts.rows)
        console.print(
            Text(
                f"Too many dead letters: {counts.dead:,} of {counts.rows:,} rows ({rate:.1%}) are more than "
                f"max_error_rate allows. What is committed stays. headrace errors {shown(result.output)} shows them; "
                f"to accept them, raise max_error_rate and run the same command again."
            )
        )
