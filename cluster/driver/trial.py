"""Measures the layouts of a model before a run, no further than it takes.

The layouts that may pay are tried one after another, the cheapest first. After a few rows a layout is left alone if it
is clearly worse than the reference. One that is good enough for all steps ends the measurement, because no other is
cheaper. The rows' answers in the layouts that are taken are answers of the run (``measured_answers``).
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from headrace.cluster.driver.measure import Bench, InLayout, layouts_to_measure
from headrace.cluster.driver.sample_rows import SampleRows
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.starting import start_engine
from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.measured import Measured, hopeful, measured
from headrace.pipelines.forecast.outlook import FIRST_ROWS, WORTH, Outlook, look_ahead
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.engine import Engine, ModelInterface
from headrace.pipelines.inference.layouts import REFERENCE, LayoutChoice, Priors, opened
from headrace.pipelines.spec.pipeline import Pipeline

OFTEN = 0.5
"""Share of a sample that every step should be asked about; if it is less, more rows are taken."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure on one model.

    Attributes:
        sample: in an order whose beginnings are spread evenly, with more rows than ``rows``, which are taken if steps
            are asked about few of them.
        steps: those that run on this model; None for all.
        history: what is known already.
        taken: if set, nothing is measured: the rows run in these layouts, because another model needs their answers.
        goes_on: whether the rows go on to another model.
    """

    sample: SampleRows
    rows: int
    seen: Survey
    history: History = field(default_factory=History)
    steps: tuple[str, ...] | None = None
    taken: LayoutChoice | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; see :class:`Task`. ``tried`` has what the first rows of the sample did in each layout."""

    history: History
    outlook: Outlook | None
    measured: Measured | None
    tried: Mapping[Layout, InLayout]


@dataclass(frozen=True, slots=True)
class Trial:
    """What to measure on which engine. Plain data, so that it can be done on another machine.

    Attributes:
        folder: the folder that Map's functions are imported from.
        columns: the input's columns.
    """

    pipeline: Mapping[str, Any]
    folder: str | None
    columns: pa.Schema
    config: EngineConfig
    task: Task

    async def on(self, engine: Engine) -> Found:
        """Measure, and forecast."""
        if self.folder and self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        return await measure_for_run(engine, Pipeline.model_validate(self.pipeline), self.columns, self.task)


def measure_and_look(trial: Trial) -> Found:
    """Start an engine, measure, stop it, and forecast."""
    engine = start_engine(trial.config)
    try:
        return asyncio.run(trial.on(engine))
    finally:
        engine.shutdown()


async def measure_for_run(engine: Engine, pipeline: Pipeline, columns: pa.Schema, task: Task) -> Found:
    """Measure the layouts that may pay; see the module."""
    trial = _Measuring(engine, pipeline, columns, task)
    return await trial.go() if task.taken is None else await trial.only_answers(task.taken)


class _Measuring:
    """A measurement in progress."""

    def __init__(self, engine: Engine, pipeline: Pipeline, columns: pa.Schema, task: Task) -> None:
        self.bench = Bench(engine, opened(pipeline), columns, task.steps, thrifty=True)
        self._pipeline = pipeline
        self._model = ModelInterface.of(engine)
        self._task = task
        self._wanted = layouts_to_measure(engine, pipeline, task.steps)
        self._computed = 0
        self._tried: dict[Layout, InLayout] = {}

    async def only_answers(self, taken: LayoutChoice) -> Found:
        """The rows in these layouts."""
        sample, priors = self._task.sample, taken.priors
        few = await self.bench.measure(taken.layouts, sample.part(0, FIRST_ROWS), priors=priors)
        rest = sample.part(FIRST_ROWS, self._rows(few))
        done = few.and_more(await self.bench.measure(taken.layouts, rest, priors=priors)) if len(rest) else few
        return Found(self._task.history, None, None, {REFERENCE: done})

    async def go(self) -> Found:
        """Measure, and forecast."""
        task, began = self._task, time.monotonic()
        first = task.sample.part(0, FIRST_ROWS)
        few = self._tried[REFERENCE] = await self._measure(REFERENCE, first)
        rows = self._rows(few)
        whole = task.sample.part(0, rows)
        worse: list[Layout] = []
        for layout in self._cheaper():
            if rows > FIRST_ROWS:
                self._tried[layout] = await self._measure(layout, first, few)
                seen = self._history({REFERENCE: few, layout: self._tried[layout]})
                if layout not in hopeful(self._pipeline, self._model, task.seen, seen, task.steps):
                    worse.append(layout)
                    continue
            if self._tried[REFERENCE] is few and rows > len(few.results):
                more = await self._measure(REFERENCE, task.sample.part(len(few.results), rows))
                self._tried[REFERENCE] = few.and_more(more)
            self._tried[layout] = await self._measure(layout, whole, self._tried[REFERENCE])
            taken = self._look(self._history(self._tried)).choice.layouts
            if {taken[name] for name in self._open} == {layout}:
                break
        history = self._history(self._tried)
        spent = replace(measured(history, self._computed, tuple(worse)), asking=round(time.monotonic() - began, 1))
        return Found(history, self._look(history), spent, self._tried)

    @property
    def _open(self) -> Collection[str]:
        """The steps whose layout is to be chosen: those that do not have the same one in all that are wanted."""
        return [name for name in self.bench.asking if len({each[name] for each in self._wanted.values()}) > 1]

    def _cheaper(self) -> Sequence[Layout]:
        """The layouts that would pay if their answers were good enough, the cheapest first."""
        works = {layout: each.work for layout, each in self._look(self._history(self._tried)).layouts.items()}
        least = WORTH * works.get(REFERENCE, 0.0)
        return sorted((each for each in works if each in self._wanted and works[each] <= least), key=works.__getitem__)

    def _rows(self, few: InLayout) -> int:
        """How many rows to take, judged by the first."""
        asked = [few.observed.steps.get(name, {}).get("rows", 0) for name in self.bench.asking]
        if self._task.goes_on:
            asked.append(sum(result.outcome == "answered" for result in few.results))
        return enough_rows(asked, len(few.results), self._task.rows, len(self._task.sample))

    async def _measure(self, layout: Layout, rows: SampleRows, reference: InLayout | None = None) -> InLayout:
        done = await self.bench.measure(self._wanted[layout], rows, reference, self._known(layout))
        self._computed += done.observed.computed
        return done

    def _known(self, layout: Layout) -> Priors:
        """The priors that an earlier run has taken from a sample of its rows."""
        known = self._task.history.fitted(self._wanted[layout])
        return {step: prior for step, prior in known.items() if step in self.bench.sampling}

    def _history(self, tried: Mapping[Layout, InLayout]) -> History:
        return replace(self.bench.history(tried, self._task.sample.gold), runs=self._task.history.runs)

    def _look(self, history: History) -> Outlook:
        return look_ahead(self._pipeline, self._model, self._task.seen, history, steps=self._task.steps)


def enough_rows(asked: Sequence[int], of: int, rows: int, most: int) -> int:
    """``rows``, or more (up to ``most``) if some step was asked about few ``of`` the rows so far."""
    share = min(asked, default=0) / max(1, of)
    return min(most, rows if share >= OFTEN else math.ceil(rows * OFTEN / share) if share else most)
