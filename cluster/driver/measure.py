"""Measures layouts on a sample of rows: tokens computed, time, quality of answers."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from headrace.cluster.driver.sample_rows import SampleRows
from headrace.operators.base import ModelStep
from headrace.operators.calibration import cross_fitted, fit_prior
from headrace.operators.capabilities import Capabilities
from headrace.operators.questions import LAYOUTS, Choice, Completion, Constraint, Layout, Sampling
from headrace.pipelines.forecast.forecast import EngineFacts, History, Observation
from headrace.pipelines.forecast.measured import LEAST_SCORED
from headrace.pipelines.forecast.quality import score
from headrace.pipelines.inference.chain import Chain
from headrace.pipelines.inference.engine import ContextCost, Engine, ModelInterface, Tokenizer
from headrace.pipelines.inference.layouts import REFERENCE, Priors, leaves_open, opened, with_default
from headrace.pipelines.inference.prepare import prepare_all
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.sampled_priors import sample_priors
from headrace.pipelines.inference.usage import Usage
from headrace.pipelines.spec.pipeline import Pipeline

WARM_UP_ROWS = 2
"""Rows that run first and are not counted: the first requests of an engine compile and allocate."""

Fit = tuple[Mapping[str, float], float]
"""A prior that was fitted, and a step's score with it."""


@dataclass(frozen=True, slots=True)
class InLayout:
    """What a sample's rows did in one layout.

    Attributes:
        layouts: of each step: the layout that is measured, or the one that the pipeline fixes.
        priors: the known priors with which the rows were answered, by step.
        results: of the rows, in the order of the sample.
        observed: what that took.
        fits: the priors that were fitted in this layout, by step.
        sampled: the priors that were taken from the rows' scores, by step.
    """

    layouts: Mapping[str, Layout]
    priors: Priors
    results: Sequence[RowResult]
    observed: Observation
    fits: Mapping[str, Fit] = field(default_factory=dict)
    sampled: Priors = field(default_factory=dict)

    def and_more(self, more: InLayout) -> InLayout:
        """These rows and others in the same layout, which were answered with the same priors."""
        observed = self.observed.plus(more.observed)
        return replace(self, results=[*self.results, *more.results], observed=observed)


@dataclass(frozen=True, slots=True)
class Bench:
    """An engine on which layouts are measured.

    Attributes:
        pipeline: with all layouts open.
        steps: those that run on this model; None for all. The sample holds the answers of the others.
        thrifty: keep what the engine has computed, from one layout to the next and from the fitting of priors to the
            answers. What is observed then includes the fitting.
    """

    engine: Engine
    pipeline: Pipeline
    columns: pa.Schema
    steps: Collection[str] | None = None
    thrifty: bool = False

    async def warm_up(self, sample: SampleRows) -> None:
        """Ask about the first rows, so that an engine compiles and allocates before anything is measured."""
        await _through(Chain(self.pipeline, self.engine, self.columns, steps=self.steps), sample.some(WARM_UP_ROWS))

    async def measure(
        self,
        layouts: Mapping[str, Layout],
        sample: SampleRows,
        reference: InLayout | None = None,
        priors: Priors | None = None,
    ) -> InLayout:
        """The sample's rows in these layouts.

        Args:
            reference: the same rows in the reference, perhaps among more; priors are fitted to its answers.
            priors: known ones.
        """
        sampled, fits = dict(priors or {}), {}
        began = time.monotonic()
        only_choices = OnlyChoices(self.engine)
        trial = Chain(self.pipeline, only_choices, self.columns, layouts, priors, steps=self.steps, keep_raw=True)
        if trial.samples_priors:
            sampled |= (await sample_priors(trial, self.pipeline, self.columns, sample.for_priors)).priors
        if reference is not None and any(layouts[name] != REFERENCE for name in trial.chained.steps):
            found = _fit(trial, await _through(trial, sample), reference.results[: len(sample)], sample.gold)
            fits = {name: each for name, each in found.items() if layouts[name] != REFERENCE}
        known = {**{name: prior for name, (prior, _) in fits.items()}, **sampled}
        chain = Chain(self.pipeline, self.engine, self.columns, layouts, known, steps=self.steps)
        before = trial.answered.prompt - trial.answered.cached
        if not self.thrifty:
            await self.engine.reset_prefix_cache()
            began, before = time.monotonic(), 0
        results = await _through(chain, sample)
        observed = observation(layouts, results, chain.usage, time.monotonic() - began)
        observed = replace(observed, computed=observed.computed + before)
        return InLayout(layouts, known, results, observed, fits, sampled)

    def history(self, tried: Mapping[Layout, InLayout], gold: Mapping[str, Sequence[Any]]) -> History:
        """What was observed: of all rows of a sample in the reference, and of all or the first of them in others.

        A step that was asked about too few rows has no score.
        """
        asking = [step for step in self.pipeline.steps if isinstance(step, ModelStep) and step.name in self.asking]
        reference = (tried.get(REFERENCE) or next(iter(tried.values()))).results
        # By the layout that a step has, which is another one than the others' where the pipeline fixes it.
        quality: dict[Layout, dict[str, float]] = {layout: {} for layout in LAYOUTS}
        priors: dict[Layout, dict[str, Mapping[str, float]]] = {layout: {} for layout in LAYOUTS}
        for each in tried.values():
            for name, prior in each.sampled.items():
                priors[each.layouts[name]][name] = prior
            for name, (prior, right) in each.fits.items():
                priors[each.layouts[name]][name], quality[each.layouts[name]][name] = prior, right
        for each in tried.values():
            rows = len(each.results)
            for step in asking:
                right_ones = gold[step.name][:rows] if step.name in gold else None
                value = score(step, each.results, reference[:rows], right_ones)
                enough = each.observed.steps.get(step.name, {}).get("rows", 0) >= LEAST_SCORED
                if value is not None and enough:
                    # What a prior was fitted on says too much for it: that score is of the halves it was not fitted on.
                    quality[each.layouts[step.name]].setdefault(step.name, value)
        return History(
            EngineFacts.of(self.engine),
            {layout: each.observed for layout, each in tried.items()},
            (),
            {layout: scores for layout, scores in quality.items() if scores},
            {layout: known for layout, known in priors.items() if known},
            tuple(name for name in gold if name in self.asking),
            len(reference),
        )

    @property
    def asking(self) -> tuple[str, ...]:
        """The steps that ask this model."""
        asking = (step.name for step in self.pipeline.steps if isinstance(step, ModelStep))
        return tuple(name for name in asking if self.steps is None or name in self.steps)

    @property
    def sampling(self) -> frozenset[str]:
        """The steps that take their labels' priors from a sample of rows."""
        steps = (step for step in self.pipeline.steps if isinstance(step, ModelStep))
        return frozenset(step.name for step in steps if step.samples_priors)


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
) -> tuple[History, Sequence[RowResult]]:
    """Measure every layout that the pipeline leaves open and that fits; if it fixes all, those and the reference.

    With an engine that shares no prefixes there is no layout to choose, so only the layout of a run is measured.

    Args:
        say: is called with a message before each layout.
        steps: the steps that run on this model; None for all. The sample holds the answers of the others.

    Returns:
        What was observed, and the rows as a run without a measurement would answer them.
    """
    wanted = layouts_to_measure(engine, pipeline, steps)
    bench = Bench(engine, opened(pipeline), columns, steps)
    await bench.warm_up(sample)
    tried: dict[Layout, InLayout] = {}
    for number, (layout, layouts) in enumerate(wanted.items(), 1):
        say(f"measuring {layout} ({number} of {len(wanted)})")
        tried[layout] = await bench.measure(layouts, sample, tried.get(REFERENCE))
    fixed = with_default(pipeline, {})
    reference = tried.get(REFERENCE) or next(iter(tried.values()))
    as_run = next((tried[layout] for layout, layouts in wanted.items() if layouts == fixed), reference)
    return bench.history(tried, sample.gold), as_run.results


def layouts_to_measure(
    engine: Engine, pipeline: Pipeline, steps: Collection[str] | None = None
) -> dict[Layout, Mapping[str, Layout]]:
    """What :func:`measure_stage` measures: for each layout, that of every step."""
    fixed = with_default(pipeline, {})
    if engine.capabilities.prefix_block is None:
        return {REFERENCE: fixed}
    if leaves_open(pipeline, steps):
        chains = prepare_all(pipeline, ModelInterface.of(engine), steps)
        if chains:
            return {layout: chained.layouts for layout, chained in chains.items()}
    here = [layout for name, layout in fixed.items() if steps is None or name in steps]
    other = next((layout for layout in here if layout != REFERENCE), REFERENCE)
    return {REFERENCE: dict.fromkeys(fixed, REFERENCE), other: fixed}


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
