"""Commands that work on a pipeline from this machine: ``run``, ``check``, ``sample``, ``explain``.

Each reads the pipeline before it imports what it does with it: a mistake in the file is told without waiting for that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from headrace.cluster.cli.endings import mistakes_as_messages, teller
from headrace.cluster.cli.options import AsJson, Input, Output, PipelineFile, PriceOptions, Rerun, Variation


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a run takes place, and how its progress is shown."""

    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster: auto or ray://HOST:PORT, or local: start Ray here. Default: RAY_ADDRESS, else this "
            "machine, without Ray if one engine is enough."
        ),
    ] = None
    log_format: Annotated[
        str, typer.Option("--log-format", metavar="text|json", help="json: one JSON object per line on standard error.")
    ] = "text"
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all figures of the run, each with what it means.")
    ] = False


def run(
    pipeline: PipelineFile,
    input: Input = None,
    output: Output = None,
    *,
    variation: Variation,
    rerun: Rerun,
    surroundings: Surroundings,
    prices: PriceOptions,
) -> None:
    """Run a pipeline over all rows of an input.

    Running the same command again resumes: committed chunks are kept. Exit codes: 0 success, 1 a failure (run the same
    command again to resume), 2 a mistake in the command or a file, 3 too many dead letters, 130 interrupted.
    """
    log_format = surroundings.log_format
    with mistakes_as_messages(teller(log_format)):
        at = variation.at()
        source, into = at.place("input", input), at.place("output", output)
        loaded = variation.load(pipeline, at)

        from headrace.cluster.driver.run import run as run_pipeline
        from headrace.cluster.jobs.summary_line import announce
        from headrace.cluster.observability.listeners import listener, summary
        from headrace.cluster.report.on_demand import with_prices

        loaded = with_prices(loaded, prices.gpu_price, prices.api_price)
        with listener(log_format) as watching:
            result = run_pipeline(
                loaded,
                input=source,
                output=into,
                limit=rerun.limit,
                address=at.ray_address(surroundings.address),
                listener=watching,
                recompute=rerun.recompute,
                retry=rerun.retry,
                prune=rerun.prune,
                reuse=rerun.reuse,
            )
        summary(result, log_format, verbose=surroundings.verbose)
        announce(result)
    raise typer.Exit(result.exit_code)


def check(
    pipeline: PipelineFile,
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="URI", help="Also check the pipeline against the columns of this input."),
    ] = None,
    *,
    variation: Variation,
) -> None:
    """Find mistakes in a pipeline without starting an engine."""
    with mistakes_as_messages():
        at = variation.at()
        loaded = variation.load(pipeline, at)

        from headrace.cluster.cli.tables import show_checked
        from headrace.cluster.driver.checking import check_pipeline

        show_checked(check_pipeline(loaded, at.input if input is None else input))


@dataclass(frozen=True, slots=True)
class Shown:
    """How sampled rows are shown."""

    documents: Annotated[bool, typer.Option("--documents", help="Print each document in full.")] = False
    raw: Annotated[bool, typer.Option("--raw", help="Print the answers as the model gave them.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per row.")] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep the engine, and answer the same rows again whenever the pipeline file changes, or a schema or "
            "Python module that it uses.",
        ),
    ] = False


def sample(
    pipeline: PipelineFile,
    input: Input = None,
    rows: Annotated[
        int, typer.Option("--rows", "-n", min=1, max=1000, help="Number of rows, spread over the input.")
    ] = 5,
    *,
    variation: Variation,
    shown: Shown,
) -> None:
    """Answer a few rows and print the answers. Nothing is written.

    The engine runs on this machine, without Ray. With --watch, Ctrl-C ends the command (exit code 130).
    """
    from headrace.pipelines.spec.errors import UserError
    from headrace.pipelines.spec.places import split_name

    with mistakes_as_messages():
        if shown.watch and shown.as_json:
            raise UserError("--watch shows what changed to a person. Leave out --json, or --watch.")
        at = variation.at()
        source = at.place("input", input)
        if not shown.watch or not split_name(pipeline)[0].is_file():
            loaded = variation.load(pipeline, at)

            from headrace.cluster.cli.sample_view import show_sample
            from headrace.cluster.driver.sample import sample_pipeline

            taken = sample_pipeline(loaded, source, rows, say=_say)
            show_sample(taken, documents=shown.documents, raw=shown.raw, as_json=shown.as_json)
            return

        from headrace.cluster.cli.sample_view import show_watch
        from headrace.cluster.driver.sample import Sampler
        from headrace.cluster.driver.sample_watch import Watched, watch_sample

        watched = Watched(
            load=lambda: variation.load(pipeline, at),
            path=pipeline,
            overrides=at.overrides(variation.overrides, variation.model),
            noticed=lambda names: _say(f"{', '.join(names)} changed"),
        )
        with Sampler(source, rows, keep=True, say=_say) as sampler:
            try:
                show_watch(watch_sample(sampler, watched), pipeline, documents=shown.documents, raw=shown.raw)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("The watch has ended.") from None


def _say(text: str) -> None:
    print(f"headrace: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Measuring:
    """Whether to measure layouts, and on how many rows."""

    measure: Annotated[
        bool,
        typer.Option("--measure", help="Start an engine of each model in turn and measure every layout on a sample."),
    ] = False
    rows: Annotated[int, typer.Option("--rows", "-n", min=8, max=10_000, help="Rows in the sample of --measure.")] = 64


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """The run that is explained."""

    limit: Annotated[int | None, typer.Option(min=1, help="Number of rows in total, as for run.")] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="URI", help="Show what a run would do with this existing output."),
    ] = None
    prune: Annotated[bool, typer.Option("--prune", help="With --output: as if the run had --prune.")] = False


def explain(
    pipeline: PipelineFile,
    input: Input = None,
    *,
    measuring: Measuring,
    explained: ExplainedRun,
    variation: Variation,
    prices: PriceOptions,
    as_json: AsJson = False,
) -> None:
    """Show prompts, tokens, time and money before a run."""
    with mistakes_as_messages():
        at = variation.at()
        source = at.place("input", input)
        loaded = variation.load(pipeline, at)

        from headrace.cluster.cli.explain_view import show_explanation
        from headrace.cluster.driver.explain import explain_pipeline
        from headrace.cluster.report.prices import prices as read_prices

        paid = read_prices(prices.gpu_price, prices.api_price)
        explanation = explain_pipeline(
            loaded,
            source,
            measure_rows=measuring.rows if measuring.measure else None,
            limit=explained.limit,
            output=explained.output,
            prune=explained.prune,
        )
        show_explanation(explanation, paid, as_json=as_json)
