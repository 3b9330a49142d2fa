"""The command line. Only what ``--help`` needs is imported here; each command imports what it does its work with."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Optional

import typer

DONE, USERS_MISTAKE, TOO_MANY_DEAD, INTERRUPTED = 0, 2, 3, 130
"""Exit codes; 1 is a failure that is nobody's mistake (a disk, a cluster), after which the same command resumes."""

app = typer.Typer(
    name="headrace",
    help="Parquet in, a chain of LLM operators over every row, Parquet out.",
    epilog="Start with: headrace sample PIPELINE --input FOLDER -n 5",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(help="Models that headrace brings along.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="model")

PipelineFile = Annotated[str, typer.Argument(metavar="PIPELINE", help="A YAML file, or a Python file (file.py:name).")]
Input = Annotated[
    str,
    typer.Option("--input", "-i", metavar="URI", help="A Parquet file, a folder of them, or a glob; local or s3://."),
]
ModelName = Annotated[
    Optional[str],  # noqa: UP045  (typer evaluates it)
    typer.Option("--model", "-m", help="default, fake, a folder, or a hub id; replaces the pipeline's."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value, as in: steps[0].max_tokens=5, resources.workers=2.",
    ),
]

GpuPrice = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--gpu-price", metavar="PRICE/h", help="What a GPU costs an hour, as in 2.5/h."),
]
ApiPrice = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--api-price", metavar="IN,OUT", help="An API's price for a million tokens, to compare with."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from headrace import __version__

        print(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    pipeline: PipelineFile,
    input: Input,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="URI", help="A folder, local or s3://; an earlier run's is resumed."),
    ],
    model: ModelName = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Rows in total.")] = None,  # noqa: UP045
    overrides: Overrides = None,
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A Ray cluster: auto, ray://HOST:PORT, or local (the default) to start Ray here."),
    ] = None,
    recompute: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="changed|all",
            help="Do again what a changed pipeline changes, and keep the other columns; or do everything again.",
        ),
    ] = None,
    retry: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="errors", help="Ask the dead letters again."),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the parts of files that are gone.")] = False,
    reuse: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="PREVIOUS_OUTPUT", help="Take the answers of another output for rows that are the same."),
    ] = None,
    gpu_price: GpuPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Run a pipeline over Parquet files.

    The same command again resumes: what is committed is not done twice. Exit codes: 0 done, 1 a failure after which
    the same command resumes, 2 a mistake in what was given, 3 too many dead letters, 130 interrupted.
    """
    from headrace.cluster.progress import listener, summary
    from headrace.cluster.report import with_prices
    from headrace.cluster.run import run as run_pipeline
    from headrace.pipelines.loading import load_pipeline

    with _mistakes_as_messages():
        loaded = with_prices(load_pipeline(pipeline, overrides or [], model), gpu_price, api_price)
        with listener() as watching:
            result = run_pipeline(
                loaded,
                input=input,
                output=output,
                limit=limit,
                address=address,
                listener=watching,
                recompute=recompute,
                retry=retry,
                prune=prune,
                reuse=reuse,
            )
        summary(result)
    raise typer.Exit(result.exit_code)


@app.command()
def check(
    pipeline: PipelineFile,
    input: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--input", "-i", metavar="URI", help="Hold the pipeline against this input's columns, too."),
    ] = None,
    model: ModelName = None,
    overrides: Overrides = None,
) -> None:
    """Check a pipeline without starting an engine: keys, templates, conditions, schemas, grammars, model, input."""
    from headrace.cluster.checking import check_pipeline
    from headrace.cluster.tables import show_checked
    from headrace.pipelines.loading import load_pipeline

    with _mistakes_as_messages():
        show_checked(check_pipeline(load_pipeline(pipeline, overrides or [], model), input))


@app.command()
def sample(
    pipeline: PipelineFile,
    input: Input,
    rows: Annotated[
        int, typer.Option("--rows", "-n", min=1, max=1000, help="How many rows, spread over the input.")
    ] = 5,
    model: ModelName = None,
    overrides: Overrides = None,
    documents: Annotated[bool, typer.Option("--documents", help="Show each whole document.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show the answers as the model gave them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each row.")] = False,
) -> None:
    """Try a pipeline on a few rows, and print the answers. Nothing is written."""
    from headrace.cluster.sample import sample_pipeline
    from headrace.cluster.tables import show_sample
    from headrace.pipelines.loading import load_pipeline

    with _mistakes_as_messages():
        taken = sample_pipeline(load_pipeline(pipeline, overrides or [], model), input, rows)
        show_sample(taken, documents=documents, raw=raw, as_json=as_json)


@app.command()
def explain(
    pipeline: PipelineFile,
    input: Input,
    measure: Annotated[
        bool, typer.Option("--measure", help="Start an engine here, and take a sample through every layout.")
    ] = False,
    rows: Annotated[int, typer.Option("--rows", "-n", min=8, max=10_000, help="Rows that --measure takes.")] = 64,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Rows in total, as for run.")] = None,  # noqa: UP045
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="URI", help="What a run into this output would do, given what is there."
        ),
    ] = None,
    model: ModelName = None,
    overrides: Overrides = None,
    gpu_price: GpuPrice = None,
    api_price: ApiPrice = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Show what a run would do: the steps, their prompts, what each layout computes, time, money."""
    from headrace.cluster.explain import explain_pipeline, prices
    from headrace.cluster.explain_view import show_explanation
    from headrace.pipelines.loading import load_pipeline

    with _mistakes_as_messages():
        asked = prices(gpu_price, api_price)
        loaded = load_pipeline(pipeline, overrides or [], model)
        show_explanation(
            explain_pipeline(loaded, input, measure_rows=rows if measure else None, limit=limit, output=output),
            asked,
            as_json=as_json,
        )


@app.command()
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output folder of a run.")],
) -> None:
    """Say how far an output is: rows by outcome, chunks to do, dead letters by reason."""
    from headrace.cluster.tables import show_status
    from headrace.pipelines.status import read_status

    with _mistakes_as_messages():
        show_status(read_status(output))


@app.command()
def errors(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output folder of a run.")],
    examples: Annotated[
        int, typer.Option("--examples", "-n", min=0, max=1000, help="Dead letters to show of each reason.")
    ] = 3,
    step: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Only those of this step (or of the document)."),
    ] = None,
    reason: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TEXT", help="Only those whose reason contains this."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Show the dead letters of an output, finished or not: by reason, with examples and what to do."""
    from headrace.cluster.errors_view import show_errors
    from headrace.pipelines.dead_letters import read_dead_letters

    with _mistakes_as_messages():
        show_errors(read_dead_letters(output, examples=examples, step=step, reason=reason), as_json=as_json)


@app.command()
def report(
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="OUTPUT", help="The output folder of a run."),
    ] = None,
    previous: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="PREVIOUS_OUTPUT", help="The output to hold it against, say last night's."),
    ] = None,
    compare: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045
        typer.Option(
            metavar="A B", help="Print what moved from output A to output B; nothing is written without --to."
        ),
    ] = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Write the page here, and nothing into the output."),
    ] = None,
    redact: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--redact/--no-redact", help="Leave the text of rows out: documents, kept columns, free and raw answers."
        ),
    ] = None,
    gpu_price: GpuPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Make the report of an output anew, finished or not: a page, and the figures as JSON."""
    from headrace.cluster.report import Wish, compare_outputs, report_output
    from headrace.cluster.report_view import show_comparison, show_made

    with _mistakes_as_messages():
        wish = Wish.of(output, previous, compare, to, redact, gpu_price, api_price)
        if compare:
            show_comparison(compare_outputs(wish), to)
        else:
            show_made(report_output(wish))


@app.command()
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    import json

    from headrace.pipelines.loading import pipeline_json_schema

    print(json.dumps(pipeline_json_schema(), indent=2))


@models.command("default")
def model_default() -> None:
    """Print the folder of the default model (SmolLM2-135M-Instruct), which is made on first use."""
    from headrace.cluster.models import default_model

    with _mistakes_as_messages():
        print(default_model())


@contextmanager
def _mistakes_as_messages() -> Iterator[None]:
    """Turn what a user can mend into a message and an exit code, and what they cannot into what to do next."""
    from headrace.pipelines.errors import UserError

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except UserError as error:
        _say(f"Error: {error}")
        raise typer.Exit(USERS_MISTAKE) from error
    except KeyboardInterrupt:
        _say("Interrupted. What is committed stays; the same command resumes.")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        from headrace.cluster.engines import EngineStartFailed
        from headrace.cluster.run import ChunksFailed
        from headrace.pipelines.errors import StorageUnavailable

        if not isinstance(error, ChunksFailed | EngineStartFailed | StorageUnavailable):
            raise
        _say(f"Failed: {error}")
        raise typer.Exit(1) from error


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """The ``headrace`` command."""
    app()


if __name__ == "__main__":
    main()
