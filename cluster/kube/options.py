"""The options of ``headrace manifest``: what there is to say of a job for KubeRay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from headrace.pipelines.spec.version import VERSION

Texts = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeOptions:
    """What the command line says of a job, unchecked: :func:`headrace.cluster.kube.manifest.manifest` checks it.

    Each field is an option of the command, by :func:`headrace.cluster.cli.option_groups.spread`. The help texts say
    what they mean.
    """

    # What runs.
    input: Annotated[str, typer.Option("--input", "-i", metavar="URI", help="As for run; in an object store.")]
    output: Annotated[str, typer.Option("--output", "-o", metavar="URI", help="As for run; in an object store.")]
    run: Annotated[
        Texts,
        typer.Argument(metavar="RUN_OPTIONS", help="After --: more for headrace run, as in -- --recompute changed."),
    ] = field(default_factory=list)
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="default, fake, a folder, or a hub id; replaces the pipeline's.")
    ] = None
    overrides: Annotated[
        Texts,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change a value, as in: steps[0].max_tokens=5, resources.workers=2."
        ),
    ] = field(default_factory=list)

    # The job.
    name: Annotated[str | None, typer.Option(help="The job's name; else the pipeline's.")] = None
    namespace: Annotated[str | None, typer.Option(help="Else kubectl's.")] = None

    # Its pods.
    image: Annotated[str, typer.Option(help="Of all pods; cluster/deploy/README.md says how to build one.")] = (
        f"headrace:{VERSION}"
    )
    image_pull_secrets: Annotated[
        Texts, typer.Option("--image-pull-secret", metavar="NAME", help="A Secret with the registry's password.")
    ] = field(default_factory=list)
    workers: Annotated[str | None, typer.Option(metavar="MIN:MAX", help="Engines; else as the pipeline says.")] = None
    gpus_per_worker: Annotated[
        int | None, typer.Option(min=0, help="GPUs that one engine is split over; else as the pipeline says.")
    ] = None
    gpus_per_pod: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a pod, for several engines in one; else one engine's.")
    ] = None
    worker_cpu: Annotated[str | None, typer.Option(help="Cores of a pod; else 4 a GPU.")] = None
    worker_memory: Annotated[str | None, typer.Option(help="Of a pod; else 24Gi a GPU.")] = None
    head_cpu: Annotated[str, typer.Option(help="Cores of the head, where the driver runs.")] = "4"
    head_memory: Annotated[str, typer.Option(help="Of the head.")] = "16Gi"

    # Where they may run.
    spot: Annotated[
        bool, typer.Option("--spot/--on-demand", help="Whether workers may run on spot nodes. The head never does.")
    ] = True
    tolerations: Annotated[
        Texts,
        typer.Option(
            "--toleration",
            metavar="KEY[=VALUE][:EFFECT]",
            help="Of the workers, beside those for GPUs and spot nodes.",
        ),
    ] = field(default_factory=list)
    node_selectors: Annotated[Texts, typer.Option("--node-selector", metavar="KEY=VALUE", help="Of the workers.")] = (
        field(default_factory=list)
    )
    labels: Annotated[Texts, typer.Option("--label", metavar="KEY=VALUE", help="On everything.")] = field(
        default_factory=list
    )

    # What they see.
    model_cache: Annotated[
        str, typer.Option(metavar="VOLUME", help="pvc:NAME, pvc:NAME:ro, emptyDir:SIZE or hostPath:PATH.")
    ] = "emptyDir:200Gi"
    service_account: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of head and workers, for roles that go with it; it must exist."),
    ] = None
    secrets: Annotated[
        Texts,
        typer.Option("--secret", metavar="NAME", help="A Secret whose keys become variables. Never its content."),
    ] = field(default_factory=list)
    env: Annotated[Texts, typer.Option("--env", metavar="NAME=VALUE", help="A variable that is no secret.")] = field(
        default_factory=list
    )

    # How often, and for how long.
    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first, each on a new cluster.")] = 2
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Of one attempt, as in 12h.")] = "24h"
    start_deadline: Annotated[str, typer.Option(metavar="TIME", help="Until an attempt runs.")] = "30m"
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long the cluster stays when it is over.")] = "1h"

    # What is in the image.
    ray_version: Annotated[str | None, typer.Option(help="The image's; else the one here.")] = None
    pipeline_in_image: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The pipeline's path in the image, instead of files in the manifest."),
    ] = None
