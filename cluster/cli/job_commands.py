"""Commands that talk to a Ray cluster's Jobs API: ``submit``, ``jobs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from headrace.cluster.cli.endings import mistakes_as_messages
from headrace.cluster.cli.options import PIPELINE_HELP, AsJson, Input, Output, Rerun, TargetName, Variation

JobsAddress = Annotated[
    str | None,
    typer.Option(metavar="http://HEAD:8265", help="The dashboard of a Ray cluster. Default: RAY_API_SERVER_ADDRESS."),
]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a job, besides what it runs."""

    interval: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The day or other interval of this run. Each interval is a job of its own."),
    ] = None
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Also send these files of the pipeline's folder."),
    ] = None
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the log until the job ends.")] = True
    again: Annotated[bool, typer.Option("--again", help="Run it once more although it succeeded.")] = False
    stop: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Stop this job and submit nothing. Committed chunks are kept."),
    ] = None


def submit(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE", help=PIPELINE_HELP, show_default=False)] = None,
    input: Input = None,
    output: Output = None,
    address: JobsAddress = None,
    *,
    variation: Variation,
    rerun: Rerun,
    job: JobOptions,
) -> None:
    """Run a pipeline as a job on a Ray cluster.

    The job keeps running without this machine. Running the same command again follows the job while it runs, does
    nothing once it has succeeded, and resumes it after a failure or a stop. Exit codes are those of run; with
    --no-wait, 0 means that the job was submitted.
    """
    from headrace.cluster.jobs.submitting import jobs_at, stop_job, submit_and_follow
    from headrace.pipelines.spec.errors import UserError

    with mistakes_as_messages():
        at = variation.at()
        if job.stop is not None:
            with jobs_at(address or at.address, at.token) as client:
                raise typer.Exit(stop_job(client, job.stop))
        if pipeline is None:
            raise UserError("No pipeline was given. Use headrace submit PIPELINE, or headrace submit --stop ID.")
        source, into = at.place("input", input), at.place("output", output)
        loaded = variation.load(pipeline, at)  # mistakes are said here, before anything is imported or sent

        from headrace.cluster.engines.locate import check_models
        from headrace.cluster.jobs.submission import RunArguments, make_submission

        check_models(loaded)
        run = RunArguments(
            input=source,
            output=into,
            model=at.model_name(variation.model),
            limit=rerun.limit,
            overrides=at.overrides(variation.overrides, variation.model),
            recompute=rerun.recompute,
            retry=rerun.retry,
            prune=rerun.prune,
            reuse=rerun.reuse,
        )
        submission = make_submission(pipeline, run, interval=job.interval, include=job.include or (), env=at.settings())
        with jobs_at(address or at.address, at.token) as client:
            code = submit_and_follow(client, submission, again=job.again, wait=job.wait)
    raise typer.Exit(code)


def jobs(address: JobsAddress = None, target: TargetName = None, as_json: AsJson = False) -> None:
    """List the jobs that headrace submitted to a cluster."""
    from headrace.cluster.jobs.submitting import jobs_at, show_jobs
    from headrace.cluster.jobs.targets import use_target

    with mistakes_as_messages():
        at = use_target(target)
        with jobs_at(address or at.address, at.token) as client:
            show_jobs(client.list(), as_json=as_json)
