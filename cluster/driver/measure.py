"""Measures every layout on a sample of rows: tokens computed, time, quality of answers."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.cluster.state.checked import Checked
from headrace.operators.base import ModelStep
from headrace.operators.calibration import cross_fitted, fit_prior
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import LAYOUTS, Choice, Completion, Constraint, Layout, Sampling
from headrace.pipelines.forecast.forecast import EngineFacts, History, Observation
from headrace.pipelines.forecast.quality import score
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import ContextCost, Engine, ModelInterface, Tokenizer
from headrace.pipelines.inference.layouts import REFERENCE, leaves_open, opened, with_default
from headrace.pipelines.inference.prepare import prepare_all
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.sampled_priors import sample_priors
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.spread import rows_at, spread
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

WARM_UP_ROWS = 2
"""Rows that run first and are not counted: the first requests of an engine compile and allocate."""


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Rows as the chain takes them, and the correct answers of steps with a gold column.

    ``answers`` holds, for each row, the answers of steps that ran on earlier models; empty if there were none.
    """

    values: Sequence[Mapping[str, Any]]
    gold: Mapping[str, Sequence[Any]]
    answers: Sequence[Mapping[str, Any]] = ()

    def after(self, results: Sequence[RowResult]) -> SampleRows:
        """The rows that reach the next model, with their answers: those that are neither filtered out nor dead."""
        left = [i for i, result in enumerate(results) if result.outcome == "answered"]
        return SampleRows(
            [self.values[i] for i in left],
            {step: [right[i] for i in left] for step, right in self.gold.items()},
            [results[i].answers for i in left],
        )

    def some(self, rows: int) -> SampleRows:
        """At most ``rows`` rows, evenly spread over these."""
        wide = max(1, len(self.values) // rows)
        gold = {step: right[::wide][:rows] for step, right in self.gold.items()}
        return SampleRows(self.values[::wide][:rows], gold, self.answers[::wide][:rows])


def sample_rows(checked: Checked, rows: int) -> SampleRows:
    """``rows`` undamaged rows, spread evenly over the input.

    Raises:
        UserError: a gold column has values, but none of them is a label of its step.
    """
    pipeline = checked.pipeline
    columns = list(dict.fromkeys((*Graph.of(pipeline).input_columns, *pipeline.gold.values())))
    values = rows_at(ChunkReader(checked.columns), spread(checked.corpus.shards, rows), columns)
    return SampleRows(values, {name: _right(pipeline, name, values) for name in pipeline.gold})


def _right(pipeline: Pipeline, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The correct answers of a step with a gold column; values that no answer can have stay."""
    step = next(step for step in pipeline.steps if step.name == name)
    assert isinstance(step, ModelStep)
    column = pipeline.gold[name]
    right = [step.gold_answer(row[column]) for row in rows]
    if (doubt := step.gold_doubt(right)) is not None:
        raise UserError(f"{pipeline.path_of(step)}.gold: the column {column!r} {doubt}.")
    return right


async def measure_on(
    engine: Engine,
    pipeline: Pipeline,
    columns: pa.Schema,
    sample: SampleRows,
    say: Callable[[str], None] = lambda message: None,
) -> History:
    """As :func:`measure_stage`, for a pipeline whose steps all run on this model."""
    return (await measure_stage(engine, pipeline, columns, sample, say))[0]


async def measure_stage(
    engine: Engine,
    pipeline: Pipeline,
    columns: pa.Schema,
    sample: SampleRows,
    say: Callable[[str], None] = lambda message: None,
    steps: Collection[str] | None = None,
    only: Collection[Layout] = LAYOUTS,
) -> tuple[History, list[RowResult]]:
    """Measure every layout that the pipeline leaves open and that fits; if it fixes all, those and the reference.

    With an engine that shares no prefixes there is no layout to choose, so only the layout of a run is measured.

    Args:
        say: is called with a message before each layout.
        steps: the steps that run on this model; None for all. The sample holds the answers of the others. If given, no
            priors are fitted, because runs with several models use none.
        only: the layouts to measure of those that are open, besides the reference.

    Returns:
        What was observed, and the rows as a run without a measurement would answer them.
    """
    open_here = leaves_open(pipeline, steps)
    chains = prepare_all(pipeline, ModelInterface.of(engine), steps) if open_here else {}
    chains = {layout: chained for layout, chained in chains.items() if layout in (REFERENCE, *only)}
    wanted: dict[Layout, Mapping[str, Layout]] = {layout: chained.layouts for layout, chained in chains.items()}
    fixed = with_default(pipeline, {})
    if engine.capabilities.prefix_block is None:
        wanted = {REFERENCE: fixed}
    elif not wanted:
        here = [layout for name, layout in fixed.items() if steps is None or name in steps]
        other = next((layout for layout in here if layout != REFERENCE), REFERENCE)
        wanted = {REFERENCE: dict.fromkeys(fixed, REFERENCE), other: fixed}
    pipeline = opened(pipeline)
    results: dict[Layout, list[RowResult]] = {}
    observations: dict[Layout, Observation] = {}
    await _through(Chain(pipeline, engine, columns, steps=steps), sample.some(WARM_UP_ROWS))
    # By the layout that a step has, which is another one than the others' where the pipeline fixes it.
    quality: dict[Layout, dict[str, float]] = {layout: {} for layout in LAYOUTS}
    priors: dict[Layout, dict[str, Mapping[str, float]]] = {layout: {} for layout in LAYOUTS}
    for number, (layout, layouts) in enumerate(wanted.items(), 1):
        say(f"measuring {layout} ({number} of {len(wanted)})")
        trial = Chain(pipeline, OnlyChoices(engine), columns, layouts, steps=steps, keep_raw=True)
        sampled = (await sample_priors(trial, pipeline, columns, sample.values)).priors
        for name, prior in sampled.items() if steps is None else ():
            priors[layouts[name]][name] = prior
        if REFERENCE in results and steps is None:
            fits = _fit(trial, await _through(trial, sample), results[REFERENCE], sample.gold)
            for name, (prior, right) in fits.items():
                if layouts[name] != REFERENCE:
                    priors[layouts[name]][name], quality[layouts[name]][name] = prior, right
        fitted = {name: priors[own][name] for name, own in layouts.items() if name in priors[own]}
        chain = Chain(pipeline, engine, columns, layouts, {**fitted, **sampled}, steps=steps)
        await engine.reset_prefix_cache()
        began = time.monotonic()
        results[layout] = await _through(chain, sample)
        observations[layout] = observation(layouts, results[layout], chain.usage, time.monotonic() - began)
    asking = [step for step in pipeline.steps if isinstance(step, ModelStep) and (steps is None or step.name in steps)]
    reference = results.get(REFERENCE) or next(iter(results.values()))
    for layout, ours in results.items():
        for step in asking:
            value = score(step, ours, reference, sample.gold.get(step.name))
            if value is not None:
                # What a prior was fitted on says too much for it: that score is of the halves it was not fitted on.
                quality[wanted[layout][step.name]].setdefault(step.name, value)
    gold = tuple(name for name in sample.gold if steps is None or name in steps)
    quality = {layout: scores for layout, scores in quality.items() if scores}
    priors = {layout: fitted for layout, fitted in priors.items() if fitted}
    history = History(EngineFacts.of(engine), observations, (), quality, priors, gold, len(sample.values))
    return history, next((results[layout] for layout, layouts in wanted.items() if layouts == fixed), reference)


def _fit(
    chain: Chain, results: Sequence[RowResult], reference: Sequence[RowResult], gold: Mapping[str, Sequence[Any]]
) -> dict[str, tuple[Mapping[str, float], float]]:
    """For each classification, the prior of its labels (fitted to gold or to the reference) and its score with it."""
    found: dict[str, tuple[Mapping[str, float], float]] = {}
    for name in {name for result in results for name in result.scores if chain.fits_priors(name)}:
        right = gold.get(name) or [result.answers.get(name) for result in reference]
        options_of = chain.options(name)
        both = [
            (result.scores[name], options_of[label])
            for result, label in zip(results, right, strict=True)
            if label in options_of and name in result.scores
        ]
        scores, options = [scores for scores, _ in both], [option for _, option in both]
        prior, given = fit_prior(scores, options), cross_fitted(scores, options)
        if prior is not None and given is not None:
            found[name] = prior, sum(map(operator.eq, given, options)) / len(options)
    return found


class OnlyChoices:
    """An engine that answers only questions with labels; the others get an empty answer at no cost."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tokenizer: Tokenizer = engine.tokenizer
        self.capabilities: Capabilities = engine.capabilities
        self.max_model_len: int = engine.max_model_len
        self.kv_tokens: int | None = engine.kv_tokens
        self.context_cost: ContextCost = engine.context_cost

    async def complete(
        self, prompt: Any, constraint: Constraint, sampling: Sampling, *, follow_up: bool = False
    ) -> Completion:
        """The engine's choice, or an empty answer."""
        if isinstance(constraint, Choice):
            return await self._engine.complete(prompt, constraint, sampling, follow_up=follow_up)
        return Completion("", "stop")

    async def reset_prefix_cache(self) -> None:
        """See the engine."""
        await self._engine.reset_prefix_cache()

    def shutdown(self) -> None:
        """See the engine."""
        self._engine.shutdown()


async def _through(chain: Chain, rows: SampleRows) -> list[RowResult]:
    await chain.start()
    both = zip(rows.values, rows.answers or [{}] * len(rows.values), strict=True)
    return list(await asyncio.gather(*(chain.run(i, values, answers) for i, (values, answers) in enumerate(both))))


def observation(
    layouts: Mapping[str, Layout], results: Sequence[RowResult], besides: Usage, seconds: float
) -> Observation:
    """Sum up what ``results`` used; ``besides`` is usage that they share."""
    total = Usage()
    for result in results:
        total.merge(result.usage)
    return Observation(
        layouts=dict(layouts),
        rows=len(results),
        documents=sum(result.has_document for result in results),
        asked=sum(result.usage.requests > 0 for result in results),
        seconds=seconds,
        prompt=total.prompt + besides.prompt,
        computed=total.prompt - total.cached + besides.prompt - besides.cached,
        output=total.output + besides.output,
        steps=total.steps,
    )
