"""What ``sample`` prints: tables for people, JSON for programs; with ``--watch``, what changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from headrace.cluster.driver.sample import Sample, Sampled
from headrace.cluster.observability import terminal
from headrace.cluster.observability.terminal import counted
from headrace.pipelines.spec.errors import HeadraceError

EXCERPT = 300
"""Most characters of a document that a table shows."""

NULL = "-"
"""A null in a table."""

NO_CHANGE = "No answer changed."


def show_sample(rows: Sequence[Sampled], *, documents: bool, raw: bool, as_json: bool) -> None:
    """Print sampled rows: the document, and the answers or the reason why there are none."""
    if as_json:
        for row in rows:
            print(json.dumps(_as_data(row), ensure_ascii=False, default=str))
        return
    console = terminal.console()
    console.print(_table(rows, [None] * len(rows), documents=documents, raw=raw, marks=False))
    console.print(Text(_outcomes(rows)))


def show_watch(found: Iterable[Sample | HeadraceError], file: str, *, documents: bool, raw: bool) -> None:
    """Print samples as they come, each with what changed since the one before, and mistakes."""
    console = terminal.console()
    marks = not console.is_terminal or console.is_dumb_terminal
    before: Sequence[Sampled] = ()
    for number, each in enumerate(found):
        if number:
            console.rule(Text(f"{datetime.now():%H:%M:%S} {Path(file).name}"), characters="-" if marks else "─")
        if isinstance(each, HeadraceError):
            console.print(Text(f"Error: {each}", style="red"), soft_wrap=True)
        else:
            changes = _changes(each.rows, before) if before else ""
            if changes != NO_CHANGE:
                old: Sequence[Sampled | None] = before or [None] * len(each.rows)
                console.print(_table(each.rows, old, documents=documents, raw=raw, marks=marks))
            console.print(Text(f"{_outcomes(each.rows)}. {_work(each)}\n{changes}".rstrip()))
            before = each.rows
        console.print(Text(f"Watching {file}. Save it to see the answers again; Ctrl-C ends.", style="dim"))


def _table(
    rows: Sequence[Sampled], before: Sequence[Sampled | None], *, documents: bool, raw: bool, marks: bool
) -> Table:
    table = Table(show_lines=True, expand=True)
    table.add_column("row", no_wrap=True)
    table.add_column("document", ratio=2)
    table.add_column("answers", ratio=3)
    if raw:
        table.add_column("raw answers", ratio=2)
    for row, old in zip(rows, before, strict=True):
        result = row.result
        cells = [
            Text(f"{row.shard}\n{result.row}"),
            Text(_excerpt(result.document, documents)),
            _answers(row, old, marks=marks),
        ]
        if raw:
            cells.append(Text("\n".join(f"{step}: {text!r}" for step, texts in result.raw.items() for text in texts)))
        table.add_row(*cells)
    return table


def _outcomes(rows: Sequence[Sampled]) -> str:
    answered = sum(row.result.outcome == "answered" for row in rows)
    dead = sum(row.result.outcome == "dead" for row in rows)
    return terminal.outcomes(answered, len(rows) - answered - dead, dead)


def _work(sample: Sample) -> str:
    """What was asked, and what was not asked again."""
    asked = ", ".join(f"{step} {rows:,}" for step, rows in sample.asked.items())
    kept = ", ".join(f"{step} {rows:,}" for step, rows in sample.kept.items())
    said = f"Rows asked: {asked or 'none'}" + (f"; answers kept: {kept}" if kept else "")
    return f"{said}; {sample.seconds:.1f} s."


def _changes(rows: Sequence[Sampled], before: Sequence[Sampled]) -> str:
    both = [(_lines(new), _lines(old)) for new, old in zip(rows, before, strict=True)]
    changed = [sorted(name for name in {*new, *old} if new.get(name) != old.get(name)) for new, old in both]
    names = {
        name: sum(name in each for each in changed) for name in sorted({name for each in changed for name in each})
    }
    if not names:
        return NO_CHANGE
    each = ", ".join(f"{name} {rows:,}" for name, rows in names.items())
    return f"Changed in {counted(sum(map(bool, changed)), 'row')}: {each}."


def _lines(row: Sampled) -> dict[str, str]:
    """What is said of a row, by what it is called."""
    result = row.result
    found = {name: _value(value) for name, value in result.answers.items()}
    if result.outcome == "filtered":
        found["filtered out"] = ""
    if result.dead is not None:
        found[f"dead letter at {result.dead.step}"] = result.dead.reason
    return found


def _answers(row: Sampled, before: Sampled | None, *, marks: bool) -> Text:
    """The answers, or why there are none. What changed since ``before`` stands out.

    Args:
        marks: show by characters what is new and what it was, for output without styles.
    """
    text, result = Text(), row.result
    old = None if before is None else _lines(before)
    for name, value in _lines(row).items():
        known = name in result.answers
        style = "bold" if known else "red" if result.dead is not None else "dim"
        text.append(name + (": " if value else ""), style=style)
        text.append_text(_marked(value, old, name, marks=marks, style="" if known else style))
        text.append("\n")
    if result.dead is not None and result.dead.raw:
        text.append(f"{result.dead.raw!r}\n", style="dim")
    for name in old or ():
        if name not in _lines(row):
            text.append_text(_gone(f"{name}: {old[name]}" if old and old[name] else name, marks=marks))
            text.append("\n")
    text.rstrip()
    return text


def _marked(value: str, old: Mapping[str, str] | None, name: str, *, marks: bool, style: str) -> Text:
    """A value; if it is not the one that it was, the one that it was, too."""
    text = Text()
    if old is None or old.get(name) == value:
        return text.append(value, style=style)
    if name in old:
        text.append_text(_gone(old[name], marks=marks)).append(" ")
    return text.append(
        f"{{+{_in_marks(value)}+}}" if marks else value, style="" if marks else f"{style or 'green'} bold"
    )


def _gone(value: str, *, marks: bool) -> Text:
    return Text(f"[-{_in_marks(value)}-]" if marks else value, style="" if marks else "dim strike")


def _in_marks(value: str) -> str:
    return "null" if value == NULL else value


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return NULL if value is None else str(value)


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
