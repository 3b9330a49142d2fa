"""What ``check`` and ``status`` print."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from headrace.cluster.driver.checking import CheckReport
from headrace.cluster.observability import terminal
from headrace.cluster.observability.terminal import counted
from headrace.pipelines.output.status import OutputStatus
from headrace.pipelines.storage.locations import shown

EXCERPT = 300
"""Most characters of a reason that a table shows."""


def show_checked(report: CheckReport) -> None:
    """Print the result of a check."""
    console = terminal.console()
    sources = [report.models[stage.model].source for stage in report.stages]
    only = f"Model: {sources[0]}" if len(sources) == 1 else f"{len(sources)} models, one after another:"
    console.print(Text(f"{report.pipeline.name}: no mistakes found. {only}"))
    for stage, source in zip(report.stages, sources, strict=True) if len(sources) > 1 else ():
        console.print(Text(f"  {stage.number}. {source}: {', '.join(stage.steps)}"))
    if report.rows is not None:
        console.print(Text(f"Input: {counted(report.rows, 'row')} in {counted(report.shards or 0, 'file')}"))
    table = Table(box=None, pad_edge=False)
    table.add_column("output column", style="bold")
    table.add_column("type")
    for item in report.fields:
        table.add_row(Text(item.name), Text(str(item.type)))
    console.print(table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))


def show_status(status: OutputStatus) -> None:
    """Print the progress of an output."""
    console = terminal.console()
    counts, plan = status.counts, status.plan
    console.print(Text(f"{shown(status.uri)}: {'complete' if status.complete else 'not complete'}", style="bold"))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("pipeline", Text(f"{plan.pipeline.get('name', '')}, plan {plan.number}, made {plan.created}"))
    table.add_row(
        "rows",
        f"{counts.rows:,} of {status.rows:,} done: " + terminal.outcomes(counts.answered, counts.filtered, counts.dead),
    )
    table.add_row("chunks", f"{status.chunks_done:,} of {status.chunks:,} committed (a chunk is what is saved at once)")
    parts = sum(shard.has_part and not shard.gone for shard in plan.shards)
    table.add_row(
        "parts", f"{status.shards_published:,} of {parts:,} published (a part is the table of one input file)"
    )
    console.print(table)
    if plan.command and not status.complete:
        console.print(Text(f"To resume: {plan.command}"), soft_wrap=True)
    if status.reasons:
        reasons = Table(box=None, pad_edge=False)
        reasons.add_column("dead letters", justify="right")
        reasons.add_column("step")
        reasons.add_column("reason")
        for step, reason, n in status.reasons:
            reasons.add_row(f"{n:,}", Text(step), Text(reason[:EXCERPT]))
        console.print(reasons)
