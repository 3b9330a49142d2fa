"""Commands to get started: ``init``, ``schema``, ``model``."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cluster.cli.endings import mistakes_as_messages


def init(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder to make. Existing files are not overwritten.")
    ],
) -> None:
    """Make a small project: pipeline, data, targets, DAG, CI file."""
    from headrace.cluster.cli.new_project import make_project

    with mistakes_as_messages():
        print(make_project(folder))


def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    import json

    from headrace.pipelines.spec.json_schema import pipeline_json_schema

    print(json.dumps(pipeline_json_schema(), indent=2))


def model_default() -> None:
    """Print the folder of the default model, creating it on first use."""
    from headrace.cluster.engines.default_model import default_model

    with mistakes_as_messages():
        print(default_model())
