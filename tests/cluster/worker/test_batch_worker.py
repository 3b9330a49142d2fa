"""The actor of ``map_batches``, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from headrace import ChunksFailed, Pipeline
from headrace.cluster.driver.map_batches import _assignment
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.engines.starting import EngineStartFailed
from headrace.cluster.state.checked import check_corpus
from headrace.cluster.worker.batch_worker import BatchWorker
from headrace.pipelines.input.tables import corpus_of

Make = Callable[..., Pipeline]

SCHEMA = pa.schema([("text", pa.string()), ("id", pa.int64())])


def worker(pipeline: Pipeline, schema: pa.Schema = SCHEMA) -> BatchWorker:
    checked = check_corpus(pipeline, corpus_of(schema, 0))
    return BatchWorker(_assignment(checked, (Allotment(1, 1, 0, 1, 1),) * len(checked.stages)))


def through(made: Pipeline | BatchWorker, *batches: pa.Table) -> list[pa.Table]:
    actor = made if isinstance(made, BatchWorker) else worker(made)

    async def one(batch: pa.Table) -> pa.Table:
        [table] = [table async for table in actor(batch)]
        return table

    async def every() -> list[pa.Table]:
        return list(await asyncio.gather(*map(one, batches)))

    return asyncio.run(every())


def test_batches_in_flight_together_keep_their_rows(reviews: Make) -> None:
    batches = [pa.table({"text": [f"text {i} {j}" for j in range(5)], "id": range(i, i + 5)}) for i in range(4)]
    tables = through(reviews(), *batches)
    assert [table["text"].to_pylist() for table in tables] == [batch["text"].to_pylist() for batch in batches]
    assert len({table.schema for table in tables}) == 1


def test_batches_without_answers_have_the_same_schema(reviews: Make) -> None:
    empty, dead = through(
        reviews(),
        pa.table({"text": [], "id": []}, schema=SCHEMA),
        pa.table({"text": pa.array([None], pa.string()), "id": [1]}),
    )
    assert empty.num_rows == 0
    assert empty.schema == dead.schema
    assert dead["_error"].to_pylist()[0]["class"] == "empty_document"


def test_each_model_of_a_pipeline_answers_in_the_same_actor(reviews: Make) -> None:
    steps = [{"classify": {"name": "opinion", "labels": ["positive", "negative"]}}]
    steps += [{"summarize": {"name": "summary", "max_words": 20, "model": "other", "when": "opinion = 'negative'"}}]
    pipeline = reviews(models={"other": {"id": "fake", "seconds": 0.001}}, steps=steps)
    [table] = through(pipeline, pa.table({"text": [f"text {i}" for i in range(20)], "id": range(20)}))
    assert all((row["summary"] is None) == (row["opinion"] == "positive") for row in table.to_pylist())
    assert table["_error"].null_count == 20


def test_an_engine_that_does_not_start_is_told_at_the_first_batch(
    reviews: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the constructor, Ray would start the actor again and again."""
    import headrace.cluster.worker.batch_worker as module

    def fails(config: Any) -> Any:
        raise EngineStartFailed("no such file")

    monkeypatch.setattr(module, "start_or_explain", fails)
    actor = worker(reviews())
    with pytest.raises(EngineStartFailed, match="no such file"):
        through(actor, pa.table({"text": ["a"], "id": [1]}))


def test_an_engine_that_dies_before_its_first_answer_is_told(reviews: Make) -> None:
    with pytest.raises(ChunksFailed, match="The engine died before its first answer"):
        through(reviews(model={"id": "fake", "faults": {"": "die"}}), pa.table({"text": ["a"], "id": [1]}))
