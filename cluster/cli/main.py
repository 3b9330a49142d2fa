"""The command line. Only what ``--help`` needs is imported here; each command imports what it does its work with."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Optional

import typer

from headrace.cluster.cli.plugins_command import plugins
from headrace.pipelines.spec.version import VERSION

DONE, USERS_MISTAKE, TOO_MANY_DEAD, INTERRUPTED = 0, 2, 3, 130
"""Exit codes; 1 is a failure that is nobody's mistake (a disk, a cluster), after which the same command resumes."""

DEFAULT_IMAGE = f"headrace:{VERSION}"

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
    Optional[str],  # noqa: UP045  (typer evaluates it; required unless the target has one)
    typer.Option("--input", "-i", metavar="URI", help="A Parquet file, a folder of them, or a glob; local or s3://."),
]
Output = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--output", "-o", metavar="URI", help="A folder, local or s3://; an earlier run's is resumed."),
]
OutputOf = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(metavar="OUTPUT", help="The output folder of a run.", show_default=False),
]
TargetName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--target", metavar="NAME", help="A target of headrace.yaml, whose values are defaults."),
]
Limit = Annotated[Optional[int], typer.Option(min=1, help="Rows in total.")]  # noqa: UP045
Recompute = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="changed|all",
        help="Do again what a changed pipeline changes, and keep the other columns; or do everything again.",
    ),
]
Retry = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="errors", help="Ask the dead letters again."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove the parts of files that are gone.")]
Reuse = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="PREVIOUS_OUTPUT", help="Take the answers of another output for rows that are the same."),
]
LogFormat = Annotated[
    str, typer.Option("--log-format", metavar="text|json", help="json: an object a line, on standard error.")
]
JobsAddress = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="http://HEAD:8265", help="The dashboard of a Ray cluster; or RAY_API_SERVER_ADDRESS."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
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
        print(f"headrace {VERSION}")
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
    input: Input = None,
    output: Output = None,
    model: ModelName = None,
    limit: Limit = None,
    overrides: Overrides = None,
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A Ray cluster: auto, ray://HOST:PORT, or local (the default) to start Ray here."),
    ] = None,
    recompute: Recompute = None,
    retry: Retry = None,
    prune: Prune = False,
    reuse: Reuse = None,
    target: TargetName = None,
    log_format: LogFormat = "text",
    gpu_price: GpuPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Run a pipeline over Parquet files.

    The same command again resumes: what is committed is not done twice. Exit codes: 0 done, 1 a failure after which
    the same command resumes, 2 a mistake in what was given, 3 too many dead letters, 130 interrupted.
    """
    from headrace.cluster.driver.run import run as run_pipeline
    from headrace.cluster.jobs.summary_line import announce
    from headrace.cluster.jobs.targets import use_target
    from headrace.cluster.observability.listeners import listener, summary
    from headrace.cluster.report.command import with_prices
    from headrace.pipelines.spec.loading import load_pipeline

    with _mistakes_as_messages(_teller(log_format)):
        at = use_target(target)
        source, into = at.place("input", input), at.place("output", output)
        loaded = with_prices(
            load_pipeline(pipeline, at.overrides(overrides, model), at.model_name(model)), gpu_price, api_price
        )
        with listener(log_format) as watching:
            result = run_pipeline(
                loaded,
                input=source,
                output=into,
                limit=limit,
                address=at.ray_address(address),
                listener=watching,
                recompute=recompute,
                retry=retry,
                prune=prune,
                reuse=reuse,
            )
        summary(result, log_format)
        announce(result)
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
    target: TargetName = None,
) -> None:
    """Check a pipeline without starting an engine: keys, templates, conditions, schemas, grammars, model, input."""
    from headrace.cluster.cli.tables import show_checked
    from headrace.cluster.driver.checking import check_pipeline
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.spec.loading import load_pipeline

    with _mistakes_as_messages():
        at = use_target(target)
        loaded = load_pipeline(pipeline, at.overrides(overrides, model), at.model_name(model))
        show_checked(check_pipeline(loaded, at.input if input is None else input))


@app.command()
def sample(
    pipeline: PipelineFile,
    input: Input = None,
    rows: Annotated[
        int, typer.Option("--rows", "-n", min=1, max=1000, help="How many rows, spread over the input.")
    ] = 5,
    model: ModelName = None,
    overrides: Overrides = None,
    documents: Annotated[bool, typer.Option("--documents", help="Show each whole document.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show the answers as the model gave them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each row.")] = False,
    target: TargetName = None,
) -> None:
    """Try a pipeline on a few rows, and print the answers. Nothing is written."""
    from headrace.cluster.cli.tables import show_sample
    from headrace.cluster.driver.sample import sample_pipeline
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.spec.loading import load_pipeline

    with _mistakes_as_messages():
        at = use_target(target)
        source = at.place("input", input)
        loaded = load_pipeline(pipeline, at.overrides(overrides, model), at.model_name(model))
        taken = sample_pipeline(loaded, source, rows)
        show_sample(taken, documents=documents, raw=raw, as_json=as_json)


@app.command()
def explain(
    pipeline: PipelineFile,
    input: Input = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Start an engine here (of each model in turn), and take a sample through every layout."
        ),
    ] = False,
    rows: Annotated[int, typer.Option("--rows", "-n", min=8, max=10_000, help="Rows that --measure takes.")] = 64,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Rows in total, as for run.")] = None,  # noqa: UP045
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="URI", help="What a run into this output would do, given what is there."
        ),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="With --output: as a run with --prune would.")] = False,
    model: ModelName = None,
    overrides: Overrides = None,
    gpu_price: GpuPrice = None,
    api_price: ApiPrice = None,
    as_json: AsJson = False,
    target: TargetName = None,
) -> None:
    """Show what a run would do: the steps, their prompts, what each layout computes, time, money."""
    from headrace.cluster.cli.explain_view import show_explanation
    from headrace.cluster.driver.explain import explain_pipeline
    from headrace.cluster.jobs.targets import use_target
    from headrace.cluster.report.prices import prices
    from headrace.pipelines.spec.loading import load_pipeline

    with _mistakes_as_messages():
        asked = prices(gpu_price, api_price)
        at = use_target(target)
        source = at.place("input", input)
        loaded = load_pipeline(pipeline, at.overrides(overrides, model), at.model_name(model))
        show_explanation(
            explain_pipeline(
                loaded, source, measure_rows=rows if measure else None, limit=limit, output=output, prune=prune
            ),
            asked,
            as_json=as_json,
        )


@app.command()
def status(output: OutputOf = None, target: TargetName = None) -> None:
    """Say how far an output is: rows by outcome, chunks to do, dead letters by reason."""
    from headrace.cluster.cli.tables import show_status
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.status import read_status

    with _mistakes_as_messages():
        show_status(read_status(use_target(target).output_of(output)))


@app.command()
def errors(
    output: OutputOf = None,
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
    as_json: AsJson = False,
    target: TargetName = None,
) -> None:
    """Show the dead letters of an output, finished or not: by reason, with examples and what to do."""
    from headrace.cluster.cli.errors_view import show_errors
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.output.dead_letters import read_dead_letters

    with _mistakes_as_messages():
        there = use_target(target).output_of(output)
        show_errors(read_dead_letters(there, examples=examples, step=step, reason=reason), as_json=as_json)


@app.command()
def submit(
    pipeline: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="PIPELINE", help="A YAML file, or a Python file (file.py:name).", show_default=False),
    ] = None,
    input: Input = None,
    output: Output = None,
    address: JobsAddress = None,
    target: TargetName = None,
    interval: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TEXT", help="The day, or other interval, that this run is for; another one is another job."
        ),
    ] = None,
    model: ModelName = None,
    limit: Limit = None,
    overrides: Overrides = None,
    recompute: Recompute = None,
    retry: Retry = None,
    prune: Prune = False,
    reuse: Reuse = None,
    include: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--include", metavar="GLOB", help="Ship these files of the pipeline's folder, too."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the log until the job is over.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Run it once more though it was done.")] = False,
    stop: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Stop this job, and submit nothing. What is committed stays."),
    ] = None,
) -> None:
    """Run a pipeline on a Ray cluster, as a job that goes on without this machine.

    The same command again follows the job while it runs, does nothing after it succeeded, and resumes after it failed
    or was stopped. Exit codes are those of run; with --no-wait 0 says that it was submitted.
    """
    from headrace.cluster.engines.locate import check_models
    from headrace.cluster.jobs.submission import make_submission
    from headrace.cluster.jobs.submitting import jobs_at, stop_job, submit_and_follow
    from headrace.cluster.jobs.targets import use_target
    from headrace.pipelines.spec.errors import UserError
    from headrace.pipelines.spec.loading import load_pipeline

    with _mistakes_as_messages():
        at = use_target(target)
        if stop is not None:
            with jobs_at(address or at.address, at.token) as jobs:
                raise typer.Exit(stop_job(jobs, stop))
        if pipeline is None:
            raise UserError("Which pipeline? headrace submit PIPELINE, or headrace submit --stop ID")
        source, into = at.place("input", input), at.place("output", output)
        model, overrides = at.model_name(model), at.overrides(overrides, model)
        check_models(load_pipeline(pipeline, overrides, model))  # mistakes are said here, before anything is sent
        submission = make_submission(
            pipeline,
            input=source,
            output=into,
            interval=interval,
            model=model,
            limit=limit,
            overrides=overrides,
            recompute=recompute,
            retry=retry,
            prune=prune,
            reuse=reuse,
            include=include or (),
            env=at.settings(),
        )
        with jobs_at(address or at.address, at.token) as jobs:
            code = submit_and_follow(jobs, submission, again=again, wait=wait)
    raise typer.Exit(code)


@app.command()
def jobs(address: JobsAddress = None, target: TargetName = None, as_json: AsJson = False) -> None:
    """List what headrace has submitted to a cluster."""
    from headrace.cluster.jobs.submitting import jobs_at, show_jobs
    from headrace.cluster.jobs.targets import use_target

    with _mistakes_as_messages():
        at = use_target(target)
        with jobs_at(address or at.address, at.token) as there:
            show_jobs(there.list(), as_json=as_json)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to; nothing in it is overwritten.")],
) -> None:
    """Make a small project that runs: a pipeline, data, targets, an Airflow DAG, a CI file."""
    from headrace.cluster.cli.new_project import make_project

    with _mistakes_as_messages():
        print(make_project(folder))


@app.command()
def manifest(
    pipeline: PipelineFile,
    input: Annotated[str, typer.Option("--input", "-i", metavar="URI", help="As for run; in an object store.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="URI", help="As for run; in an object store.")],
    run_options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="RUN_OPTIONS", help="After --: more for headrace run, as in -- --recompute changed."),
    ] = None,
    model: ModelName = None,
    overrides: Overrides = None,
    name: Annotated[Optional[str], typer.Option(help="The job's name; else the pipeline's.")] = None,  # noqa: UP045
    namespace: Annotated[Optional[str], typer.Option(help="Else kubectl's.")] = None,  # noqa: UP045
    image: Annotated[
        str, typer.Option(help="Of all pods; cluster/deploy/README.md says how to build one.")
    ] = DEFAULT_IMAGE,
    image_pull_secret: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="A Secret with the registry's password."),
    ] = None,
    workers: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="MIN:MAX", help="Engines; else as the pipeline says."),
    ] = None,
    gpus_per_worker: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="GPUs that one engine is split over; else as the pipeline says."),
    ] = None,
    gpus_per_pod: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="GPUs of a pod, for several engines in one; else one engine's."),
    ] = None,
    worker_cpu: Annotated[Optional[str], typer.Option(help="Cores of a pod; else 4 a GPU.")] = None,  # noqa: UP045
    worker_memory: Annotated[Optional[str], typer.Option(help="Of a pod; else 24Gi a GPU.")] = None,  # noqa: UP045
    head_cpu: Annotated[str, typer.Option(help="Cores of the head, where the driver runs.")] = "4",
    head_memory: Annotated[str, typer.Option(help="Of the head.")] = "16Gi",
    spot: Annotated[
        bool, typer.Option("--spot/--on-demand", help="Whether workers may run on spot nodes. The head never does.")
    ] = True,
    toleration: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY[=VALUE][:EFFECT]", help="Of the workers, beside those for GPUs and spot nodes."),
    ] = None,
    node_selector: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY=VALUE", help="Of the workers."),
    ] = None,
    label: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY=VALUE", help="On everything."),
    ] = None,
    model_cache: Annotated[
        str, typer.Option(metavar="VOLUME", help="pvc:NAME, pvc:NAME:ro, emptyDir:SIZE or hostPath:PATH.")
    ] = "emptyDir:200Gi",
    service_account: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Of head and workers, for roles that go with it; it must exist."),
    ] = None,
    secret: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME", help="A Secret whose keys become variables. Never its content."),
    ] = None,
    env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="NAME=VALUE", help="A variable that is no secret."),
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first, each on a new cluster.")] = 2,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Of one attempt, as in 12h.")] = "24h",
    start_deadline: Annotated[str, typer.Option(metavar="TIME", help="Until an attempt runs.")] = "30m",
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long the cluster stays when it is over.")] = "1h",
    ray_version: Annotated[Optional[str], typer.Option(help="The image's; else the one here.")] = None,  # noqa: UP045
    pipeline_in_image: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="PATH", help="The pipeline's path in the image, instead of files in the manifest."),
    ] = None,
) -> None:
    """Print a KubeRay manifest (a RayJob and its ConfigMap) that runs a pipeline on Kubernetes."""
    from headrace.cluster.kube.options import Options
    from headrace.cluster.kube.text import installed_ray, print_manifest

    runs: Any = typer.main.get_command(app)
    # Says of a misspelt option here what the pod would say of it tomorrow night.
    runs.commands["run"].make_context("run", [pipeline, "--input", input, "--output", output, *(run_options or [])])
    with _mistakes_as_messages():
        options = Options(
            ray_version=ray_version or installed_ray(),
            input=input,
            output=output,
            name=name,
            namespace=namespace,
            image=image,
            image_pull_secrets=image_pull_secret or [],
            gpus_per_worker=gpus_per_worker,
            gpus_per_pod=gpus_per_pod,
            workers=workers,
            worker_cpu=worker_cpu,
            worker_memory=worker_memory,
            head_cpu=head_cpu,
            head_memory=head_memory,
            spot=spot,
            tolerations=toleration or [],
            node_selectors=node_selector or [],
            labels=label or [],
            model_cache=model_cache,
            service_account=service_account,
            secrets=secret or [],
            env=env or [],
            retries=retries,
            deadline=deadline,
            start_deadline=start_deadline,
            ttl=ttl,
            run=run_options or [],
            overrides=overrides or [],
            model=model,
            pipeline_in_image=pipeline_in_image,
        )
        print_manifest(pipeline, options)


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
    from headrace.cluster.report.command import ReportRequest, compare_outputs, report_output
    from headrace.cluster.report.report_view import show_comparison, show_made

    with _mistakes_as_messages():
        request = ReportRequest.of(output, previous, compare, to, redact, gpu_price, api_price)
        if compare:
            show_comparison(compare_outputs(request), to)
        else:
            show_made(report_output(request))


@app.command()
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    import json

    from headrace.pipelines.spec.json_schema import pipeline_json_schema

    print(json.dumps(pipeline_json_schema(), indent=2))


app.command()(plugins)


@models.command("default")
def model_default() -> None:
    """Print the folder of the default model (SmolLM2-135M-Instruct), which is made on first use."""
    from headrace.cluster.engines.default_model import default_model

    with _mistakes_as_messages():
        print(default_model())


@contextmanager
def _mistakes_as_messages(say: Callable[[str, int], None] | None = None) -> Iterator[None]:
    """Turn what a user can mend into a message and an exit code, and what they cannot into what to do next.

    ``say`` is told both, where it is not to be a line of text.
    """
    from headrace.cluster.jobs.summary_line import announce_failure
    from headrace.pipelines.spec.errors import UserError

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    say = say or _say
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except typer.Exit:
        raise
    except UserError as error:
        say(f"Error: {error}", USERS_MISTAKE)
        announce_failure(USERS_MISTAKE, str(error))
        raise typer.Exit(USERS_MISTAKE) from error
    except KeyboardInterrupt:
        say("Interrupted. What is committed stays; the same command resumes.", INTERRUPTED)
        announce_failure(INTERRUPTED, "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        from headrace.cluster.engines.starting import EngineStartFailed
        from headrace.cluster.jobs.jobs_api import JobsError
        from headrace.pipelines.spec.errors import ChunksFailed, StorageUnavailable

        if not isinstance(error, ChunksFailed | EngineStartFailed | JobsError | StorageUnavailable):
            announce_failure(1, f"{type(error).__name__}: {error}")
            raise
        say(f"Failed: {error}", 1)
        announce_failure(1, str(error))
        raise typer.Exit(1) from error


def _say(message: str, exit_code: int) -> None:
    print(message, file=sys.stderr, flush=True)


def _teller(log_format: str) -> Callable[[str, int], None] | None:
    """What says how a command has failed, where it is not a line of text."""
    if log_format != "json":
        return None
    from headrace.cluster.observability.json_log import tell_end

    return tell_end


def main() -> None:
    """The ``headrace`` command."""
    app()
