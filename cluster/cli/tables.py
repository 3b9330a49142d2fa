"""What ``check``, ``sample`` and ``status`` print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from headrace.cluster.driver.checking import CheckReport
from headrace.cluster.driver.sample import Sampled
from headrace.cluster.observability import terminal
from headrace.cluster.observability.terminal import counted
from headrace.pipelines.output.status import OutputStatus
from headrace.pipelines.storage.locations import shown

EXCERPT = 300
"""Most characters of a document that a table shows."""


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


def show_sample(rows: Sequence[Sampled], *, documents: bool, raw: bool, as_json: bool) -> None:
    """Print sampled rows: the document, and the answers or the reason why there are none."""
    if as_json:
        for row in rows:
            print(json.dumps(_as_data(row), ensure_ascii=False, default=str))
        return
    console = terminal.console()
    table = Table(show_lines=True, expand=True)
    table.add_column("row", no_wrap=True)
    table.add_column("document", ratio=2)
    table.add_column("answers", ratio=3)
    if raw:
        table.add_column("raw answers", ratio=2)
    for row in rows:
        result = row.result
        cells = [
            Text(f"{row.shard}\n{result.row}"),
            Text(_excerpt(result.document, documents)),
            _answers(row),
        ]
        if raw:
            cells.append(Text("\n".join(f"{step}: {text!r}" for step, texts in result.raw.items() for text in texts)))
        table.add_row(*cells)
    console.print(table)
    answered = sum(row.result.outcome == "answered" for row in rows)
    dead = sum(row.result.outcome == "dead" for row in rows)
    console.print(Text(terminal.outcomes(answered, len(rows) - answered - dead, dead)))


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


def _answers(row: Sampled) -> Text:
    text = Text()
    result = row.result
    for name, value in result.answers.items():
        text.append(f"{name}: ", style="bold")
        text.append(f"{_value(value)}\n")
    if result.outcome == "filtered":
        text.append("filtered out", style="dim")
    if result.dead is not None:
        text.append(f"dead letter at {result.dead.step}: {result.dead.reason}", style="red")
        if result.dead.raw:
            text.append(f"\n{result.dead.raw!r}", style="dim")
    text.rstrip()
    return text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "-" if value is None else str(value)


def _excerpt(document: str | None, whole: bool) -> str:
    if document is None:
        return "-"
    return document if whole or len(document) <= EXCERPT else f"{document[:EXCERPT]}..."


def _as_data(row: Sampled) -> dict[str, Any]:
    result = row.result
    return {
        "_shard": row.shard,
        "_row": result.row,
        "outcome": result.outcome,
        "document": result.document,
        **result.answers,
        "raw": result.raw,
        "dead_letter": None
        if result.dead is None
        else {
            "step": result.dead.step,
            "class": result.dead.error_class,
            "reason": result.dead.reason,
            "raw": result.dead.raw,
        },
    }
