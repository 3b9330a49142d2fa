"""Looking ahead: which layouts to use, and what the run will compute, as plain data.

Everything that needs the tokenizer and a sample of the input is done here, so that it can run where the tokenizer is
(loading it takes seconds): in ``explain``, in the check before a run, in a measurement on a worker.
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
from headrace.pipelines.inference.layouts import (
    LayoutChoice,
    choose,
    fixed_layouts,
    leaves_open,
    of_no_prefixes,
    with_default,
)
from headrace.pipelines.inference.prepare import Chained, prepare, prepare_all
from headrace.pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Outlook:
    """What to expect of a run.

    Attributes:
        choice: the layout of each step, and why.
        taken: the forecast in these layouts.
        layouts: the forecasts with one layout wherever the pipeline leaves it open, for layouts that fit the model.
        survey: what the forecasts are based on.
        observed: whether conditions, answers and times were observed; otherwise every step counts as always asked.
    """

    choice: LayoutChoice
    taken: Forecast
    layouts: Mapping[Layout, Forecast]
    survey: Survey
    observed: bool

    def to_data(self) -> dict[str, Any]:
        """As JSON data; :meth:`from_data` reads it back."""
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
"""The number of rows that need these steps."""

START_WORK = 32_000.0
"""Prompt tokens that a CPU could read while an engine starts: a minute at 540 a second, measured on two slow cores."""

GPU_ROWS = 3000
"""Rows from which a measurement pays on GPUs if it starts an engine: they read far more meanwhile (not measured)."""

SAMPLE_ROWS, FEW_ROWS, MANY = 64, 32, 400
"""Rows of a measurement: 64, or 32 if the run has fewer than 400 rows. With 64, one row is about two percentage points
of quality."""

FIRST_ROWS = 16
"""Rows of a sample that are looked at first, in case the other layouts are clearly worse."""

WORTH = 0.9
"""A layout is worth measuring if it would cost at most this share of what the reference costs."""


def sample_size(rows: int) -> int:
    """Rows of a measurement before a run of so many rows."""
    return SAMPLE_ROWS if rows >= MANY else FEW_ROWS


@dataclass(frozen=True, slots=True)
class Start:
    """What starts for a measurement: an engine of its own (``apart``), or none; and whether engines have GPUs."""

    apart: bool = True
    gpus: bool = False


def measuring_cost(outlook: Outlook, cheapest: float, start: Start) -> float:
    """What a measurement before a run would cost, in computed tokens: an engine's start, and the sample in two layouts.

    The answers in one of the two are kept, but if the other layout is no good, nothing is saved for it.

    Args:
        cheapest: what all rows would cost in the other layout.
    """
    rows = sample_size(outlook.taken.rows)
    starting = START_WORK if start.apart and not start.gpus else 0.0
    return starting + rows / max(1, outlook.taken.rows) * (outlook.taken.work + cheapest)


def may_save(
    pipeline: Pipeline,
    outlook: Outlook,
    history: History,
    start: Start = Start(),
    steps: Collection[str] | None = None,
) -> float:
    """Computed tokens that another layout, if its answers are good enough, would save beyond what measuring it costs.

    0 if no measurement is worth it.

    Args:
        outlook: of the steps that run on a model.
        steps: these; None for all.
    """
    held = fixed_layouts(pipeline)
    open_steps = [name for name in held if held[name] is None and (steps is None or name in steps)]
    few = start.gpus and start.apart and outlook.taken.rows < GPU_ROWS
    if not open_steps or few or history.keeps(pipeline):
        return 0.0
    unknown = (layout for layout in outlook.layouts if not _was_measured(history, layout, open_steps))
    cheapest = min((outlook.layouts[layout].work for layout in unknown), default=outlook.taken.work)
    if cheapest >= WORTH * outlook.taken.work:
        return 0.0
    return max(0.0, outlook.taken.work - cheapest - measuring_cost(outlook, cheapest, start))


def worth_measuring(pipeline: Pipeline, outlook: Outlook, history: History, start: Start = Start()) -> bool:
    """Whether another layout, if its answers are good enough, would save more than measuring it costs."""
    return may_save(pipeline, outlook, history, start) > 0


def _was_measured(history: History, layout: Layout, steps: Collection[str]) -> bool:
    """Whether these steps had that layout when it was measured: others may have been fixed then."""
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
        portions: how many rows need which steps, if not all rows need all of them.
        there: what an existing output was begun with; without it layouts are chosen.

    Raises:
        UserError: as in :func:`~headrace.pipelines.inference.prepare.prepare`.
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
    elif history.decided is not None and history.keeps(pipeline):
        layouts = with_default(pipeline, history.decided.layouts)
        choice = LayoutChoice(layouts, f"decided on {history.decided.when} and kept", history.fitted(layouts))
    else:
        quality = {layout: scores for layout, scores in history.quality.items() if layout in candidates}
        choice = choose(pipeline, cost, quality, steps)
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
