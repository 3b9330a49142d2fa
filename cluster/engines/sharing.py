"""Divides the machine between the engines of several models: each gets a part of the cores, or its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.cluster.engines.resources import Allotment, Demand, Room, allot, check_memory, gpus_of
from headrace.pipelines.spec.errors import UserError


def share(demands: Sequence[Demand], *, cluster_gpus: int, node_cpus: int, local: bool) -> tuple[Allotment, ...]:
    """Divide the machine between the pools, one for each model; for the arguments see :func:`allot`.

    Cores are divided by the number of engines, except those that a pipeline requests. On a machine with fewer cores
    than models, each model still gets one, and they take turns.

    Raises:
        UserError: the pipeline needs more than the machine has.
    """
    if len(demands) == 1:
        return (allot(demands[0], cluster_gpus=cluster_gpus, node_cpus=node_cpus, local=local),)
    least = [demand.resources.worker_range[0] for demand in demands]
    gpus = [gpus_of(demand, cluster_gpus) for demand in demands]
    cpus = [
        demand.resources.cpus or (1 if gpu or not demand.needs.cores else 0)
        for demand, gpu in zip(demands, gpus, strict=True)
    ]
    if local:
        _check(demands, "GPUs", [n * gpu for n, gpu in zip(least, gpus, strict=True)], cluster_gpus)
        known = [n * (cpu or 1) for n, cpu in zip(least, cpus, strict=True)]
        if max(known) > 1:
            _check(demands, "cores", known, node_cpus)
    undecided = sum(n for n, cpu in zip(least, cpus, strict=True) if not cpu)
    left = node_cpus - sum(n * cpu for n, cpu in zip(least, cpus, strict=True))
    allotments = [
        allot(
            replace(demand, weights=0),
            cluster_gpus=cluster_gpus,
            node_cpus=node_cpus if cpu else max(n, left * n // undecided),
            local=local,
        )
        for demand, n, cpu in zip(demands, least, cpus, strict=True)
    ]
    if local:
        rooms = zip(demands, allotments, strict=True)
        check_memory([Room.of(d, a.least, a.kv_gib) for d, a in rooms if not a.gpus])
    return tuple(allotments)


def _check(demands: Sequence[Demand], what: str, wanted: Sequence[int], there: int) -> None:
    if sum(wanted) > there:
        each = ", ".join(f"{n} for {demand.name}" for demand, n in zip(demands, wanted, strict=True))
        raise UserError(
            f"resources: the engines of this pipeline's {len(demands)} models need {sum(wanted)} {what} ({each}), but "
            f"this machine has {there}. Each model has its own engines. Set the resources of one of them "
            f"under `models` (gpus: 0 for a CPU engine), or use a cluster with --address."
        )
