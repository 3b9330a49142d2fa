"""Arguments and options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        "--input",
        "-i",
        metavar="URI",
        help="Parquet or JSON Lines: a file, a folder or a glob; local or in an object store.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="URI", help="A folder, local or in an object store. An existing output is resumed."
    ),
]
OutputOf = Annotated[
    str | None, typer.Argument(metavar="OUTPUT", help="The output folder of a run.", show_default=False)
]
TargetName = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="Take defaults from this target in headrace.yaml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="Replace the pipeline's model: default, fake, a folder or a hub id.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value of the pipeline, such as steps.reply.max_tokens=5. Repeatable.",
    ),
]


@dataclass(frozen=True, slots=True)
class Variation:
    """How a pipeline file is changed before use, and for which target."""

    model: ModelName = None
    overrides: Overrides = None
    target: TargetName = None
    no_code: Annotated[
        bool, typer.Option("--no-code", help="Refuse a pipeline that names Python code, which would be executed.")
    ] = False

    def at(self) -> Target:
        """The target; without ``--target``, an empty one.

        Raises:
            UserError: no target has that name, or it has a mistake.
        """
        from headrace.cluster.jobs.targets import use_target

        return use_target(self.target)

    def load(self, pipeline: str, at: Target) -> Pipeline:
        """The pipeline with the changes of the target, then those of the command line.

        Raises:
            UserError: the pipeline has a mistake.
        """
        from headrace.pipelines.spec.loading import load_pipeline

        overrides, model = at.overrides(self.overrides, self.model), at.model_name(self.model)
        loaded = load_pipeline(pipeline, overrides, model, code=not self.no_code)
        assert loaded.source is not None, "a pipeline from a file knows the file"
        return loaded.with_source(replace(loaded.source, options=self._words()))

    def _words(self) -> tuple[str, ...]:
        """The options as they were given."""
        given = [("--target", self.target), ("--model", self.model)]
        given += [("--set", each) for each in self.overrides or ()]
        words = tuple(word for option, value in given if value is not None for word in (option, value))
        return (*words, "--no-code") if self.no_code else words


@dataclass(frozen=True, slots=True)
class Rerun:
    """Which rows a run processes, and what it recomputes of an existing output."""

    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of rows in total, over all runs into the output.")
    ] = None
    recompute: Annotated[
        str | None,
        typer.Option(
            metavar="changed|all",
            help="Recompute the columns that a changed pipeline changes, or all of them.",
        ),
    ] = None
    retry: Annotated[str | None, typer.Option(metavar="errors", help="Retry the dead letters.")] = None
    prune: Annotated[bool, typer.Option("--prune", help="Remove the parts of input files that are gone.")] = False
    reuse: Annotated[
        str | None,
        typer.Option(metavar="PREVIOUS_OUTPUT", help="Reuse the answers of another output for unchanged rows."),
    ] = None


@dataclass(frozen=True, slots=True)
class PriceOptions:
    """Prices that the user gives."""

    gpu_price: Annotated[
        str | None, typer.Option("--gpu-price", metavar="PRICE/h", help="Price of a GPU for an hour, such as 2.5/h.")
    ] = None
    api_price: Annotated[
        str | None,
        typer.Option("--api-price", metavar="IN,OUT", help="An API's price for a million tokens, for comparison."),
    ] = None
