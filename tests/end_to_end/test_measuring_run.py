"""Measurements before a run, in processes of their own and on Ray: their answers are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.cluster.driver.run import run
from headrace.cluster.engines.fake.provider import FakeProvider
from headrace.pipelines.forecast.outlook import FIRST_ROWS
from headrace.pipelines.spec.pipeline import Pipeline
from tests.support.steady_engine import STEPS

Write = Callable[..., Path]

ROWS = 200


def pipeline(**engine: Any) -> Pipeline:
    model = {"id": "fake", **engine}
    return Pipeline.model_validate(
        {"name": "p", "model": model, "document": "{{ text }}", "steps": STEPS, "checkpoint_rows": 25}
    )


@pytest.fixture
def source(corpus: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(FakeProvider, "remembered", True)
    return corpus([f"document {i} ".ljust(500, "x") for i in range(ROWS)])


def check_kept(source: Path, output: Path, address: str | None) -> None:
    done = run(pipeline(), input=source, output=output, address=address)
    assert done.status == "complete"
    # Made-up answers differ from layout to layout, which a few rows show.
    assert done.measured[0].kept == done.totals.usage.reused == FIRST_ROWS
    assert pl.read_parquet(output / "data" / "*.parquet").height == ROWS


def test_the_answers_of_a_measurement_are_kept(source: Path, tmp_path: Path) -> None:
    check_kept(source, tmp_path / "output", None)


def test_the_answers_of_a_measurement_on_ray_are_kept(source: Path, tmp_path: Path, ray_address: str) -> None:
    check_kept(source, tmp_path / "output", ray_address)


def check_goes_on(source: Path, output: Path, address: str | None) -> None:
    engine = {"faults": {"document 0 ": "kill_once"}, "log": str(output.parent / "asked.jsonl")}
    done = run(pipeline(**engine), input=source, output=output, address=address)
    assert any("the layouts were not measured" in note for note in done.notes)
    assert done.measured == ()
    assert done.counts.answered == ROWS


def test_an_engine_that_dies_in_a_measurement_does_not_end_the_run(source: Path, tmp_path: Path) -> None:
    check_goes_on(source, tmp_path / "output", None)


def test_an_engine_that_dies_in_a_measurement_on_ray_does_not_end_the_run(
    source: Path, tmp_path: Path, ray_address: str
) -> None:
    check_goes_on(source, tmp_path / "output", ray_address)
