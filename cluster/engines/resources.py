"""How much of the machine an engine gets: cores, memory and GPUs, decided before any engine starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.resources import Resources

GIB = 1 << 30

MOST_KV_GIB = 4
"""KV cache that a CPU engine takes unasked: enough for a hundred documents of a few hundred tokens in flight."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine needs of the machine that it runs on; by default nothing.

    Attributes:
        gpus: it runs on GPUs where the machine has some.
        cores: where it has no GPU it computes on cores, and gets those that are left. Otherwise one core does for the
            process that talks to it.
        kv_cache: where it has no GPU it gets memory for its KV cache.
        weights: bytes of memory for each byte of the weights on disk, where it has no GPU.
        processes: bytes of memory besides, where it has no GPU.
    """

    gpus: bool = False
    cores: bool = False
    kv_cache: bool = False
    weights: float = 0.0
    processes: int = 0


NOTHING = Needs()
"""Of an engine that runs elsewhere."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """What each worker gets, and how many there are (``least`` to ``most``)."""

    least: int
    most: int
    gpus: int
    cpus: int
    kv_gib: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What the engines of one model are to get.

    Attributes:
        name: what messages call the model.
        weights: bytes of the weights on disk; 0 where there are none.
        needs: what the engine needs at all; what it does not need it does not get.
    """

    name: str
    resources: Resources
    weights: int
    needs: Needs


def allot(demand: Demand, *, cluster_gpus: int, node_cpus: int, local: bool) -> Allotment:
    """Divide the machine.

    Args:
        cluster_gpus: GPUs that the cluster has now.
        node_cpus: cores of a node (of this machine, where Ray is local).
        local: whether Ray runs on this machine alone, so that what does not fit never will.

    Raises:
        UserError: more is asked for than the machine has.
    """
    resources, needs = demand.resources, demand.needs
    least, most = resources.worker_range
    gpus = gpus_of(demand, cluster_gpus)
    if needs.gpus and not gpus and resources.tensor_parallel > 1:
        raise UserError("resources: tensor_parallel is for GPUs, and this run has none.")
    if local and gpus * least > cluster_gpus:
        raise UserError(
            f"resources: {least} worker(s) with {gpus} GPU(s) each are more than the {cluster_gpus} that this machine "
            f"has. Set resources.gpus to 0 for CPU engines, or name a cluster with --address."
        )
    if gpus:
        return Allotment(least, most, gpus, resources.cpus or 1, 0)
    if local and resources.cpus and resources.cpus * least > node_cpus:
        raise UserError(
            f"resources: {least} worker(s) with {resources.cpus} core(s) each are more than the {node_cpus} that this "
            f"machine has."
        )
    if local and needs.cores and least > node_cpus:
        raise UserError(f"resources: {least} workers are more than this machine's {node_cpus} cores.")
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
    """What the CPU engines of one model take of this machine's memory: bytes, and GiB for the KV cache."""

    engines: int
    weights: int
    kv_gib: int
    processes: int

    @classmethod
    def of(cls, demand: Demand, engines: int, kv_gib: int) -> Room:
        """What so many engines take; nothing without weights, for those take most of it."""
        if not demand.weights or not demand.needs.weights:
            return cls(engines, 0, 0, 0)
        return cls(engines, int(demand.needs.weights * demand.weights), kv_gib, demand.needs.processes)

    @property
    def each(self) -> int:
        """Bytes of one engine."""
        return self.weights + self.kv_gib * GIB + self.processes


def check_memory(rooms: Sequence[Room]) -> None:
    """See to it that CPU engines, of all models together, fit this machine.

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
            f"{sum(room.engines for room in rooms)} engine(s) on this machine would take about {wanted / GIB:.1f} GiB "
            f"({each}), and {available / GIB:.1f} GiB are available. Set resources.memory lower, use fewer workers or "
            f"a smaller model."
        )


def available_memory() -> int:
    """Bytes that new processes can have: the system's, within the limit of this container."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        available = min(available, int(most) - int(used.read_text()))
    return available


def gpus_here() -> int:
    """GPUs of this machine, as far as can be told without starting anything; ``CUDA_VISIBLE_DEVICES`` narrows them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
