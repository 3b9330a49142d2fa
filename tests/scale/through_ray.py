"""Chunk descriptors through Ray Data as a run sends them, to workers that do nothing: what Ray costs the driver."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.cluster.driver import execution, on_ray, ray_connection
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.chunks import Committed, Descriptor
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.storage.local import LocalStore
from tests.scale.measure import ROWS, Sheet, _folder, plan_of, synthetic_corpus


class Idle:
    """A worker that is done with every chunk at once."""

    def __init__(self, _: Any) -> None:
        pass

    async def __call__(self, batch: Mapping[str, Any]) -> AsyncIterator[dict[str, list[Any]]]:
        for descriptor in batch["chunk"]:
            wanted = Descriptor.from_json(descriptor)
            yield {"chunk": [replace(wanted, record=Committed(wanted.chunk, Counts(ROWS), {})).to_json()]}


class Through(on_ray.RayExecution):
    """The product's execution, with idle workers in its pool."""

    def _pools(self, run_id: str, plan: Any, origins: Any = None) -> list[execution.Pool]:
        return [execution.Pool(None, Allotment(1, 1, 0, 1, 1))]  # type: ignore[arg-type]


def through_ray(sheet: Sheet, chunks: int, address: str = ray_connection.LOCAL) -> None:
    """``chunks`` descriptors through one idle worker."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    plan = plan_of(synthetic_corpus(max(1, chunks // 10), 10))
    kept = on_ray.Worker
    on_ray.Worker = Idle  # type: ignore[assignment, misc]
    with _folder() as folder:
        ray_connection.connect(address, 2, print)
        try:
            run = Through(None, LocalStore(folder), [])  # type: ignore[arg-type]

            def listen() -> int:
                return sum(1 for _ in run.records(plan, [list(plan.chunks())], lambda _: None))

            heard = sheet.measure("hear of every chunk, with the start", listen, chunks)
            assert heard == sum(1 for _ in plan.chunks())
        finally:
            on_ray.Worker = kept  # type: ignore[misc]
            ray_connection.disconnect()
