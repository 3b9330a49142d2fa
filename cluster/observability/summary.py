"""What a run did, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cluster.observability import terminal
from headrace.cluster.state.result import RunResult
from headrace.pipelines.forecast.outlook import Outlook
from headrace.pipelines.storage.locations import shown

if TYPE_CHECKING:
    from rich.table import Table


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


def print_summary(result: RunResult) -> None:
    """Print what a run did."""
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
