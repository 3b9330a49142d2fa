"""Commands that look at an output: ``status``, ``errors``, ``report``."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cluster.cli.endings import mistakes_as_messages
from headrace.cluster.cli.options import AsJson, OutputOf, PriceOptions, TargetName


def status(output: OutputOf = None, target: TargetName = None) -> None:
    """Say how far an output is: rows by outcome, chunks to do, dead letters by reason."""
    from headrace.cluster.cli.tables import show_status
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.status import read_status

    with mistakes_as_messages():
        show_status(read_status(use_target(target).output_of(output)))


def errors(
    output: OutputOf = None,
    examples: Annotated[
        int, typer.Option("--examples", "-n", min=0, max=1000, help="Dead letters to show of each reason.")
    ] = 3,
    step: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this step (or of the document).")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Only those whose reason contains this.")] = None,
    as_json: AsJson = False,
    target: TargetName = None,
) -> None:
    """Show the dead letters of an output, finished or not: by reason, with examples and what to do."""
    from headrace.cluster.cli.errors_view import show_errors
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.dead_letters import read_dead_letters

    with mistakes_as_messages():
        there = use_target(target).output_of(output)
        show_errors(read_dead_letters(there, examples=examples, step=step, reason=reason), as_json=as_json)


def report(
    output: OutputOf = None,
    previous: Annotated[
        str | None,
        typer.Option(metavar="PREVIOUS_OUTPUT", help="The output to hold it against, say last night's."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Print what moved from output A to output B; nothing is written without --to."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the page here, and nothing into the output.")
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact", help="Leave the text of rows out: documents, kept columns, free and raw answers."
        ),
    ] = None,
    *,
    prices: PriceOptions,
) -> None:
    """Make the report of an output anew, finished or not: a page, and the figures as JSON."""
    from headrace.cluster.report.command import ReportRequest, compare_outputs, report_output
    from headrace.cluster.report.report_view import show_comparison, show_made

    with mistakes_as_messages():
        request = ReportRequest.of(output, previous, compare, to, redact, prices.gpu_price, prices.api_price)
        if compare:
            show_comparison(compare_outputs(request), to)
        else:
            show_made(report_output(request))
