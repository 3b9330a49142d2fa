"""The summary of a run on the terminal: four lines, and the figures of the report on request."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.cluster.observability import terminal
from headrace.cluster.observability.pace import duration
from headrace.cluster.state.result import RunResult
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.inference.efficiency import MEASURES
from headrace.pipelines.output.names import TABLE
from headrace.pipelines.storage.locations import shown

if TYPE_CHECKING:
    from rich.console import Console

Line = tuple[str, str]
"""A name, and what is to be said under it."""


def print_summary(result: RunResult, *, verbose: bool = False) -> None:
    """Print the summary of a run."""
    from rich.text import Text

    console = terminal.console()
    _print_notes(console, result)
    lines = [*_main_lines(result), *(_more_lines(result) if verbose else ())]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        # Not wrapped, so that a path can be copied.
        console.print(Text.assemble((f"{name:{width}}", "bold"), f"  {text}"), soft_wrap=True)
    if result.exit_code:
        counts, rate = result.counts, result.counts.dead / max(1, result.counts.rows)
        console.print(
            Text(
                f"Too many dead letters: {counts.dead:,} of {counts.rows:,} rows ({rate:.1%}), more than "
                "max_error_rate allows. Committed chunks are kept."
            )
        )
        _print_command(console, "To see the dead letters", f"headrace errors {shlex.quote(shown(result.output))}")
        if result.command:
            accepted = f"{result.command} --set max_error_rate={_rounded_up(rate)}"
            _print_command(console, "To accept them, raise max_error_rate", accepted)
        else:
            console.print(Text("To accept them, raise max_error_rate and run the same again."))


def _print_command(console: Console, purpose: str, command: str) -> None:
    from rich.text import Text

    console.print(Text(f"{purpose}: {command}"), soft_wrap=True)  # whole, so that it can be copied


def _rounded_up(rate: float) -> float:
    """A share in whole hundredths that is not below ``rate``."""
    return min(100, int(rate * 100) + 1) / 100


def _print_notes(console: Console, result: RunResult) -> None:
    from rich.text import Text

    if result.status == "already complete":
        console.print(Text(f"{shown(result.output)} is already complete: nothing to do."))
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


def _main_lines(result: RunResult) -> Iterator[Line]:
    """Rows by outcome, time and rate, tokens, and where it is."""
    counts, usage, figures = result.counts, result.totals.usage, result.totals.figures
    apart = (
        (result.resumed, "from earlier runs"),
        (usage.reused, "reused existing answers"),
        (usage.duplicates, "share the answers of an identical row"),
        (usage.truncated, "with a truncated document"),
    )
    said = ", ".join(f"{number:,} {what}" for number, what in apart if number)
    outcomes = terminal.outcomes(counts.answered, counts.filtered, counts.dead)
    yield "rows", outcomes + (f" ({said})" if said else "")
    if result.seconds:
        yield "time", _time(result)
    if usage.requests:
        share = figures.cached / max(1, figures.prompt)
        cached = f" ({share:.0%} from the cache)" if figures.least is not None else ""
        yield "tokens", f"{figures.prompt:,} input{cached}, {figures.output:,} output"
    if result.measured:
        yield from _layout_lines(result)
    page = f"; report: {result.report}" if result.report else ""
    yield "output", f"{shown(result.output)}/{TABLE}{page}"


def _time(result: RunResult) -> str:
    """How long the run took, and its rate while requests were answered."""
    said = _lasting(sum(result.seconds.values())) + (f" on {result.place}" if result.place else "")
    rows = result.totals.rows - result.totals.usage.reused
    answering = result.series.points[-1][0] if result.series.points else 0.0
    if rows <= 0 or answering <= 0 or not result.totals.usage.requests:
        return said
    rate = rows / answering
    return f"{said}; {_lasting(answering)} of it answering, {rate:,.{1 if rate >= 1 else 2}f} rows/s"


def _lasting(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _more_lines(result: RunResult) -> Iterator[Line]:
    """The other figures of the run."""
    usage, figures = result.totals.usage, result.totals.figures
    if usage.requests:
        yield "requests", f"{usage.requests:,} to the engine, {usage.retries:,} of them retries"
        yield "prompts", f"{figures.cached:,} tokens from the cache, {figures.computed:,} computed"
        steps = ", ".join(f"{step} {tokens:.1f}" for step, tokens in figures.output_per_row.items())
        yield "answers", f"tokens for each row: {steps}"
        for name, key, meaning in MEASURES:
            if (share := getattr(figures, key)) is not None:
                yield name, f"{share:.2f} ({meaning})"
        if not result.measured:
            yield from _layout_lines(result)
        if result.outlook:
            yield from _forecast_lines(result, result.outlook)
    if result.seconds:
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())
        yield "seconds", phases


def _layout_lines(result: RunResult) -> Iterator[Line]:
    """The layouts that were chosen, and what was measured for it."""
    if result.choice:
        chosen = dict.fromkeys(result.choice.layouts.values())
        yield "layout", f"{', '.join(chosen)}: where prompts keep what changes ({result.choice.reason})"
    for measured in result.measured:
        yield "measured", measured.sentence()


def _forecast_lines(result: RunResult, outlook: Outlook) -> Iterator[Line]:
    """The forecast, with how far the run was off."""
    totals, taken = result.totals, outlook.taken
    computed = totals.figures.computed
    said = f"{taken.computed:,.0f} prompt tokens to compute ({_off(computed, taken.computed)})"
    if taken.seconds is not None:
        said += f", {taken.seconds:,.1f} engine seconds ({_off(totals.busy_seconds, taken.seconds)})"
    if not outlook.observed:
        said += "; assuming that no condition skips a step, because nothing had been observed yet"
    yield "forecast", said


def _off(happened: float, forecast: float) -> str:
    return f"actual: {happened / forecast - 1:+.1%}" if forecast else f"actual: {happened:,.0f}"
