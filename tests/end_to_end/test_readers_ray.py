"""Ray Data finds each answered row once, on the documented path and on the output's root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.pipelines.output.names import TABLE
from tests.conftest import REVIEWS
from tests.support.in_process import InProcess, here

__all__ = ["here"]


@pytest.mark.parametrize("path", [TABLE, ""])
def test_ray_data_finds_every_answered_row_once(
    here: InProcess, corpus: Callable[..., Path], ray_address: str, path: str
) -> None:
    import ray

    steps = {**REVIEWS, "model": {"id": "fake", "faults": {"row 3.": "cut"}}}
    here(steps, corpus([f"row {i}." for i in range(15)], [f"row {i}." for i in range(15, 30)]))
    assert here.dead().height == 1
    ray.init(address=ray_address, ignore_reinit_error=True, log_to_driver=False)
    try:
        rows = ray.data.read_parquet(str(here.output / path)).select_columns(["_shard", "_row"]).take_all()
    finally:
        ray.shutdown()
    assert sorted((row["_shard"], row["_row"]) for row in rows) == here.table().select("_shard", "_row").rows()
