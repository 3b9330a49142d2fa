"""The resources of an engine (cores, memory, GPUs), decided before any engine starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import Resources

GIB = 1 << 30

MOST_KV_GIB = 4
"""Default KV cache of a CPU engine: enough for a hundred documents of a few hundred tokens in flight."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine needs of the machine that it runs on; by default nothing.

    All but ``gpus`` is about engines without a GPU.

    Attributes:
        gpus: whether it runs on GPUs if the machine has some.
        cores: whether it computes on cores, and so gets those that are left. If not, one core is enough, for the
            process that talks to it.
        kv_cache: whether it gets memory for a KV cache.
        weights: bytes of memory for each byte of the weights on disk.
        processes: further bytes of memory.
    """

    gpus: bool = False
    cores: bool = False
    kv_cache: bool = False
    weights: float = 0.0
    processes: int = 0


NOTHING = Needs()
"""The needs of an engine that runs elsewhere."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """The resources of each worker, and the number of workers (``least`` to ``most``)."""

    least: int
    most: int
    gpus: int
    cpus: int
    kv_gib: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What the engines of one model should get.

    Attributes:
        name: the model's name in messages.
        weights: bytes of the weights on disk; 0 if there are none.
        needs: what the engine needs; it gets nothing else.
    """

    name: str
    resources: Resources
    weights: int
    needs: Needs


def allot(demand: Demand, *, cluster_gpus: int, node_cpus: int, local: bool) -> Allotment:
    """Divide the machine between the engines of one model.

    Args:
        cluster_gpus: GPUs that the cluster has at present.
        node_cpus: cores of a node (of this machine, if Ray is local).
        local: whether Ray runs on this machine alone, so that no nodes will be added.

    Raises:
        UserError: the pipeline needs more than the machine has.
    """
    resources, needs = demand.resources, demand.needs
    least, most = resources.worker_range
    gpus = gpus_of(demand, cluster_gpus)
    if needs.gpus and not gpus and resources.tensor_parallel > 1:
        raise UserError("resources: tensor_parallel needs GPUs, but this run has none. Remove it, or run on GPUs.")
    if local and gpus * least > cluster_gpus:
        raise UserError(
            f"resources: {least} worker(s) with {gpus} GPU(s) each need more than this machine has ({cluster_gpus}). "
            f"Set resources.gpus to 0 for CPU engines, or use a cluster with --address."
        )
    if gpus:
        return Allotment(least, most, gpus, resources.cpus or 1, 0)
    if local and resources.cpus and resources.cpus * least > node_cpus:
        raise UserError(
            f"resources: {least} worker(s) with {resources.cpus} core(s) each need more than this machine has "
            f"({node_cpus}). Lower resources.workers or resources.cpus."
        )
    if local and needs.cores and least > node_cpus:
        raise UserError(
            f"resources: {least} workers are too many: this machine has {node_cpus} cores. Lower resources.workers."
        )
    cpus = resources.cpus or (
        max(1, node_cpus // (most if local and most <= node_cpus else least)) if needs.cores else 1
    )
    kv_gib = _kv_gib(resources, most if local else 1) if needs.kv_cache else 0
    if local:
        check_memory([Room.of(demand, least, kv_gib)])
    return Allotment(least, most, 0, cpus, kv_gib)


def gpus_of(demand: Demand, cluster_gpus: int) -> int:
    """GPUs that one engine takes; 0 on a CPU."""
    if not demand.needs.gpus:
        return 0
    resources = demand.resources
    gpus = resources.gpus
    if gpus is None:
        gpus = resources.tensor_parallel if cluster_gpus else 0
    return max(gpus, resources.tensor_parallel if gpus else 0)


def _kv_gib(resources: Resources, workers: int) -> int:
    if resources.memory_bytes is not None:
        return max(1, -(-resources.memory_bytes // GIB))
    return max(1, min(MOST_KV_GIB, available_memory() // 8 // workers // GIB))


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of the CPU engines of one model: bytes, and GiB for the KV cache."""

    engines: int
    weights: int
    kv_gib: int
    processes: int

    @classmethod
    def of(cls, demand: Demand, engines: int, kv_gib: int) -> Room:
        """Memory of ``engines`` engines; nothing if the weights are unknown, because they take most of it."""
        if not demand.weights or not demand.needs.weights:
            return cls(engines, 0, 0, 0)
        return cls(engines, int(demand.needs.weights * demand.weights), kv_gib, demand.needs.processes)

    @property
    def each(self) -> int:
        """Bytes of one engine."""
        return self.weights + self.kv_gib * GIB + self.processes


def check_memory(rooms: Sequence[Room]) -> None:
    """Check that the CPU engines of all models together fit into this machine's memory.

    Raises:
        UserError: they do not.
    """
    rooms = [room for room in rooms if room.each]
    wanted, available = sum(room.engines * room.each for room in rooms), available_memory()
    if wanted > available:
        each = "; ".join(
            f"each {room.weights / GIB:.1f} for weights, {room.kv_gib} for the KV cache, "
            f"{room.processes / GIB:.1f} for processes"
            for room in rooms
        )
        raise UserError(
            f"{sum(room.engines for room in rooms)} engine(s) on this machine need about {wanted / GIB:.1f} GiB "
            f"({each}), but {available / GIB:.1f} GiB are available. Set resources.memory lower, use fewer workers, "
            f"or use a smaller model."
        )


def available_memory() -> int:
    """Bytes available to new processes: the system's, within the limit of this container."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        available = min(available, int(most) - int(used.read_text()))
    return available


def gpus_here() -> int:
    """GPUs of this machine, found without starting anything; ``CUDA_VISIBLE_DEVICES`` restricts them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
