"""Measures the layouts before a run, no further than it takes: a few rows first, then all of the sample.

After the few rows a layout is left alone if it is clearly worse than the reference. If no other layout could pay any
more, the measurement ends there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from headrace.cluster.driver.measure import SampleRows, measure_stage
from headrace.cluster.engines.config import EngineConfig
from headrace.cluster.engines.starting import start_engine
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.measured import Measured, hopeful, measured
from headrace.pipelines.forecast.outlook import FIRST_ROWS, SAMPLE_ROWS, Outlook, look_ahead
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.engine import Engine, ModelInterface
from headrace.pipelines.inference.layouts import REFERENCE
from headrace.pipelines.spec.pipeline import Pipeline

Found = tuple[History, Outlook, Measured]


@dataclass(frozen=True, slots=True)
class Trial:
    """What to measure on which engine. Plain data, so that it can be done on another machine.

    Attributes:
        folder: the folder that Map's functions are imported from.
        columns: the input's columns.
        seen: what is known of the input's rows.
    """

    pipeline: Mapping[str, Any]
    folder: str | None
    columns: pa.Schema
    config: EngineConfig
    sample: SampleRows
    seen: Survey

    async def on(self, engine: Engine) -> Found:
        """Measure, and forecast."""
        if self.folder and self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        pipeline = Pipeline.model_validate(self.pipeline)
        return await measure_for_run(engine, pipeline, self.columns, self.sample, self.seen)


def measure_and_look(trial: Trial) -> Found:
    """Start an engine, measure, stop it, and forecast."""
    engine = start_engine(trial.config)
    try:
        return asyncio.run(trial.on(engine))
    finally:
        engine.shutdown()


async def measure_for_run(
    engine: Engine, pipeline: Pipeline, columns: pa.Schema, sample: SampleRows, seen: Survey
) -> Found:
    """Measure the layouts on the first rows of the sample, and those that may be good enough on all of it."""
    model = ModelInterface.of(engine)
    if len(sample.values) < SAMPLE_ROWS:
        history, _ = await measure_stage(engine, pipeline, columns, sample)
        return history, look_ahead(pipeline, model, seen, history), measured(history, _computed(history))
    few, _ = await measure_stage(engine, pipeline, columns, sample.some(FIRST_ROWS))
    hope = hopeful(pipeline, model, seen, few)
    worse = tuple(layout for layout in few.measured if layout not in (REFERENCE, *hope))
    if not hope:
        return few, look_ahead(pipeline, model, seen, few), measured(few, _computed(few), worse)
    all_rows, _ = await measure_stage(engine, pipeline, columns, sample, only=hope)
    history = replace(
        all_rows,
        measured={**few.measured, **all_rows.measured},
        quality={**few.quality, **all_rows.quality},
        priors={**few.priors, **all_rows.priors},
    )
    cost = _computed(few) + _computed(all_rows)
    return history, look_ahead(pipeline, model, seen, history), measured(all_rows, cost, worse)


def _computed(history: History) -> int:
    return sum(seen.computed for seen in history.measured.values())
