"""Looking ahead: which layouts to take, and what the run will compute, in plain data.

Everything that needs the tokenizer and a sample of the input comes together here, so that it can be done where the
tokenizer is (loading it takes seconds): by ``explain``, by the check before a run, by a measurement on a worker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.operators.questions import Layout
from headrace.pipelines.forecast.forecast import Forecast, History, forecast, together
from headrace.pipelines.forecast.survey import Survey
from headrace.pipelines.inference.engine import NO_CONTEXT_COST, ModelInterface
from headrace.pipelines.inference.layouts import LayoutChoice, choose, fixed_layouts, leaves_open, of_no_prefixes
from headrace.pipelines.inference.prepare import Chained, prepare, prepare_all
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected.

    Attributes:
        choice: the layout of each step, and why.
        taken: the forecast in these layouts.
        layouts: the forecasts with one layout wherever the pipeline leaves it open, of those that fit the model.
        survey: what the forecasts stand on.
        observed: whether conditions, answers and times were observed, or every step is taken as always asked.
    """

    choice: LayoutChoice
    taken: Forecast
    layouts: Mapping[Layout, Forecast]
    survey: Survey
    observed: bool

    def to_data(self) -> dict[str, Any]:
        """As JSON has it; :meth:`from_data` takes it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Outlook:
        return cls(
            LayoutChoice(**data["choice"]),
            Forecast(**data["taken"]),
            {layout: Forecast(**forecast) for layout, forecast in data["layouts"].items()},
            Survey(**data["survey"]),
            data["observed"],
        )


Portion = tuple[int, tuple[str, ...]]
"""So many rows that are asked these steps."""

MEASURE_ROWS = 3000
"""Rows from which on a measurement pays: it takes some 200 rows through the chain, and an engine's start."""

WORTH = 0.9
"""A layout is worth measuring if it would cost at most so much of what the reference does."""


def worth_measuring(pipeline: Pipeline, outlook: Outlook, history: History) -> bool:
    """Whether another layout, if its answers are good enough, would save more than measuring that costs."""
    open_steps = [name for name, held in fixed_layouts(pipeline).items() if held is None]
    if not open_steps or outlook.taken.rows < MEASURE_ROWS:
        return False
    if all(_was_measured(history, layout, open_steps) for layout in outlook.layouts):
        return False
    cheapest = min((forecast.work for forecast in outlook.layouts.values()), default=0.0)
    return cheapest < WORTH * outlook.taken.work


def _was_measured(history: History, layout: Layout, steps: Collection[str]) -> bool:
    """Whether these steps were in that layout when it was measured: others may have been fixed then."""
    seen = history.measured.get(layout)
    return seen is not None and all(seen.layouts.get(step) == layout for step in steps)


def look_ahead(
    pipeline: Pipeline,
    model: ModelInterface,
    seen: Survey,
    history: History,
    *,
    there: LayoutChoice | None = None,
    engines: int = 1,
    portions: Sequence[Portion] = (),
    steps: Collection[str] | None = None,
) -> Outlook:
    """What a run over the surveyed rows would do.

    Args:
        steps: those that run on this model; None for all.
        portions: how many rows are asked which steps, where not all rows are asked all of them.
        there: what an output that is there already was begun with; without it layouts are chosen.

    Raises:
        UserError: as :func:`~headrace.pipelines.inference.chain.prepare`.
    """

    context = history.engine.context if history.engine else NO_CONTEXT_COST

    def fitting(chained: Chained) -> Survey:
        return seen.within(model.max_model_len - chained.needs, cut=pipeline.too_long == "truncate")

    def cast(chained: Chained) -> Forecast:
        observed, documents = history.observed(chained.layouts), fitting(chained)
        if not portions:
            return forecast(chained, documents, observed, history.rates, engines=engines, context=context)
        return together(
            [
                forecast(
                    chained,
                    dataclasses.replace(documents, rows=rows),
                    observed,
                    history.rates,
                    engines=engines,
                    steps=asked,
                    context=context,
                )
                for rows, asked in portions
            ]
        )

    def cost(wanted: Mapping[str, Layout]) -> float:
        return cast(prepare(pipeline, model, wanted, steps=steps)).work

    candidates = prepare_all(pipeline, model, steps) if leaves_open(pipeline, steps) else {}
    if there is not None:
        choice = there
    elif model.prefix_block is None:
        choice = of_no_prefixes(pipeline, steps)
    else:
        quality = {layout: scores for layout, scores in history.quality.items() if layout in candidates}
        choice = choose(pipeline, cost, quality)
        choice = dataclasses.replace(choice, priors=history.fitted(choice.layouts))
    taken = prepare(pipeline, model, choice.layouts, steps=steps)
    known = history.observed(taken.layouts)
    return Outlook(
        dataclasses.replace(choice, layouts=taken.layouts),
        cast(taken),
        {layout: cast(chained) for layout, chained in candidates.items()},
        fitting(taken),
        known is not None,
    )
