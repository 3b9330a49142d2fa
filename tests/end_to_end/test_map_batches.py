"""A pipeline inside somebody's own Ray Data job, on a real Ray with the fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

import headrace
from headrace import Pipeline, UserError
from headrace.cluster.driver.ray_connection import connect, disconnect

Make = Callable[..., Pipeline]

STRUCT = ["step", "class", "rule", "reason", "raw", "tries"]


@pytest.fixture
def ray_data(ray_address: str) -> Iterator[Any]:
    """Ray Data, connected to the tests' cluster."""
    import ray

    connect(ray_address, 2)
    yield ray.data
    disconnect()


def test_a_dataset_gets_the_answers_of_a_pipeline(reviews: Make, ray_data: Any) -> None:
    model = {"id": "fake", "faults": {"unreadable": "invalid"}}
    first = {"filter": {"name": "some", "where": "id >= 10"}}
    pipeline = reviews(model=model, steps=[first, *reviews().to_data()["steps"]])
    texts = ["unreadable" if i == 30 else f"text {i}" for i in range(60)]
    dataset = ray_data.from_arrow(pa.table({"id": range(60), "text": texts}))

    answered = headrace.map_batches(dataset, pipeline, batch_size=20).materialize()

    rows = sorted(answered.take_all(), key=lambda row: row["id"])
    assert answered.schema().names == ["id", "text", "opinion", "opinion_confidence", "facts", "summary", "_error"]
    assert [row["id"] for row in rows] == list(range(10, 60))
    [dead] = [row for row in rows if row["_error"] is not None]
    assert dead["id"] == 30
    assert dead["opinion"] is None
    assert list(dead["_error"]) == STRUCT
    assert dead["_error"]["class"] == "no_logprobs"
    alone, _ = headrace.transform(pa.table({"id": range(60), "text": texts}), pipeline)
    assert [row for row in rows if row["id"] != 30] == [{**row, "_error": None} for row in alone.to_pylist()]


def test_priors_of_a_sample_are_those_of_the_first_rows(reviews: Make, ray_data: Any) -> None:
    labels = {"name": "opinion", "labels": ["positive", "negative"], "priors": "batch"}
    table = pa.table({"id": range(64), "text": [f"text {i}" for i in range(64)]})
    pipeline = reviews(steps=[{"classify": labels}])
    answered = headrace.map_batches(ray_data.from_arrow(table), pipeline, batch_size=40, concurrency=1)
    rows = sorted(answered.take_all(), key=lambda row: row["id"])
    expected = headrace.transform(table, pipeline).answers["opinion_confidence"].to_pylist()
    assert [row["opinion_confidence"] for row in rows] == pytest.approx(expected)


def test_an_engine_that_dies_fails_the_job_with_its_reason(reviews: Make, ray_data: Any) -> None:
    dataset = ray_data.from_arrow(pa.table({"text": ["fine", "deadly"]}))
    pipeline = reviews(model={"id": "fake", "faults": {"deadly": "die"}})
    with pytest.raises(Exception, match="The engine died at rows 0 to 1 of the batch"):
        headrace.map_batches(dataset, pipeline).materialize()


@pytest.mark.parametrize("schema", [None, pa.schema([("txt", pa.string())])])
def test_columns_are_checked_before_the_job(reviews: Make, ray_data: Any, schema: pa.Schema | None) -> None:
    dataset = ray_data.from_arrow(pa.table({"txt": ["a"]}))
    with pytest.raises(UserError, match='unknown column "text"; did you mean "txt"'):
        headrace.map_batches(dataset, reviews(), schema=schema)


@pytest.mark.parametrize("concurrency", [0, (2, 1)])
def test_a_number_of_actors_that_cannot_be_is_refused(reviews: Make, ray_data: Any, concurrency: Any) -> None:
    dataset = ray_data.from_arrow(pa.table({"text": ["a"]}))
    with pytest.raises(UserError, match="concurrency: "):
        headrace.map_batches(dataset, reviews(), concurrency=concurrency)
