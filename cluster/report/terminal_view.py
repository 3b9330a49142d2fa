"""What ``headrace report`` prints."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from headrace.cluster.observability import terminal
from headrace.cluster.report.page.content import ReportContent
from headrace.cluster.report.writing import WrittenReport
from headrace.pipelines.report.drift import Shift


def show_report(report: WrittenReport) -> None:
    """Print the location of the page, and what needs attention."""
    console = terminal.console()
    for warning in report.warnings:
        console.print(Text(f"note: {warning}"))
    print(report.page)


def show_comparison(content: ReportContent, to: str | None) -> None:
    """Print the shifts between two outputs, flagged ones first, and the location of the page (``to``), if any."""
    console = terminal.console()
    report = content.report
    previous = report["previous"]
    console.print(Text(f"From {previous['what']} to {report['output']}", style="bold"))
    for stats, name in ((content.before, "before"), (content.inspection.stats, "now")):
        if stats is not None and not stats.whole:
            console.print(Text(f"{name}: a sample of {stats.rows:,} rows"))
    if not content.shifts:
        console.print(Text("The two outputs have nothing in common that can be compared."))
    elif not any(each.distance for each in content.shifts):
        console.print(Text("Nothing moved."))
    else:
        console.print(_table(content.shifts))
        said = f"{len(content.flagged)} of {len(content.shifts)} distributions moved"
        console.print(Text(f"{said} by a large amount that is unlikely to be chance."))
    if to is not None:
        print(to)


def _table(shifts: tuple[Shift, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "column", "what", "largest", "before", "now", "moved", "chance"):
        table.add_column(heading, justify="right" if heading in ("before", "now", "moved", "chance") else "left")
    for each in shifts:
        if not each.distance:
            continue
        name, was, now = each.most
        # The bins of lengths have numbers only.
        shares = ("", "", "") if each.what == "lengths" else (name, f"{was:.1%}", f"{now:.1%}")
        chance = "<0.001" if each.chance < 0.001 else f"{each.chance:.3f}"
        mark = Text("moved", style="bold yellow") if each.flagged else Text("")
        table.add_row(mark, Text(each.column), each.what, Text(shares[0]), *shares[1:], f"{each.distance:.1%}", chance)
    return table
