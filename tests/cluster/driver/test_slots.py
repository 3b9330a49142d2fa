"""What a run waits for on a full cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.autoscaler.v2 import sdk

from headrace.cluster.driver.slots import waited_for


def status(*bundles: tuple[dict[str, float], int]) -> SimpleNamespace:
    counted = [SimpleNamespace(bundle=bundle, count=count) for bundle, count in bundles]
    demands = SimpleNamespace(ray_task_actor_demand=[SimpleNamespace(bundles_by_count=counted)])
    return SimpleNamespace(resource_demands=demands)


@pytest.mark.parametrize(
    ("bundles", "says"),
    [
        ([({"CPU": 1.0}, 1)], "1 worker with 1 CPU"),
        ([({"CPU": 1.0, "GPU": 2.0}, 3)], "3 workers with 1 CPU, 2 GPU"),
        ([({"CPU": 1.0, "node:10.0.0.1": 0.001}, 1), ({"CPU": 2.0}, 1)], "1 worker with 1 CPU; 1 worker with 2 CPU"),
        ([], ""),
    ],
)
def test_what_ray_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch, bundles: list[tuple[dict[str, float], int]], says: str
) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="head:6379"))
    monkeypatch.setattr(sdk, "get_cluster_status", lambda address: status(*bundles))
    assert waited_for() == says
