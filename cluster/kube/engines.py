"""Engines and the pods that they are in: how many, and with how many GPUs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.cluster.engines.registry import engines
from headrace.cluster.kube.options import KubeOptions
from headrace.pipelines.output.stages import stages_of
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import loc_text
from headrace.pipelines.spec.resources import NamedModel

CORES_OF_A_GPU = 4
GIB_OF_A_GPU = 24
"""What a pod gets for each of its GPUs: fits the machines with one GPU and 8 cores that clouds have."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one model.

    Attributes:
        model: as :meth:`Pipeline.model_of` names it.
        at: where its resources stand in the pipeline.
        gpus: of one engine; ``cpus`` its whole cores.
        least: how many there are at least; ``most`` at most.
    """

    model: str
    at: str
    gpus: int
    cpus: int
    least: int
    most: int


@dataclass(slots=True)
class Group:
    """Pods of one kind: ``gpus`` in each, at most so many of them."""

    gpus: int
    pods: int = 0
    cpus: int = 0
    models: list[str] = field(default_factory=list)


def engines_of(pipeline: Pipeline, options: KubeOptions) -> tuple[list[Engines], list[str]]:
    """The engines of each model, and the ``--set`` that say to the run what is planned for here.

    GPUs are always said: the cluster has none when the run starts, and would be taken for one without GPUs.

    Raises:
        UserError: options that do not fit the pipeline.
    """
    stages = stages_of(pipeline)
    workers = _worker_range(options.workers) if options.workers is not None else None
    if len(stages) > 1 and (workers or options.gpus_per_worker is not None):
        raise UserError(
            "--workers and --gpus-per-worker are for pipelines with one model, and this one has "
            f"{len(stages)}: write resources (workers, tensor_parallel) for each into the pipeline, under `models`."
        )
    found, sets = [], []
    for stage in stages:
        needs = engines().of(pipeline.spec_of(stage.model)).needs
        spec, resources = pipeline.spec_of(stage.model), pipeline.resources_of(stage.model)
        own = isinstance(spec, NamedModel) and spec.resources is not None
        at = f"{loc_text(pipeline.loc_of(stage.model))}.resources" if own else "resources"
        least, most = workers or resources.worker_range
        if not needs.gpus:
            gpus = 0
        elif options.gpus_per_worker is not None:
            gpus = options.gpus_per_worker
            if gpus:
                sets.append(f"{at}.tensor_parallel={gpus}")
            elif resources.tensor_parallel > 1:
                raise UserError(f"--gpus-per-worker 0: the pipeline splits its model over {resources.tensor_parallel}.")
        else:
            gpus = resources.tensor_parallel if resources.gpus is None else resources.gpus
            gpus = max(gpus, resources.tensor_parallel) if gpus else 0
        sets.append(f"{at}.gpus={gpus}")
        if workers:
            sets.append(f"{at}.workers=[{least}, {most}]")
        alone = _whole_cores(options.worker_cpu or str(CORES_OF_A_GPU)) if needs.cores and not gpus else 1
        cpus = resources.cpus or alone
        if not gpus and resources.cpus is None:
            sets.append(f"{at}.cpus={cpus}")
        found.append(Engines(stage.model, at, gpus, cpus, least, most))
    return found, list(dict.fromkeys(sets))


def _worker_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UserError(f"--workers {text}: write MIN:MAX, as in 1:8, with at least 1 and MIN no more than MAX.")
    return least, most


def groups_of(engines: Sequence[Engines], options: KubeOptions) -> list[Group]:
    """Kinds of pods: one for each number of GPUs, with room for all engines that need so many.

    Raises:
        UserError: an engine does not fit a pod.
    """
    groups: dict[int, Group] = {}
    for each in engines:
        per_pod = options.gpus_per_pod if options.gpus_per_pod is not None and each.gpus else each.gpus
        if per_pod < each.gpus:
            raise UserError(
                f"--gpus-per-pod {per_pod}: one engine takes {each.gpus} GPUs, and they must be in one pod."
            )
        at_once = per_pod // each.gpus if each.gpus else 1
        group = groups.setdefault(per_pod, Group(per_pod))
        group.pods += -(-each.most // at_once)
        group.cpus = max(group.cpus, each.cpus * at_once)
        group.models.append(each.model)
    for group in groups.values():
        has = _whole_cores(worker_cpu(group, options))
        if has < group.cpus:
            raise UserError(
                f"--worker-cpu {worker_cpu(group, options)}: the engines of a pod take {group.cpus} whole cores."
            )
    return list(groups.values())


def worker_cpu(group: Group, options: KubeOptions) -> str:
    """Cores of a pod, as Kubernetes writes them."""
    return options.worker_cpu or str(CORES_OF_A_GPU * max(1, group.gpus))


def worker_memory(group: Group, options: KubeOptions) -> str:
    """Memory of a pod, as Kubernetes writes it."""
    return options.worker_memory or f"{GIB_OF_A_GPU * max(1, group.gpus)}Gi"


def _whole_cores(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if not match:
        raise UserError(f"--worker-cpu {text}: write a number of cores, as in 8.")
    return int(float(match[1]) / (1000 if match[2] else 1))
