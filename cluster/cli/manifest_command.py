"""``headrace manifest``."""

from __future__ import annotations

from typing import Any

import typer

from headrace.cluster.cli.endings import mistakes_as_messages
from headrace.cluster.cli.options import PipelineFile
from headrace.cluster.kube.options import KubeOptions


def manifest(context: typer.Context, pipeline: PipelineFile, options: KubeOptions) -> None:
    """Print a RayJob for KubeRay that runs a pipeline."""
    from headrace.cluster.kube.text import print_manifest

    places = ["--input", options.input, "--output", options.output]
    # A misspelt option fails here, and not in the pod tomorrow night.
    commands: Any = context.find_root().command
    commands.commands["run"].make_context("run", [pipeline, *places, *options.run])
    with mistakes_as_messages():
        print_manifest(pipeline, options)
