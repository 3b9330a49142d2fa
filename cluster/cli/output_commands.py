"""Commands about an output: ``status``, ``errors``, ``report``, ``verify``, ``convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cluster.cli.endings import mistakes_as_messages
from headrace.cluster.cli.options import AsJson, OutputOf, PriceOptions, TargetName


def status(output: OutputOf = None, target: TargetName = None) -> None:
    """Show how far an output is: rows, chunks, dead letters."""
    from headrace.cluster.cli.tables import show_status
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.status import read_status

    with mistakes_as_messages():
        show_status(read_status(use_target(target).output_of(output)))


def errors(
    output: OutputOf = None,
    examples: Annotated[
        int, typer.Option("--examples", "-n", min=0, max=1000, help="Number of examples for each reason.")
    ] = 3,
    step: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only dead letters of this step, or of the document.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only dead letters whose reason contains this text.")
    ] = None,
    as_json: AsJson = False,
    target: TargetName = None,
) -> None:
    """Show dead letters by reason, with examples and advice."""
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
        typer.Option(metavar="PREVIOUS_OUTPUT", help="The output to compare with, such as last night's."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Print what moved from output A to output B. Nothing is written without --to."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the page to this file instead of the output.")
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact", help="Leave out text of rows: documents, kept columns, free and raw answers."
        ),
    ] = None,
    *,
    prices: PriceOptions,
) -> None:
    """Make the report of an output: a page, and the figures as JSON."""
    from headrace.cluster.report.on_demand import ReportRequest, compare_outputs, report_output
    from headrace.cluster.report.terminal_view import show_comparison, show_report

    with mistakes_as_messages():
        request = ReportRequest.of(output, previous, compare, to, redact, prices.gpu_price, prices.api_price)
        if compare:
            show_comparison(compare_outputs(request), to)
        else:
            show_report(report_output(request))


def verify(output: OutputOf = None, as_json: AsJson = False, target: TargetName = None) -> None:
    """Read every file of an output, and hold it against its checksums, counts and plan. Exit code 1: damage."""
    from headrace.cluster.cli.verify_view import show_verification
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.verify import verify_output
    from headrace.pipelines.spec.errors import FAILED

    with mistakes_as_messages():
        found = verify_output(use_target(target).output_of(output))
        show_verification(found, as_json=as_json)
        if found.findings:
            raise typer.Exit(FAILED)


def convert(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output folder of a run.", show_default=False)],
) -> None:
    """Give an output of an earlier build today's file names. No run may be using it."""
    from headrace.pipelines.output.convert import convert as convert_files
    from headrace.pipelines.storage.opening import reached_store

    with mistakes_as_messages():
        moved, complete = convert_files(reached_store(output))
        then = "It is complete." if complete else "It is not complete: the command that made it resumes it."
        print(f"{moved} files have new names. {then}" if moved else f"Nothing to convert. {then}")
