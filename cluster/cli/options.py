"""Arguments and options that several commands take, each said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.cluster.jobs.targets import Target
    from headrace.pipelines.spec.pipeline import Pipeline

PIPELINE_HELP = "A YAML file, or a Python file (file.py:name)."
PipelineFile = Annotated[str, typer.Argument(metavar="PIPELINE", help=PIPELINE_HELP)]
Input = Annotated[
    str | None,  # required, unless the target has one
    typer.Option(
        "--input", "-i", metavar="URI", help="Parquet or JSON Lines: a file, a folder or a glob; local or s3://."
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="URI", help="A folder, local or s3://; an earlier run's is resumed."),
]
OutputOf = Annotated[
    str | None, typer.Argument(metavar="OUTPUT", help="The output folder of a run.", show_default=False)
]
TargetName = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="A target of headrace.yaml, whose values are defaults.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="default, fake, a folder, or a hub id; replaces the pipeline's.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a value, as in: steps[0].max_tokens=5, resources.workers=2."
    ),
]


@dataclass(frozen=True, slots=True)
class Variation:
    """How a pipeline's file is changed before use, and for which target."""

    model: ModelName = None
    overrides: Overrides = None
    target: TargetName = None

    def at(self) -> Target:
        """The target; without ``--target`` one that says nothing.

        Raises:
            UserError: there is none of that name, or it is not in order.
        """
        from headrace.cluster.jobs.targets import use_target

        return use_target(self.target)

    def load(self, pipeline: str, at: Target) -> Pipeline:
        """The pipeline as the command line would have it, and under that the target.

        Raises:
            UserError: the pipeline is not in order.
        """
        from headrace.pipelines.spec.loading import load_pipeline

        return load_pipeline(pipeline, at.overrides(self.overrides, self.model), at.model_name(self.model))


@dataclass(frozen=True, slots=True)
class Rerun:
    """Which rows a run does, and which of an existing output it does again."""

    limit: Annotated[int | None, typer.Option(min=1, help="Rows in total.")] = None
    recompute: Annotated[
        str | None,
        typer.Option(
            metavar="changed|all",
            help="Do again what a changed pipeline changes, and keep the other columns; or do everything again.",
        ),
    ] = None
    retry: Annotated[str | None, typer.Option(metavar="errors", help="Ask the dead letters again.")] = None
    prune: Annotated[bool, typer.Option("--prune", help="Remove the parts of files that are gone.")] = False
    reuse: Annotated[
        str | None,
        typer.Option(metavar="PREVIOUS_OUTPUT", help="Take the answers of another output for rows that are the same."),
    ] = None


@dataclass(frozen=True, slots=True)
class PriceOptions:
    """What the user says that things cost."""

    gpu_price: Annotated[
        str | None, typer.Option("--gpu-price", metavar="PRICE/h", help="What a GPU costs an hour, as in 2.5/h.")
    ] = None
    api_price: Annotated[
        str | None,
        typer.Option("--api-price", metavar="IN,OUT", help="An API's price for a million tokens, to compare with."),
    ] = None
