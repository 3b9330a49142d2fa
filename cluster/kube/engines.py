"""Engines and their pods: how many, and with how many GPUs."""

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
"""Resources of a pod for each of its GPUs: they fit common cloud machines with one GPU and 8 cores."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one model.

    Attributes:
        model: its name as in :meth:`Pipeline.model_of`.
        at: the place of its resources in the pipeline.
        gpus: GPUs of one engine; ``cpus`` are its whole cores.
        least: the least number of engines; ``most`` is the greatest.
    """

    model: str
    at: str
    gpus: int
    cpus: int
    least: int
    most: int


@dataclass(slots=True)
class Group:
    """Pods of one kind: ``gpus`` in each, and at most ``pods`` of them."""

    gpus: int
    pods: int = 0
    cpus: int = 0
    models: list[str] = field(default_factory=list)


def engines_of(pipeline: Pipeline, options: KubeOptions) -> tuple[list[Engines], list[str]]:
    """The engines of each model, and the ``--set`` options that tell the run what is planned here.

    GPUs are always set: the cluster has none when the run starts, and would seem to be one without GPUs.

    Raises:
        UserError: options do not fit the pipeline.
    """
    stages = stages_of(pipeline)
    workers = _worker_range(options.workers) if options.workers is not None else None
    if len(stages) > 1 and (workers or options.gpus_per_worker is not None):
        raise UserError(
            "--workers and --gpus-per-worker are for pipelines with one model, but this one has "
            f"{len(stages)}. Set the resources (workers, tensor_parallel) of each in the pipeline, under `models`."
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
                raise UserError(
                    f"--gpus-per-worker 0: the pipeline splits its model over {resources.tensor_parallel} GPUs."
                )
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
        raise UserError(f"--workers {text}: must be MIN:MAX, such as 1:8, with MIN at least 1 and at most MAX.")
    return least, most


def groups_of(engines: Sequence[Engines], options: KubeOptions) -> list[Group]:
    """Kinds of pods: one for each number of GPUs, with room for all engines with that number.

    Raises:
        UserError: an engine does not fit a pod.
    """
    groups: dict[int, Group] = {}
    for each in engines:
        per_pod = options.gpus_per_pod if options.gpus_per_pod is not None and each.gpus else each.gpus
        if per_pod < each.gpus:
            raise UserError(
                f"--gpus-per-pod {per_pod}: one engine takes {each.gpus} GPUs, which must be in one pod. Give at "
                f"least that many."
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
                f"--worker-cpu {worker_cpu(group, options)}: the engines of a pod take {group.cpus} whole cores. Give "
                f"at least that many."
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
        raise UserError(f"--worker-cpu {text}: must be a number of cores, such as 8.")
    return int(float(match[1]) / (1000 if match[2] else 1))
