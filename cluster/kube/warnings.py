"""Warnings to read before applying a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.cluster.engines.registry import engines
from headrace.cluster.jobs.secrets_seen import secret_name
from headrace.cluster.kube.bundle import Bundle
from headrace.cluster.kube.engines import Engines, Group
from headrace.cluster.kube.options import KubeOptions
from headrace.pipelines.output.stages import stages_of
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline


def model_warnings(pipeline: Pipeline) -> Iterator[str]:
    """Warnings on the pipeline's models.

    Raises:
        UserError: pods cannot see a model, or there is a secret among its engine arguments.
    """
    for stage in stages_of(pipeline):
        spec = pipeline.spec_of(stage.model)
        for key in spec.arguments:
            if secret_name(key):
                raise UserError(
                    f"The model's {key} looks like a secret, which must not be in a manifest. Put it into a Secret of "
                    f"the cluster, and name that with --secret (Hugging Face reads HF_TOKEN)."
                )
        yield from engines().of(spec).on_cluster(spec, pipeline.folder)


def job_warnings(
    pipeline: Pipeline,
    files: Bundle | None,
    pools: Sequence[Engines],
    groups: Sequence[Group],
    options: KubeOptions,
) -> Iterator[str]:
    """Warnings on files, image, workers, cache and permissions."""
    registry = engines()
    for function in files.elsewhere if files else ():
        yield f"The function {function} is not next to the pipeline, so its module must be in the image."
    if "@sha256:" not in options.image:
        tag = options.image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield f"The image {options.image} has no fixed tag, so nodes with a cached image may run another version."
        if "/" not in options.image:
            yield f"The image {options.image} has no registry, so nodes pull it from their default registry."
    for each in pools:
        if each.gpus and options.gpus_per_pod and options.gpus_per_pod % each.gpus:
            yield f"--gpus-per-pod {options.gpus_per_pod}: engines of {each.gpus} GPUs leave some of them unused."
    if sum(group.pods for group in groups) == 1 and not options.workers:
        yield "There is at most one worker. To use more, give --workers MIN:MAX."
    if any(not group.gpus for group in groups):
        yield "There are engines without a GPU. The image needs the extra cpu for them, not gpu."
    kind, _, _ = options.model_cache.partition(":")
    if kind == "hostPath":
        yield (
            "--model-cache hostPath: most clusters refuse this (the baseline Pod Security Standard does), and the "
            "folder must be writable for user 1000."
        )
    elif kind == "emptyDir" and any(
        registry.of(spec).downloads(spec) for spec in (pipeline.spec_of(each.model) for each in pools)
    ):
        yield ("--model-cache emptyDir: each pod downloads the model. A shared volume (pvc:NAME) is faster.")
    elif kind == "pvc" and sum(group.pods for group in groups) > 1:
        yield "--model-cache pvc: all pods mount the claim, so its access mode must be ReadWriteMany (or ReadOnlyMany)."
    if not options.secrets and options.service_account is None:
        yield "No --secret and no --service-account: the pods have only the node's permissions for input and output."
    if options.service_account is not None:
        yield (
            f"The service account {options.service_account} must exist: KubeRay does not create it, but binds the "
            f"autoscaler's role to it."
        )
