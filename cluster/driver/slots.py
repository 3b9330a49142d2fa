"""What a run waits for on a cluster that is full."""

from __future__ import annotations

from collections import Counter


def waited_for() -> str:
    """The resources that Ray was asked for and has no room for, such as ``2 workers with 1 CPU, 1 GPU``.

    They may be those of another job. Empty if there are none, or if it cannot be known (connections through Ray's
    client server).
    """
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.exceptions import RayError
    from ray.util.client import ray as client

    if client.is_connected():
        return ""
    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except (RayError, RuntimeError, OSError):  # it is only a line on a terminal
        return ""
    demands = status.resource_demands.ray_task_actor_demand
    wanted: Counter[str] = Counter()
    for demand in demands:
        for bundle in demand.bundles_by_count:
            wanted[_resources(bundle.bundle)] += bundle.count
    return "; ".join(f"{n} worker{'s' if n > 1 else ''} with {what}" for what, n in wanted.items() if what)


def _resources(bundle: dict[str, float]) -> str:
    shown = {name: n for name, n in bundle.items() if not name.startswith("node:")}
    return ", ".join(f"{n:g} {name}" for name, n in sorted(shown.items()))
