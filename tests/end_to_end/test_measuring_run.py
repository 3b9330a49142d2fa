"""Measurements before a run, on Ray: on an engine of their own, and their answers are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cluster.driver.run import run
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.steady_engine import STEPS

Write = Callable[..., Path]


def pipeline(**engine: Any) -> Pipeline:
    model = {"id": "fake", **engine}
    return Pipeline.model_validate(
        {"name": "p", "model": model, "document": "{{ text }}", "steps": STEPS, "checkpoint_rows": 25}
    )


@pytest.fixture
def source(corpus: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(FakeProvider, "remembered", True)
    return corpus([f"document {i} ".ljust(500, "x") for i in range(100)])


def test_the_answers_of_a_measurement_on_ray_are_kept(source: Path, tmp_path: Path, ray_address: str) -> None:
    done = run(pipeline(), input=source, output=tmp_path / "output", address=ray_address)
    assert done.status == "complete"
    assert done.measured[0].kept == 32
    assert done.totals.usage.reused == 32
    assert pl.read_parquet(tmp_path / "output" / "data" / "*.parquet").height == 100


def test_a_row_that_kills_the_engine_of_a_measurement_is_found_by_the_run(
    source: Path, tmp_path: Path, ray_address: str
) -> None:
    done = run(pipeline(faults={"document 0 ": "kill"}), input=source, output=tmp_path / "output", address=ray_address)
    assert any("the layouts were not measured" in note for note in done.notes)
    assert done.counts.answered == 99
    assert done.counts.dead == 1
