"""What ``headrace report`` prints."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from headrace.cluster.observability import terminal
from headrace.cluster.report.content import Content, in_words
from headrace.cluster.report.writing import Made


def show_made(made: Made) -> None:
    """Say where the page is, and what in it to look at."""
    console = terminal.console()
    for warning in made.warnings:
        console.print(Text(f"note: {warning}"))
    print(made.page)


def show_comparison(page: Content, to: str | None) -> None:
    """Print what moved between two outputs, the flagged first."""
    console = terminal.console()
    report = page.report
    previous = report["previous"]
    console.print(Text(f"From {previous['what']} to {report['output']}", style="bold"))
    for seen, name in ((page.before, "before"), (page.looked.seen, "now")):
        if seen is not None and not seen.whole:
            console.print(Text(f"{name}: a sample of {seen.rows:,} rows"))
    if not page.moved:
        console.print(Text("They have nothing in common that could be held against each other."))
    table = Table(box=None, pad_edge=False)
    for heading in ("", "column", "what", "most", "before", "now", "moved", "chance"):
        table.add_column(heading, justify="right" if heading in ("before", "now", "moved", "chance") else "left")
    for each in page.moved:
        if not each.distance:
            continue
        name, was, now = each.most
        # The bins of lengths have numbers only.
        shares = ("", "", "") if each.what == "lengths" else (name, f"{was:.1%}", f"{now:.1%}")
        chance = "<0.001" if each.chance < 0.001 else f"{each.chance:.3f}"
        mark = Text("moved", style="bold yellow") if each.flagged else Text("")
        table.add_row(mark, Text(each.column), each.what, Text(shares[0]), *shares[1:], f"{each.distance:.1%}", chance)
    if page.moved:
        console.print(table)
    flagged = [in_words(each) for each in page.moved if each.flagged]
    console.print(Text(f"{len(flagged)} of {len(page.moved)} moved by more than chance and more than little."))
    if to is not None:
        print(to)
