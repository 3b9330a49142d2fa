"""The options of ``headrace manifest``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer

from headrace.pipelines.spec.version import VERSION

Texts = list[str]

GROUPS: Mapping[str, Sequence[str]] = {
    "What runs": ("input", "output", "model", "overrides", "run"),
    "The job": ("name", "namespace"),
    "Its pods": (
        "image",
        "image_pull_secrets",
        "workers",
        "gpus_per_worker",
        "gpus_per_pod",
        "worker_cpu",
        "worker_memory",
        "head_cpu",
        "head_memory",
    ),
    "Where they may run": ("spot", "tolerations", "node_selectors", "labels"),
    "What they see": ("model_cache", "service_account", "secrets", "env"),
    "How often, and for how long": ("retries", "deadline", "start_deadline", "ttl"),
    "What is in the image": ("ray_version", "pipeline_in_image"),
}
"""The options in groups, as the help shows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeOptions:
    """The options of a job for KubeRay, unchecked: :func:`headrace.cluster.kube.manifest.manifest` checks them.

    Each field is an option of the command, by :func:`headrace.cluster.cli.option_groups.spread`. The help texts explain
    them.
    """

    input: Annotated[str, typer.Option("--input", "-i", metavar="URI", help="As for run, in an object store.")]
    output: Annotated[str, typer.Option("--output", "-o", metavar="URI", help="As for run, in an object store.")]
    run: Annotated[
        Texts,
        typer.Argument(
            metavar="RUN_OPTIONS", help="After --: further options of headrace run, such as -- --recompute changed."
        ),
    ] = field(default_factory=list)
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Replace the pipeline's model: default, fake, a folder or a hub id."),
    ] = None
    overrides: Annotated[
        Texts,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a value of the pipeline, such as steps.reply.max_tokens=5. Repeatable.",
        ),
    ] = field(default_factory=list)

    name: Annotated[str | None, typer.Option(help="Name of the job. Default: the pipeline's.")] = None
    namespace: Annotated[str | None, typer.Option(help="Namespace of the job. Default: kubectl's.")] = None

    image: Annotated[str, typer.Option(help="Image of all pods; see cluster/deploy/README.md.")] = f"headrace:{VERSION}"
    image_pull_secrets: Annotated[
        Texts, typer.Option("--image-pull-secret", metavar="NAME", help="A Secret with the registry's password.")
    ] = field(default_factory=list)
    workers: Annotated[
        str | None, typer.Option(metavar="MIN:MAX", help="Number of engines. Default: the pipeline's.")
    ] = None
    gpus_per_worker: Annotated[
        int | None, typer.Option(min=0, help="GPUs that one engine is split over. Default: the pipeline's.")
    ] = None
    gpus_per_pod: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a pod, for several engines in one. Default: one engine's.")
    ] = None
    worker_cpu: Annotated[str | None, typer.Option(help="Cores of a worker pod. Default: 4 per GPU.")] = None
    worker_memory: Annotated[str | None, typer.Option(help="Memory of a worker pod. Default: 24Gi per GPU.")] = None
    head_cpu: Annotated[str, typer.Option(help="Cores of the head, where the driver runs.")] = "4"
    head_memory: Annotated[str, typer.Option(help="Memory of the head.")] = "16Gi"

    spot: Annotated[
        bool, typer.Option("--spot/--on-demand", help="Whether workers may run on spot nodes. The head never does.")
    ] = True
    tolerations: Annotated[
        Texts,
        typer.Option(
            "--toleration",
            metavar="KEY[=VALUE][:EFFECT]",
            help="Toleration of the workers, besides those for GPUs and spot nodes.",
        ),
    ] = field(default_factory=list)
    node_selectors: Annotated[
        Texts, typer.Option("--node-selector", metavar="KEY=VALUE", help="Node selector of the workers.")
    ] = field(default_factory=list)
    labels: Annotated[Texts, typer.Option("--label", metavar="KEY=VALUE", help="Label of all resources.")] = field(
        default_factory=list
    )

    model_cache: Annotated[
        str,
        typer.Option(
            metavar="VOLUME", help="Volume for weights: pvc:NAME, pvc:NAME:ro, emptyDir:SIZE or hostPath:PATH."
        ),
    ] = "emptyDir:200Gi"
    service_account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Service account of head and workers, for roles attached to it. It must exist."
        ),
    ] = None
    secrets: Annotated[
        Texts,
        typer.Option("--secret", metavar="NAME", help="Name of a Secret whose keys become variables."),
    ] = field(default_factory=list)
    env: Annotated[Texts, typer.Option("--env", metavar="NAME=VALUE", help="A variable that is not secret.")] = field(
        default_factory=list
    )

    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first, each on a new cluster.")] = 2
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Limit for one attempt, such as 12h.")] = "24h"
    start_deadline: Annotated[str, typer.Option(metavar="TIME", help="Limit until an attempt runs.")] = "30m"
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long the cluster stays after the end.")] = "1h"

    ray_version: Annotated[str | None, typer.Option(help="The image's Ray version. Default: the installed one.")] = None
    pipeline_in_image: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Path of the pipeline in the image, instead of files in the manifest."),
    ] = None
