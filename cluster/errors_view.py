"""What ``headrace errors`` prints: a paragraph for each reason, for people; JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from headrace.cluster import terminal
from headrace.pipelines.dead_letters import DeadLetters, Group, Letter, advice

if TYPE_CHECKING:
    from rich.console import Console

EXCERPT = 120
"""Characters of a value that an example shows."""

REASON = 400
"""Characters of a reason that are shown."""


def show_errors(found: DeadLetters, *, as_json: bool) -> None:
    """Print the dead letters of an output."""
    if as_json:
        print(json.dumps(_as_data(found), ensure_ascii=False, indent=1, default=str))
        return
    console = terminal.console()
    counts = found.counts
    share = f"{counts.dead / counts.rows:.1%}" if counts.rows else "0%"
    console.print(
        Text(f"{counts.dead:,} dead letters in {counts.rows:,} rows ({share}), {found.uri}", style="bold"),
        soft_wrap=True,
    )
    if not found.groups:
        if counts.dead:
            console.print(Text("None of them is what was asked for."))
        return
    for group in found.groups:
        _show_group(console, group, found)
    console.print()
    again = "headrace run PIPELINE --input INPUT --output OUTPUT --retry errors"
    console.print(Text(f"Ask them again, when the cause is mended: {again}"), soft_wrap=True)
    where = "_errors/" if found.published else "_errors/ for files that are finished, else in the chunk files"
    console.print(Text(f"All of them, with all columns: {where}. Others' examples: -n, --step, --reason, --json."))


def _show_group(console: Console, group: Group, found: DeadLetters) -> None:
    console.print()
    head = Text(f"{group.count:,} ({group.count / max(1, found.counts.rows):.1%})  ", style="bold")
    head.append(f"{group.step}: ", style="cyan")
    head.append(_short(group.reason, REASON), style="red")
    console.print(head)
    if said := advice(group.reason):
        console.print(Padding(Text(f"→ {said}", style="dim"), (0, 0, 0, 2)))
    for letter in group.examples:
        console.print(Padding(_example(letter, group), (0, 0, 0, 2)))


def _example(letter: Letter, group: Group) -> Text:
    text = Text()
    text.append(f"{letter.shard} row {letter.row}", style="bold")
    if letter.tries:
        text.append(f", asked {letter.tries} times" if letter.tries > 1 else ", asked once")
    if letter.reason != group.reason:
        text.append(f"\n  {_short(letter.reason, REASON)}", style="red")
    if letter.kept:
        kept = ", ".join(f"{name}={_short(_value(value))}" for name, value in letter.kept.items())
        text.append(f"\n  {kept}")
    if letter.raw:
        text.append(f"\n  said: {_short(repr(letter.raw))}", style="dim")
    return text


def _value(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "-" if value is None else str(value)


def _short(text: str, most: int = EXCERPT) -> str:
    """On one line, its middle left out where it is long: the end of an answer says why it was cut."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[-(most // 3) :]}"


def _as_data(found: DeadLetters) -> dict[str, Any]:
    rows = max(1, found.counts.rows)
    return {
        "output": found.uri,
        "counts": asdict(found.counts),
        "groups": [
            {**asdict(group), "share": round(group.count / rows, 6), "advice": advice(group.reason)}
            for group in found.groups
        ],
    }
