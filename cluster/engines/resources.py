"""How much of the machine an engine gets: cores, memory and GPUs, decided before any engine starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.cluster.engines.config import CPU_BLOCK, FAKE, GPU_BLOCK
from headrace.pipelines.spec.definition import OWN_MODEL
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.resources import Resources

GIB = 1 << 30

PROCESS_OVERHEAD = int(2.5 * GIB)
"""Memory of a CPU engine besides weights and KV cache: three Python processes with torch, and activations."""

MOST_KV_GIB = 4
"""KV cache that a CPU engine takes unasked: enough for a hundred documents of a few hundred tokens in flight."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """What each worker gets, and how many there are (``least`` to ``most``)."""

    least: int
    most: int
    gpus: int
    cpus: int
    kv_gib: int


def allot(resources: Resources, *, cluster_gpus: int, node_cpus: int, local: bool, weights: int) -> Allotment:
    """Divide the machine.

    Args:
        cluster_gpus: GPUs that the cluster has now.
        node_cpus: cores of a node (of this machine, where Ray is local).
        local: whether Ray runs on this machine alone, so that what does not fit never will.
        weights: bytes of the model's weights; 0 for no model.

    Raises:
        UserError: more is asked for than the machine has.
    """
    least, most = resources.worker_range
    gpus = gpus_of(resources, cluster_gpus)
    if not gpus and resources.tensor_parallel > 1:
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
    if local and least > node_cpus:
        raise UserError(f"resources: {least} workers are more than this machine's {node_cpus} cores.")
    cpus = resources.cpus or max(1, node_cpus // (most if local and most <= node_cpus else least))
    kv_gib = _kv_gib(resources, most if local else 1)
    if local and weights:
        check_memory([Room(least, weights, kv_gib)])
    return Allotment(least, most, 0, cpus, kv_gib)


def gpus_of(resources: Resources, cluster_gpus: int) -> int:
    """GPUs that one engine takes; 0 on a CPU."""
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
    """What the CPU engines of one model take: ``weights`` in bytes on disk."""

    engines: int
    weights: int
    kv_gib: int

    @property
    def each(self) -> int:
        """Bytes of one engine: weights may be in 16 bits on disk and 32 in memory."""
        return 2 * self.weights + self.kv_gib * GIB + PROCESS_OVERHEAD


def check_memory(rooms: Sequence[Room]) -> None:
    """See to it that CPU engines, of all models together, fit this machine.

    Raises:
        UserError: they do not.
    """
    wanted, available = sum(room.engines * room.each for room in rooms), available_memory()
    if wanted > available:
        each = "; ".join(
            f"each {2 * room.weights / GIB:.1f} for weights, {room.kv_gib} for the KV cache, "
            f"{PROCESS_OVERHEAD / GIB:.1f} for processes"
            for room in rooms
        )
        raise UserError(
            f"{sum(room.engines for room in rooms)} engine(s) on this machine would take about {wanted / GIB:.1f} GiB "
            f"({each}), and {available / GIB:.1f} GiB are available. Set resources.memory lower, use fewer workers or "
            f"a smaller model."
        )


def block_size(pipeline: Pipeline, model: str = OWN_MODEL) -> int:
    """Tokens in a block of a model's prefix cache, before there is an engine to say so."""
    spec, gpus = pipeline.spec_of(model), pipeline.resources_of(model).gpus
    wanted = spec.engine.get("block_size")
    if isinstance(wanted, int):
        return wanted
    return GPU_BLOCK if spec.id == FAKE or (gpus or (gpus is None and gpus_here())) else CPU_BLOCK


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
