"""The command line. Only what ``--help`` needs is imported here; each command imports the rest itself."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperCommand

from headrace.cluster.cli.help_texts import epilog, grouped
from headrace.cluster.cli.job_commands import jobs, submit
from headrace.cluster.cli.manifest_command import manifest
from headrace.cluster.cli.option_groups import spread
from headrace.cluster.cli.output_commands import convert, errors, report, status, verify
from headrace.cluster.cli.pipeline_commands import check, explain, run, sample
from headrace.cluster.cli.plugins_command import plugins
from headrace.cluster.cli.project_commands import init, model_default, schema
from headrace.cluster.kube.options import GROUPS
from headrace.pipelines.spec.version import VERSION

app = typer.Typer(
    name="headrace",
    help="Parquet or JSON Lines in, a chain of LLM operators over every row, Parquet out.",
    epilog="Start with: headrace sample PIPELINE --input FOLDER -n 5",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    run,
    check,
    sample,
    explain,
    status,
    errors,
    submit,
    jobs,
    init,
    manifest,
    report,
    verify,
    convert,
    schema,
    plugins,
):
    app.command(
        cls=grouped(GROUPS) if command is manifest else TyperCommand,
        epilog=epilog(command.__name__),
    )(spread(command))
models = typer.Typer(help="Models that come with headrace.", no_args_is_help=True, rich_markup_mode=None)
models.command("default", epilog=epilog("default"))(model_default)
app.add_typer(models, name="model")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"headrace {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The ``headrace`` command."""
    app()
