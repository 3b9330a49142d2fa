"""What ``headrace errors`` prints: a paragraph per reason for people, JSON for programs."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headrace.cluster.observability import terminal
from headrace.pipelines.output.dead_letters import DeadLetters, Group, Letter
from headrace.pipelines.output.reasons import advice
from headrace.pipelines.spec.steps import known_steps
from headrace.pipelines.storage.locations import shown

if TYPE_CHECKING:
    from rich.console import Console

EXCERPT = 120
"""Characters of a value that an example shows."""

REASON = 400
"""Characters of a reason that are shown."""


def show_errors(found: DeadLetters, *, as_json: bool) -> None:
    """Print the dead letters of an output."""
    if as_json:
        print(json.dumps(_as_json(_as_data(found)), ensure_ascii=False, indent=1, default=str, allow_nan=False))
        return
    console = terminal.console()
    counts = found.counts
    share = _share(counts.dead, counts.rows)
    letters, rows = terminal.counted(counts.dead, "dead letter"), terminal.counted(counts.rows, "row")
    _say(console, f"{letters} in {rows} ({share}), {shown(found.uri)}", "bold")
    if not found.groups:
        if counts.dead:
            _say(console, "No dead letter matches --step and --reason.")
        return
    steps = known_steps(found.plan.pipeline)
    for group in found.groups:
        print()
        head = f"{group.count:,} ({_share(group.count, counts.rows)})  {group.step}: {_short(group.reason, REASON)}"
        _say(console, head, "bold")
        if said := advice(group.error_class, steps.get(group.step)):
            _say(console, f"→ {said}", "cyan", indent=2)
        for letter in group.examples:
            _show_example(console, letter, group)
    print()
    where = "in _errors/" if found.published else "in _errors/ for finished files and in the chunk files for the others"
    _say(console, f"All columns are {where}. To see more here, use -n, --step, --reason or --json.")
    again = found.plan.command or "run the same pipeline, input and output again with"
    _say(console, "To retry them once the cause is fixed:")
    console.print(Text(f"  {_harmless(again)} --retry errors"), soft_wrap=True)


def _show_example(console: Console, letter: Letter, group: Group) -> None:
    asked = {0: "", 1: ", 1 try"}.get(letter.tries, f", {letter.tries} tries")
    _say(console, f"{_harmless(letter.shard)} row {letter.row}{asked}", indent=2)
    if letter.reason != group.reason:
        _say(console, _short(letter.reason, REASON), "red", indent=4)
    if letter.kept:
        kept = ", ".join(f"{_short(name)}={_short(_value(value))}" for name, value in letter.kept.items())
        _say(console, kept, indent=4)
    if letter.raw:
        _say(console, f"answer: {_short(repr(letter.raw))}", "dim", indent=4)


def _say(console: Console, text: str, style: str = "", *, indent: int = 0) -> None:
    """Print text wrapped at the console's width, every line indented and without trailing spaces."""
    space = " " * indent
    for line in textwrap.wrap(
        text, max(20, console.width), initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    ):
        console.print(Text(line, style), soft_wrap=True)


def _share(part: int, rows: int) -> str:
    share = part / max(1, rows)
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "-" if value is None else str(value)


def _harmless(text: str) -> str:
    """Replace what a terminal would obey instead of showing, such as control sequences."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _short(text: str, most: int = EXCERPT) -> str:
    """The text on one line; a long one loses its middle, because the end of an answer shows why it was cut."""
    text = _harmless(" ".join(text.split()))
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[-(most // 3) :]}"


def _as_json(value: Any) -> Any:
    """The same with numbers that JSON cannot express (NaN, Infinity) as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _as_data(found: DeadLetters) -> dict[str, Any]:
    rows = max(1, found.counts.rows)
    steps = known_steps(found.plan.pipeline)
    return {
        "output": found.uri,
        "counts": asdict(found.counts),
        "groups": [
            {
                "class": group.error_class,
                **{key: value for key, value in asdict(group).items() if key != "error_class"},
                "share": round(group.count / rows, 6),
                "advice": advice(group.error_class, steps.get(group.step)),
            }
            for group in found.groups
        ],
    }
