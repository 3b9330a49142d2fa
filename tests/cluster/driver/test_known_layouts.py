"""Layouts and priors without a plan: sessions, samples and actors of ``map_batches`` take those that a run would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from headrace import Pipeline, Session, transform
from headrace.cluster.driver.history import history_at_hand, write_history
from headrace.cluster.driver.map_batches import _assignment
from headrace.cluster.driver.sample import Sampler, sample_pipeline
from headrace.cluster.engines.resources import Allotment
from headrace.cluster.state.checked import check, check_corpus
from headrace.cluster.worker.batch_worker import BatchWorker
from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.input.tables import corpus_of
from tests.support.in_process import InProcess, here

__all__ = ["here"]

Make = Callable[..., Pipeline]

COLUMNS = ["opinion", "opinion_confidence", "facts", "summary"]
LAYOUTS: tuple[Layout, ...] = ("instruction_first", "document_first")
TEXTS = [f"text {i} " + "with many words " * 40 for i in range(100)]
TABLE = pl.DataFrame({"text": TEXTS})


@pytest.fixture
def source(corpus: Callable[..., Path]) -> Path:
    return corpus(TEXTS)


@pytest.fixture
def known(reviews: Make, source: Path) -> Pipeline:
    """A pipeline of which it is known that another layout answers as well, with priors for it."""
    pipeline = reviews()
    scores = dict.fromkeys(("opinion", "facts", "summary"), 1.0)
    prior = {"opinion": {"positive": 0.0, "negative": -9.0}}
    write_history(
        check(pipeline, str(source)),
        History(quality=dict.fromkeys(LAYOUTS, scores), priors={"document_first": prior}, sample=64),
    )
    return pipeline


def test_a_table_is_asked_in_the_layouts_and_with_the_priors_of_a_run(
    known: Pipeline, here: InProcess, source: Path
) -> None:
    here(known, source)
    answers, _ = transform(TABLE, known)
    assert answers.select(COLUMNS).rows() == here.table().select(COLUMNS).rows()
    assert set(answers["opinion"].cast(str)) == {"negative"}
    fixed, _ = transform(TABLE, known.model_copy(update={"layout": "instruction_first"}))
    assert answers.select("facts", "summary").rows() != fixed.select("facts", "summary").rows()
    assert set(fixed["opinion"].cast(str)) == {"positive", "negative"}


def test_a_sample_is_asked_in_them_too(known: Pipeline, source: Path) -> None:
    answers, _ = transform(TABLE, known)
    rows = sample_pipeline(known, str(source), 10)
    expected = answers.select("opinion", "summary").rows()
    assert [(each.result.answers["opinion"], each.result.answers["summary"]) for each in rows] == [
        expected[each.result.row] for each in rows
    ]


def test_an_edited_pipeline_keeps_the_layouts_and_priors_of_steps_that_stay(known: Pipeline, source: Path) -> None:
    data = known.to_data()
    [opinion, _, summary] = [body for step in data["steps"] for body in step.values()]
    with Sampler(str(source), 10, keep=True) as sampler:
        first = sampler.take(known)
        summary["max_words"] = 9
        second = sampler.take(Pipeline.model_validate(data))
        opinion["labels"] = {"positive": "glad", "negative": "sad"}
        third = sampler.take(Pipeline.model_validate(data))
    assert second.kept == {"opinion": 10, "facts": 10}
    assert {each.result.answers["opinion"] for each in second.rows} == {"negative"}
    assert {each.result.answers["opinion"] for each in third.rows} == {"positive", "negative"}
    assert third.kept == {"facts": 10}
    assert first.asked["opinion"] == third.asked["opinion"] == 10


def test_an_actor_is_told_what_is_known(known: Pipeline) -> None:
    answers, _ = transform(TABLE.to_arrow(), known)
    assert through(known, TABLE.to_arrow(), TABLE.to_arrow()[:64]).select(COLUMNS).equals(answers.select(COLUMNS))


def test_priors_of_a_sample_are_those_of_the_table(here: InProcess, source: Path) -> None:
    pipeline = sampling()
    here(pipeline, source)
    answers, _ = transform(TABLE, pipeline)
    assert answers["opinion_confidence"].to_list() == pytest.approx(here.table()["opinion_confidence"].to_list())
    other = sampling("content_free")
    assert answers["opinion_confidence"].to_list() != pytest.approx(
        transform(TABLE, other).answers["opinion_confidence"].to_list()
    )


def test_each_table_of_a_session_has_its_own_priors() -> None:
    other = pl.DataFrame({"text": [f"other {i}" for i in range(40)]})
    with Session() as session:
        session.transform(TABLE, sampling())
        answers, _ = session.transform(other, sampling())
    assert answers.equals(transform(other, sampling()).answers)


def test_actors_take_priors_from_the_same_sample() -> None:
    answers, _ = transform(TABLE.to_arrow()[:64], sampling())
    given = through(sampling(), TABLE.to_arrow()[:20], TABLE.to_arrow()[:64])
    assert given["opinion_confidence"].to_pylist() == pytest.approx(answers["opinion_confidence"].to_pylist()[:20])


def sampling(priors: str = "batch") -> Pipeline:
    step = {"classify": {"name": "opinion", "labels": ["positive", "negative"], "priors": priors}}
    return Pipeline.model_validate({"name": "p", "model": "fake", "document": "{{ text }}", "steps": [step]})


def through(pipeline: Pipeline, batch: pa.Table, sample: pa.Table) -> pa.Table:
    checked = check_corpus(pipeline, corpus_of(batch.schema, 0))
    actor = BatchWorker(_assignment(checked, (Allotment(1, 1, 0, 1, 1),), history_at_hand(checked), sample))

    async def answered() -> pa.Table:
        [table] = [table async for table in actor(batch)]
        return table

    return asyncio.run(answered())
