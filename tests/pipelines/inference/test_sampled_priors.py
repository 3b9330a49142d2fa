"""Priors from a sample of rows: which rows count, and what happens with too few."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from headrace.cluster.engines.fake.engine import FakeEngine
from headrace.operators.questions import Completion, Constraint, Sampling
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.sampled_priors import LEAST_ROWS, SampledPriors, sample_priors
from headrace.pipelines.spec.pipeline import Pipeline

Make = Callable[..., Pipeline]

COLUMNS = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())])
BATCH: dict[str, Any] = {"classify": {"name": "opinion", "labels": ["positive", "negative"], "priors": "batch"}}


class Leaning(FakeEngine):
    """Scores ``positive`` by the number that a document begins with, and 0 on a document that says nothing."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []

    async def complete(
        self, prompt: Any, constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        text = self.tokenizer.decode(prompt)
        self.asked.append(text)
        completion = await super().complete(prompt, constraint, sampling, follow_up=follow_up)
        if "REFUSED" in text:
            return Completion("", "stop")
        score = float(text.split("score ")[1].split()[0]) if "score " in text else 0.0
        return Completion("", "stop", logprobs={"positive": score, "negative": 0.0} if completion.logprobs else {})


def sampled(pipeline: Pipeline, rows: list[dict[str, Any]]) -> tuple[SampledPriors, Leaning]:
    engine = Leaning()

    async def go() -> SampledPriors:
        return await sample_priors(Chain(pipeline, engine, COLUMNS), pipeline, COLUMNS, rows)

    return asyncio.run(go()), engine


def texts(*scores: float) -> list[dict[str, Any]]:
    return [{"id": str(i), "text": f"score {score} in row {i}"} for i, score in enumerate(scores)]


def lean(found: SampledPriors) -> float:
    prior = found.priors["opinion"]
    return prior["positive"] - prior["negative"]


def test_the_prior_is_halfway_to_the_mean_of_the_rows_scores(reviews: Make) -> None:
    found, _ = sampled(reviews(steps=[BATCH]), texts(*[1.0] * 10, *[3.0] * 10))
    assert found.rows == {"opinion": 20}
    assert lean(found) == pytest.approx(1.0)


def test_rows_that_their_columns_keep_from_a_step_do_not_count(reviews: Make) -> None:
    steps = [
        {"filter": {"name": "some", "where": "text NOT LIKE '%9.0%'"}},
        {"classify": {**BATCH["classify"], "when": "id <> '0'"}},
    ]
    found, _ = sampled(reviews(steps=steps), texts(50.0, *[1.0] * 20, *[9.0] * 20))
    assert found.rows == {"opinion": 20}
    assert lean(found) == pytest.approx(0.5)


def test_conditions_on_answers_are_not_known_yet_and_count_as_true(reviews: Make) -> None:
    steps = [
        {"classify": {"name": "topic", "labels": ["a", "b"]}},
        {"classify": {**BATCH["classify"], "when": "topic = 'a'"}},
    ]
    found, engine = sampled(reviews(steps=steps), texts(*[1.0] * 20))
    assert found.rows == {"opinion": 20}
    assert not any("topic" in text for text in engine.asked), "only steps that need a sample are asked"


def test_with_too_few_rows_the_priors_are_those_of_a_document_that_says_nothing(reviews: Make) -> None:
    found, _ = sampled(reviews(steps=[BATCH]), texts(*[5.0] * (LEAST_ROWS - 1)))
    assert found.rows == {"opinion": 0}
    assert lean(found) == 0.0


def test_rows_without_a_document_or_without_scores_do_not_count(reviews: Make) -> None:
    rows = [*texts(*[1.0] * 20), {"id": "x", "text": None}, {"id": "y", "text": "REFUSED"}]
    found, _ = sampled(reviews(steps=[BATCH]), rows)
    assert found.rows == {"opinion": 20}


def test_a_step_with_content_free_priors_asks_no_sample(reviews: Make) -> None:
    steps = [{"classify": {"name": "opinion", "labels": ["positive", "negative"]}}]
    found, engine = sampled(reviews(steps=steps), texts(*[1.0] * 20))
    assert not found.priors
    assert not engine.asked
