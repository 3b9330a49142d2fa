"""What whoever applies a manifest should look at first."""

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
    """Of the pipeline's models.

    Raises:
        UserError: a model that pods cannot see, or a secret among its engine arguments.
    """
    for stage in stages_of(pipeline):
        spec = pipeline.spec_of(stage.model)
        for key in spec.arguments:
            if secret_name(key):
                raise UserError(
                    f"The model's {key} looks like a secret, and a manifest is no place for one: put it into a Secret "
                    f"of the cluster and name that with --secret (Hugging Face reads HF_TOKEN)."
                )
        yield from engines().of(spec).on_cluster(spec, pipeline.folder)


def job_warnings(
    pipeline: Pipeline,
    files: Bundle | None,
    pools: Sequence[Engines],
    groups: Sequence[Group],
    options: KubeOptions,
) -> Iterator[str]:
    """Of files, image, workers, cache and rights."""
    registry = engines()
    for function in files.elsewhere if files else ():
        yield f"The function {function} is not beside the pipeline: its module must be in the image."
    if "@sha256:" not in options.image:
        tag = options.image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield f"The image {options.image} has no fixed tag: nodes that cached it run another version."
        if "/" not in options.image:
            yield f"The image {options.image} has no registry: nodes look for it where they are configured to."
    for each in pools:
        if each.gpus and options.gpus_per_pod and options.gpus_per_pod % each.gpus:
            yield f"--gpus-per-pod {options.gpus_per_pod}: engines of {each.gpus} GPUs leave some of them unused."
    if sum(group.pods for group in groups) == 1 and not options.workers:
        yield "There is one worker at most: give more with --workers MIN:MAX."
    if any(not group.gpus for group in groups):
        yield "There are engines without a GPU: the image needs the extra cpu for them, not gpu."
    kind, _, _ = options.model_cache.partition(":")
    if kind == "hostPath":
        yield (
            "--model-cache hostPath: most clusters refuse that (the baseline Pod Security Standard does), and the "
            "folder must be writable for user 1000."
        )
    elif kind == "emptyDir" and any(
        registry.of(spec).downloads(spec) for spec in (pipeline.spec_of(each.model) for each in pools)
    ):
        yield (
            "--model-cache emptyDir: each pod downloads the model for itself. A volume that all share (pvc:NAME) is "
            "quicker."
        )
    elif kind == "pvc" and sum(group.pods for group in groups) > 1:
        yield "--model-cache pvc: all pods mount the claim, so its access mode must be ReadWriteMany (or ReadOnlyMany)."
    if not options.secrets and options.service_account is None:
        yield "No --secret and no --service-account: the pods have the node's own rights to input and output, or none."
    if options.service_account is not None:
        yield (
            f"The service account {options.service_account} must be there before: KubeRay makes none of that name. It "
            f"binds the autoscaler's role to it."
        )
