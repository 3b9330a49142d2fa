"""How right the answers are in each layout: the demo's opinions of reviews against what people thought of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.cluster.vllm_engine import VllmEngine
from headrace.operators.base import Choice, Completion, Constraint, Layout, Sampling
from headrace.pipelines.chain import Chain
from headrace.pipelines.loading import load_pipeline

DEMO = Path("examples/reviews.yaml")
STEP = "opinion"
COLUMNS = pa.schema([("id", pa.int64()), ("review", pa.string()), ("rating", pa.float64())])


@dataclass(frozen=True, slots=True)
class Quality:
    """``accuracy`` of the labels and ``auc`` of their confidences over ``reviews`` reviews with a clear rating.

    ``majority`` is what always giving the commoner answer would get.
    """

    reviews: int
    accuracy: float
    auc: float
    majority: float


class OnlyChoices:
    """The engine, for the questions with labels; others get an answer that costs nothing and is not looked at."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(self, prompt: Sequence[int], constraint: Constraint, sampling: Sampling) -> Completion:
        if isinstance(constraint, Choice):
            return await self._engine.complete(prompt, constraint, sampling)
        return Completion("", "stop")


async def judge(engine: VllmEngine, layout: Layout, reviews: Sequence[tuple[str, str]]) -> Quality:
    """Ask the demo's pipeline, in ``layout``, for the opinion of each review, and compare with what is right."""
    wanted = load_pipeline(DEMO).model_copy(update={"layout": layout})
    chain = Chain(wanted, OnlyChoices(engine), COLUMNS)
    await chain.start()
    results = await asyncio.gather(*(chain.run(i, {"review": text}) for i, (text, _) in enumerate(reviews)))
    scores, right = [], 0
    for result, (_, gold) in zip(results, reviews, strict=True):
        said, sure = result.answers.get(STEP), result.answers.get(f"{STEP}_confidence", 0.5)
        right += said == gold
        scores.append((sure if said == "positive" else 1 - sure, gold == "positive"))
    positive = sum(is_positive for _, is_positive in scores)
    return Quality(
        reviews=len(reviews),
        accuracy=right / len(reviews),
        auc=area_under_curve(scores),
        majority=max(positive, len(reviews) - positive) / len(reviews),
    )


def area_under_curve(scores: Sequence[tuple[float, bool]]) -> float:
    """The chance that a positive one scores higher than a negative one; ties count half. NaN without both kinds."""
    positive = [score for score, is_positive in scores if is_positive]
    negative = [score for score, is_positive in scores if not is_positive]
    if not positive or not negative:
        return float("nan")
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))
