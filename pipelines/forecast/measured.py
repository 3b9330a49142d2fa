"""What a measurement says: which layouts are clearly worse after a few rows, and how sure a score is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.outlook import WORTH, look_ahead
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.engine import ModelInterface
from headrace.pipelines.inference.layouts import REFERENCE
from headrace.pipelines.spec.pipeline import Pipeline

CHANCE = 0.05
"""A layout is clearly worse if as many answers change by chance less often, where it is just good enough."""

LEAST_TOLERANCE = 0.01
"""With a tolerance of 0 a single changed answer would decide after a few rows."""

SURE, DEVIATIONS = 0.9, 1.2816
"""The confidence of :func:`at_least`, and the quantile of the normal distribution for it."""


LEAST_SCORED = 8
"""Rows that a step must be asked about for its layout to be chosen."""


LEAST_START = 2.0
"""Seconds that are worth telling apart."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement before a run found, and its cost.

    Attributes:
        rows: of the sample; ``kept`` of them are answered with it, because they were asked in the layouts that are
            taken.
        computed: prompt tokens.
        seconds: with the engine's start; ``asking`` without.
        scores: for each layout that was measured to the end, each step's score; ``at_least`` with 90 % confidence.
        clearly_worse: the layouts that were left alone after a few rows.
        model: its name, in a pipeline with several.
    """

    rows: int
    computed: int
    scores: Mapping[Layout, Mapping[str, float]] = field(default_factory=dict)
    at_least: Mapping[Layout, Mapping[str, float]] = field(default_factory=dict)
    clearly_worse: tuple[Layout, ...] = ()
    seconds: float = 0.0
    asking: float = 0.0
    kept: int = 0
    model: str = ""

    def sentence(self) -> str:
        """What was measured, its cost, and how sure the scores are."""
        said = f"{f'{self.model}: ' if self.model else ''}{self.rows:,} rows in {self.seconds:,.0f} s"
        if self.seconds - self.asking >= LEAST_START:
            said += f" ({self.asking:,.0f} s without the engine's start)"
        said += f", {self.computed:,} prompt tokens"
        if self.kept:
            said += f"; the answers of {self.kept:,} rows are kept"
        for layout, scores in self.scores.items():
            if layout != REFERENCE and layout not in self.clearly_worse:
                each = (f"{step} {score:.2f} (>= {self.at_least[layout][step]:.2f})" for step, score in scores.items())
                said += f"; {layout}: {', '.join(each)}"
        for layout in self.clearly_worse:
            said += f"; {layout}: clearly worse after a few rows"
        return said


def hopeful(
    pipeline: Pipeline, model: ModelInterface, seen: Survey, few: History, steps: Collection[str] | None = None
) -> tuple[Layout, ...]:
    """The layouts that may be good enough, judged by a few rows; none if they would not pay even if they were.

    Args:
        steps: those that run on the model; None for all.
    """
    kept: dict[Layout, dict[str, float]] = {}
    for layout in dict.fromkeys((*few.quality, *few.measured)):
        scores = few.quality.get(layout, {})
        right = few.quality.get(REFERENCE, {})
        may = {step: not _clearly_worse(pipeline, few, layout, step, right.get(step, 1.0)) for step in scores}
        kept[layout] = {step: max(score, right.get(step, 1.0)) if may[step] else 0.0 for step, score in scores.items()}
        if layout == REFERENCE:
            kept[layout] = dict(scores)
        elif layout in few.measured:  # of a step that hardly any of these rows reached nothing is known yet
            rare = [step for step in few.measured[layout].layouts if asked_rows(few, layout, step) < LEAST_SCORED]
            kept[layout] |= dict.fromkeys(rare, 1.0)
    best = look_ahead(pipeline, model, seen, replace(few, quality=kept), steps=steps)
    if best.taken.work > WORTH * best.layouts[REFERENCE].work:
        return ()
    return tuple(layout for layout, scores in kept.items() if layout != REFERENCE and any(scores.values()))


def _clearly_worse(pipeline: Pipeline, few: History, layout: Layout, step: str, right: float) -> bool:
    """Whether so many answers of a step are worse that this would hardly happen in a layout that is good enough."""
    asked = asked_rows(few, layout, step)
    lost = math.ceil((right - few.quality[layout][step]) * asked - 1e-6)
    return lost > 0 and _tail(asked, lost, max(pipeline.layout_tolerance, LEAST_TOLERANCE)) < CHANCE


def asked_rows(history: History, layout: Layout, step: str) -> int:
    """The rows that a step was asked about when a layout was measured."""
    return history.measured[layout].steps.get(step, {}).get("rows", 0) if layout in history.measured else 0


def _tail(rows: int, worse: int, share: float) -> float:
    """The probability that ``worse`` rows or more are worse, if each is with the probability ``share``."""
    return sum(math.comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(worse, rows + 1))


def at_least(score: float, rows: int) -> float:
    """What a score over so many rows is at least, with the confidence :data:`SURE` (Wilson's lower bound)."""
    if not rows:
        return 0.0
    z2 = DEVIATIONS**2
    half = DEVIATIONS * math.sqrt(score * (1 - score) / rows + z2 / (4 * rows * rows))
    return max(0.0, (score + z2 / (2 * rows) - half) / (1 + z2 / rows))


def measured(history: History, computed: int, worse: tuple[Layout, ...] = ()) -> Measured:
    """What a measurement found: the scores of its history. ``computed`` prompt tokens are what it cost."""
    scores = {layout: dict(found) for layout, found in history.quality.items()}
    sure: dict[Layout, dict[str, float]] = {}
    for layout, found in scores.items():
        sure[layout] = {step: at_least(score, asked_rows(history, layout, step)) for step, score in found.items()}
    return Measured(history.sample, computed, scores, sure, worse)
