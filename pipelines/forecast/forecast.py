"""What a run will take: prompt tokens exactly, by block arithmetic; time from observations.

An :class:`Observation` records what rows did in one layout, on one engine, in a measurement on a sample or in a whole
run. It provides the shares of rows that pass conditions, the length of answers and of what they add to later prompts,
and the engine's rates. Nothing is guessed: what was not observed is not forecast.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.operators.questions import Layout
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.costs import Request, RowCost
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ContextCost, Engine
from headrace.pipelines.inference.layouts import Priors, fixed_layouts
from headrace.pipelines.inference.prepare import Chained
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Observation:
    """What rows did.

    Attributes:
        layouts: of each step.
        rows: rows that went through the chain.
        documents: rows among them that had a document.
        asked: documents that anything was asked about: neither filtered out before, nor equal to another one.
        seconds: of engine time, summed over the engines.
        computed: prompt tokens that were not in the prefix cache.
        output: tokens of all answers.
        steps: as in :attr:`headrace.pipelines.inference.usage.Usage.steps`.
    """

    layouts: Mapping[str, Layout]
    rows: int
    documents: int
    asked: int
    seconds: float
    prompt: int
    computed: int
    output: int
    steps: Mapping[str, Mapping[str, int]]

    @property
    def reached(self) -> int:
        """Rows that reached this model: as many as the step with the most rows had."""
        return max((counts.get("rows", 0) for counts in self.steps.values()), default=0)

    @property
    def reach(self) -> float:
        """Share of the documents that anything was asked about."""
        return self.asked / self.documents if self.documents else 0.0

    def among(self, rows: int, documents: int, asked: int) -> Observation:
        """The same, as a share of all rows: with several models, later ones see what the earlier ones let through."""
        return dataclasses.replace(self, rows=rows, documents=documents, asked=asked)

    def plus(self, more: Observation) -> Observation:
        """These rows and others in the same layouts."""
        steps: dict[str, dict[str, int]] = {name: dict(counts) for name, counts in self.steps.items()}
        for name, counts in more.steps.items():
            own = steps.setdefault(name, {})
            for what, count in counts.items():
                own[what] = own.get(what, 0) + count
        numbers = ("rows", "documents", "asked", "seconds", "prompt", "computed", "output")
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(more, name) for name in numbers}
        return dataclasses.replace(self, steps=steps, **sums)

    def share(self, step: str) -> float:
        """Share of the rows with any question that the step was asked about."""
        return self.steps.get(step, {}).get("rows", 0) / self.asked if self.asked else 0.0

    def per_request(self, step: str, what: str) -> float:
        """Mean ``output`` or ``added`` tokens of a request of the step."""
        counts = self.steps.get(step, {})
        return counts.get(what, 0) / counts["requests"] if counts.get("requests") else 0.0

    def second_tries(self, step: str, questions: int) -> float:
        """Share of the rows with any question for which the step was retried, because its answer was rejected."""
        asked = self.steps.get(step, {}).get("requests", 0) / questions
        return (asked - self.steps.get(step, {}).get("rows", 0)) / self.asked if self.asked else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of an engine for each prompt token that it computes, and for each token that it generates."""

    prefill: float
    decode: float

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> Rates | None:
        """The rates that fit the observations best (least squares, neither below zero); None without two."""
        points = [(o.computed, o.output, o.seconds) for o in observations if o.seconds > 0]
        if len(points) < 2:
            return None
        pp = sum(p * p for p, _, _ in points)
        oo = sum(o * o for _, o, _ in points)
        po = sum(p * o for p, o, _ in points)
        pt = sum(p * t for p, _, t in points)
        ot = sum(o * t for _, o, t in points)
        determinant = pp * oo - po * po
        if determinant > 1e-9 * pp * oo:
            prefill, decode = (pt * oo - ot * po) / determinant, (ot * pp - pt * po) / determinant
            if prefill >= 0 and decode >= 0:
                return cls(prefill, decode)
            if prefill < 0 and oo:
                return cls(0.0, ot / oo)
        return cls(pt / pp, 0.0) if pp else None

    def seconds(self, computed: float, output: float) -> float:
        """Seconds of one engine."""
        return self.prefill * computed + self.decode * output


MOST_RUNS = 20
"""Observations of runs that are kept."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What only a started engine knows. ``block_size`` is None if it shares no prefixes."""

    kv_tokens: int | None
    block_size: int | None
    max_model_len: int
    max_num_seqs: int
    context: ContextCost = NO_CONTEXT_COST

    @classmethod
    def of(cls, engine: Engine) -> EngineFacts:
        """The facts of a started engine."""
        can = engine.capabilities
        return cls(engine.kv_tokens, can.prefix_block, engine.max_model_len, can.requests, engine.context_cost)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> EngineFacts:
        """The facts from the plain data of ``asdict``."""
        return cls(**{**data, "context": ContextCost(**data["context"])})


@dataclass(frozen=True, slots=True)
class Decision:
    """The layouts that ``auto`` has chosen after a measurement. Later outputs of the pipeline keep them.

    Attributes:
        terms: what the choice depended on; see :func:`terms_of`.
        when: the day.
        baseline: the answers of that run, as a report compares with them; empty if there was none.
    """

    layouts: Mapping[str, Layout]
    terms: str
    when: str
    baseline: Mapping[str, Any] = field(default_factory=dict)


def terms_of(pipeline: Pipeline) -> str:
    """What a choice of layouts depends on besides the questions: what is fixed, the tolerance, and the gold columns."""
    held = {name: layout for name, layout in fixed_layouts(pipeline).items() if layout}
    return json.dumps([held, pipeline.layout_tolerance, dict(pipeline.gold)], sort_keys=True)


@dataclass(frozen=True, slots=True)
class History:
    """What is known.

    Attributes:
        measured: a sample's rows in each layout.
        runs: finished runs, the latest last.
        quality: for each measured layout, each step's score (see :mod:`headrace.pipelines.forecast.quality`).
        priors: for each layout, the priors of labels that were fitted or taken from a sample, by step and option.
        gold: the steps whose score is against right answers.
        sample: rows of the measured sample.
        decided: what the first run after the measurement chose.
    """

    engine: EngineFacts | None = None
    measured: Mapping[Layout, Observation] = field(default_factory=dict)
    runs: tuple[Observation, ...] = ()
    quality: Mapping[Layout, Mapping[str, float]] = field(default_factory=dict)
    priors: Mapping[Layout, Priors] = field(default_factory=dict)
    gold: tuple[str, ...] = ()
    sample: int = 0
    decided: Decision | None = None

    def keeps(self, pipeline: Pipeline) -> bool:
        """Whether the layouts of this pipeline are decided."""
        return self.decided is not None and self.decided.terms == terms_of(pipeline)

    @property
    def rates(self) -> Rates | None:
        """The engine's rates, from the sample, because the time of whole runs includes other things."""
        return Rates.fit(list(self.measured.values()))

    def observed(self, layouts: Mapping[str, Layout]) -> Observation | None:
        """The best observation for these layouts: the latest run that had them, a sample, or else any.

        One in which nothing was asked does not count.
        """
        known = [o for o in (*reversed(self.runs), *self.measured.values()) if o.asked]
        return next(iter([*(o for o in known if o.layouts == layouts), *known]), None)

    def scores(self, layouts: Mapping[str, Layout]) -> dict[str, float]:
        """Each step's score in its layout, for steps that have one."""
        return {s: self.quality[own][s] for s, own in layouts.items() if s in self.quality.get(own, {})}

    def fitted(self, layouts: Mapping[str, Layout]) -> Priors:
        """The known priors of steps in these layouts."""
        known = {step: self.priors.get(layout, {}).get(step) for step, layout in layouts.items()}
        return {step: prior for step, prior in known.items() if prior}

    def with_priors(self, layouts: Mapping[str, Layout], priors: Priors) -> History:
        """The history with the priors of steps that had these layouts."""
        kept = {layout: dict(known) for layout, known in self.priors.items()}
        for step, prior in priors.items():
            kept.setdefault(layouts[step], {})[step] = prior
        return dataclasses.replace(self, priors=kept)

    def among(self, rows: int, documents: int, asked: int) -> History:
        """What was measured, as in :meth:`Observation.among`."""
        measured = {layout: each.among(rows, documents, asked) for layout, each in self.measured.items()}
        return dataclasses.replace(self, measured=measured)

    def with_run(self, run: Observation, engine: EngineFacts | None) -> History:
        """The history after one more run."""
        return dataclasses.replace(self, runs=(*self.runs, run)[-MOST_RUNS:], engine=engine or self.engine)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast for all rows together. ``output`` and ``seconds`` (of one engine) are None if nothing was observed.

    ``work`` is the ``computed`` tokens plus the cost of attending to the context, expressed in such tokens.
    """

    rows: int
    prompt: float
    computed: float
    documents: float
    work: float
    output: float | None = None
    seconds: float | None = None

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens that will come from the prefix cache."""
        return 1 - self.computed / self.prompt if self.prompt else 0.0

    def times(self, share: float) -> Forecast:
        """The forecast for a share of the rows."""
        return dataclasses.replace(
            self,
            rows=round(share * self.rows),
            prompt=share * self.prompt,
            computed=share * self.computed,
            documents=share * self.documents,
            work=share * self.work,
            output=None if self.output is None else share * self.output,
            seconds=None if self.seconds is None else share * self.seconds,
        )


def row_cost(chained: Chained, observed: Observation | None) -> RowCost:
    """The cost of a row: with the observed shares and lengths, or else as if every step were always asked."""
    requests = []
    for name, ready in chained.steps.items():
        added = observed.per_request(name, "added") if observed else 0.0
        output = observed.per_request(name, "output") if observed else 0.0
        share = observed.share(name) if observed else 1.0
        requests += [Request(prompt, added, share, output) for prompt in ready.prompts]
        if observed and (again := observed.second_tries(name, len(ready.prompts))):
            requests += [Request(prompt, added, again, output) for prompt in ready.prompts]
    return RowCost(requests, chained.model.prefix_block)


def forecast(
    chained: Chained,
    survey: Survey,
    observed: Observation | None = None,
    rates: Rates | None = None,
    *,
    engines: int = 1,
    steps: Collection[str] | None = None,
    context: ContextCost = NO_CONTEXT_COST,
) -> Forecast:
    """The forecast for the rows of ``survey`` in the layouts of ``chained``, if ``steps`` (all, if None) are asked."""
    if steps is not None:
        return _partly(chained, survey, observed, rates, engines, steps, context)
    asked = _asked(survey, observed)
    result = _prefill(row_cost(chained, observed), survey, asked, engines, context)
    computed = result.computed
    if observed is None or not observed.asked:
        return result
    output = observed.output / observed.asked * asked
    seconds = None
    if rates is not None:
        seconds = rates.seconds(computed, output)
        if observed.layouts == chained.layouts:
            # What this very layout took, beyond what the rates explain, it will take again.
            explained = rates.seconds(observed.computed, observed.output)
            seconds *= observed.seconds / explained if explained else 1.0
    elif observed.layouts == chained.layouts:
        seconds = observed.seconds / observed.asked * asked
    return dataclasses.replace(result, output=output, seconds=seconds)


def _partly(
    chained: Chained,
    survey: Survey,
    observed: Observation | None,
    rates: Rates | None,
    engines: int,
    steps: Collection[str],
    context: ContextCost,
) -> Forecast:
    """As :func:`forecast`, for some of the steps: the answers of the others exist."""
    whole = forecast(chained, survey, observed, rates, engines=engines, context=context)
    some = {name: ready for name, ready in chained.steps.items() if name in steps}
    if len(some) == len(chained.steps):
        return whole
    bare = dataclasses.replace(chained, steps=some)
    asked = _asked(survey, observed)
    if observed is None or not observed.asked or whole.output is None:
        return _prefill(row_cost(bare, None), survey, asked, engines, context)
    part = _prefill(row_cost(bare, observed), survey, asked, engines, context)
    said = sum(observed.steps.get(name, {}).get("output", 0) for name in some)
    output = said / observed.asked * asked
    seconds = None
    if whole.seconds is not None:
        some_of_it, all_of_it = part.computed, whole.computed
        if rates:
            some_of_it, all_of_it = rates.seconds(some_of_it, output), rates.seconds(all_of_it, whole.output)
        seconds = whole.seconds * some_of_it / all_of_it if all_of_it else 0.0
    return dataclasses.replace(part, output=output, seconds=seconds)


def _asked(survey: Survey, observed: Observation | None) -> float:
    """How many of the surveyed rows anything is asked about."""
    return survey.rows * survey.asked * (observed.reach if observed else 1.0)


def _prefill(cost: RowCost, survey: Survey, asked: float, engines: int, context: ContextCost) -> Forecast:
    """The cost of reading the prompts of the surveyed rows, if something is asked about ``asked`` of them."""
    lengths = survey.scaled
    each = asked / max(1, len(lengths))
    heads = cost.heads * engines
    return Forecast(
        rows=survey.rows,
        prompt=sum(cost.prompt(length) for length in lengths) * each,
        computed=sum(cost.computed(length) for length in lengths) * each + heads,
        documents=sum(lengths) * each,
        work=sum(cost.work(length, context) for length in lengths) * each + heads,
    )


def together(forecasts: Sequence[Forecast]) -> Forecast:
    """The forecast for all rows of ``forecasts``, of which there must be at least one."""
    first, *others = forecasts
    for other in others:
        unknown = {
            name: None
            if getattr(first, name) is None or getattr(other, name) is None
            else getattr(first, name) + getattr(other, name)
            for name in ("output", "seconds")
        }
        first = Forecast(
            first.rows + other.rows,
            first.prompt + other.prompt,
            first.computed + other.computed,
            first.documents + other.documents,
            first.work + other.work,
            **unknown,
        )
    return first
