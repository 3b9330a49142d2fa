"""The summary of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cluster.observability import terminal
from headrace.cluster.state.result import RunResult
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.storage.locations import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_summary(result: RunResult) -> None:
    """Print the summary of a run."""
    from rich.text import Text

    console = terminal.console()
    _print_notes(console, result)
    console.print(_table(result))
    if result.exit_code:
        counts = result.counts
        rate = counts.dead / max(1, counts.rows)
        console.print(
            Text(
                f"Too many dead letters: {counts.dead:,} of {counts.rows:,} rows ({rate:.1%}), more than "
                f"max_error_rate allows. Committed chunks are kept. To see the dead letters: headrace errors "
                f"{shown(result.output)}. To accept them, raise max_error_rate and run the same command again."
            )
        )


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


def _table(result: RunResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    counts, usage = result.counts, result.totals.usage
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    rows = terminal.outcomes(counts.answered, counts.filtered, counts.dead)
    table.add_row("rows", rows + (f" ({result.resumed:,} from earlier runs)" if result.resumed else ""))
    if usage.reused:
        table.add_row("reused", f"{usage.reused:,} rows reused existing answers")
    if usage.requests:
        _usage_rows(table, result)
    if result.choice and usage.requests:
        chosen = dict.fromkeys(result.choice.layouts.values())
        table.add_row("layout", Text(f"{', '.join(chosen)} ({result.choice.reason})"))
    for measured in result.measured:
        table.add_row("measured", Text(measured.sentence()))
    if result.outlook and usage.requests:
        _forecast_rows(table, result, result.outlook)
    if result.place:
        table.add_row("ran on", result.place)
    if result.seconds:
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())
        table.add_row("seconds", phases)
    table.add_row("output", Text(shown(result.output)))
    if result.report:
        table.add_row("report", Text(result.report))
    return table


def _usage_rows(table: Table, result: RunResult) -> None:
    """Tokens and requests."""
    usage, figures = result.totals.usage, result.totals.figures
    share = figures.cached / max(1, figures.prompt)
    table.add_row(
        "tokens",
        f"{figures.prompt:,} input, {figures.cached:,} of them cached ({share:.0%}), {figures.computed:,} computed; "
        f"{figures.output:,} output",
    )
    table.add_row("requests", f"{usage.requests:,}, {usage.retries:,} of them retries")
    shares = (
        ("order efficiency", figures.order_efficiency),
        ("layout efficiency", figures.layout_efficiency),
        ("useful prefill", figures.useful_prefill),
        ("full batch", figures.full_batch),
    )
    table.add_row("efficiency", ", ".join(f"{name} {share:.2f}" for name, share in shares if share is not None))
    steps = ", ".join(f"{step} {tokens:.1f}" for step, tokens in figures.output_per_row.items())
    table.add_row("output/row", f"{steps} tokens")
    if usage.truncated:
        table.add_row("truncated", f"{usage.truncated:,} documents")
    if usage.duplicates:
        table.add_row("duplicates", f"{usage.duplicates:,} rows share the answers of an identical row")


def _forecast_rows(table: Table, result: RunResult, outlook: Outlook) -> None:
    """The forecast, with how far the run was off."""
    totals, taken = result.totals, outlook.taken
    computed = totals.figures.computed
    said = f"{taken.computed:,.0f} prompt tokens to compute ({_off(computed, taken.computed)})"
    if taken.seconds is not None:
        said += f", {taken.seconds:,.1f} engine seconds ({_off(totals.busy_seconds, taken.seconds)})"
    if not outlook.observed:
        said += "; assuming that no condition skips a step, because nothing had been observed yet"
    table.add_row("forecast", said)


def _off(happened: float, forecast: float) -> str:
    return f"actual: {happened / forecast - 1:+.1%}" if forecast else f"actual: {happened:,.0f}"
