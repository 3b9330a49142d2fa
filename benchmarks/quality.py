"""How right the answers are in each layout: the demo's opinions of reviews against what people thought of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headrace.cluster.driver.measure import OnlyChoices
from headrace.cluster.engines.vllm.engine import VllmEngine
from headrace.operators.calibration import cross_fitted
from headrace.operators.questions import Layout
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.spec.loading import load_pipeline

DEMO = Path("examples/reviews.yaml")
STEP = "opinion"
COLUMNS = pa.schema([("id", pa.int64()), ("review", pa.string()), ("rating", pa.float64())])


@dataclass(frozen=True, slots=True)
class Quality:
    """``accuracy`` of the labels and ``auc`` of their confidences over ``reviews`` reviews with a clear rating.

    ``fitted`` is the accuracy with priors fitted to what the reference layout answers, each half of the reviews with
    those of the other half. ``majority`` is what always giving the commoner answer would get.
    """

    reviews: int
    accuracy: float
    fitted: float | None
    auc: float
    majority: float


async def judge(
    engine: VllmEngine, layout: Layout, reviews: Sequence[tuple[str, str]], reference: Sequence[str] | None
) -> tuple[Quality, list[str]]:
    """Ask the demo's pipeline, in ``layout``, for the opinion of each review, and compare with what is right.

    ``reference`` are the answers to fit priors to. The answers come back with the quality.
    """
    wanted = load_pipeline(DEMO).model_copy(update={"layout": layout})
    chain = Chain(wanted, OnlyChoices(engine), COLUMNS, keep_raw=True)
    await chain.start()
    results = await asyncio.gather(*(chain.run(i, {"review": text}) for i, (text, _) in enumerate(reviews)))
    scores, right = [], 0
    for result, (_, gold) in zip(results, reviews, strict=True):
        said, sure = result.answers.get(STEP), result.answers.get(f"{STEP}_confidence", 0.5)
        right += said == gold
        scores.append((sure if said == "positive" else 1 - sure, gold == "positive"))
    answers = [str(result.answers.get(STEP)) for result in results]
    fitted = None
    if reference is not None and (given := cross_fitted([result.scores[STEP] for result in results], reference)):
        fitted = sum(said == gold for said, (_, gold) in zip(given, reviews, strict=True)) / len(reviews)
    positive = sum(is_positive for _, is_positive in scores)
    quality = Quality(
        reviews=len(reviews),
        accuracy=right / len(reviews),
        fitted=fitted,
        auc=area_under_curve(scores),
        majority=max(positive, len(reviews) - positive) / len(reviews),
    )
    return quality, answers


def area_under_curve(scores: Sequence[tuple[float, bool]]) -> float:
    """The chance that a positive one scores higher than a negative one; ties count half. NaN without both kinds."""
    positive = [score for score, is_positive in scores if is_positive]
    negative = [score for score, is_positive in scores if not is_positive]
    if not positive or not negative:
        return float("nan")
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))
