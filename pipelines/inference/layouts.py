"""Which layout each step's prompt gets.

A step's own ``layout`` applies, else the pipeline's. If both leave it open (``auto``), the cheapest combination is
taken whose answers have been measured to be good enough. Without a measurement that is ``instruction_first``, with
which the others are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import product

from headrace.operators.base import ModelStep
from headrace.operators.questions import LAYOUTS, Layout
from headrace.pipelines.spec.pipeline import Pipeline

REFERENCE: Layout = "instruction_first"
"""The layout that needs no measurement."""

MOST_COMBINATIONS = 243
"""Combinations of layouts that are compared one by one (five steps); beyond that only those of one layout for all."""


def fixed_layouts(pipeline: Pipeline) -> dict[str, Layout | None]:
    """The layout that the pipeline fixes for each model step; None if it is open."""
    default = None if pipeline.layout == "auto" else pipeline.layout
    return {step.name: step.layout or default for step in pipeline.steps if isinstance(step, ModelStep)}


def leaves_open(pipeline: Pipeline, steps: Collection[str] | None = None) -> bool:
    """Whether the pipeline leaves the layout of any of these steps (all, if None) open."""
    return any(held is None for name, held in fixed_layouts(pipeline).items() if steps is None or name in steps)


def with_default(pipeline: Pipeline, chosen: Mapping[str, Layout]) -> dict[str, Layout]:
    """A layout for each model step: what the pipeline fixes, else what was ``chosen``, else the reference."""
    return {name: fixed or chosen.get(name, REFERENCE) for name, fixed in fixed_layouts(pipeline).items()}


def opened(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, with the layout of every step left open."""
    steps = tuple(
        step.model_copy(update={"layout": None} if isinstance(step, ModelStep) else {}) for step in pipeline.steps
    )
    return pipeline.model_copy(update={"layout": "auto", "steps": steps})


def alternatives(pipeline: Pipeline) -> dict[Layout, dict[str, Layout]]:
    """For each layout, the chain with that layout wherever the pipeline leaves the choice open."""
    fixed = fixed_layouts(pipeline)
    if all(fixed.values()):
        return {}
    return {layout: {name: held or layout for name, held in fixed.items()} for layout in LAYOUTS}


Priors = Mapping[str, Mapping[str, float]]
"""For each step whose labels' priors were fitted, a log-probability of each option."""

SET_BY_PIPELINE = "set in the pipeline"
"""The reason for a layout that the pipeline fixes."""


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout of each step, and the reason in one sentence.

    ``priors`` are those of labels that were fitted on a sample for these layouts, by step and option.
    """

    layouts: Mapping[str, Layout]
    reason: str
    priors: Priors = field(default_factory=dict)


def of_no_prefixes(pipeline: Pipeline, steps: Collection[str] | None = None) -> LayoutChoice:
    """The layouts for an engine that shares no prefixes, where all cost the same: fixed ones, else the reference."""
    why = "the engine shares no prefixes between requests, so no layout is cheaper than another"
    return LayoutChoice(with_default(pipeline, {}), why if leaves_open(pipeline, steps) else SET_BY_PIPELINE)


def choose(
    pipeline: Pipeline,
    cost: Callable[[Mapping[str, Layout]], float],
    quality: Mapping[Layout, Mapping[str, float]],
    steps: Collection[str] | None = None,
) -> LayoutChoice:
    """The cheapest combination of layouts in which every step is good enough.

    Args:
        cost: of a layout of each step, in prompt tokens to compute or an equivalent.
        quality: for each measured layout, each step's score, 0 to 1: against right answers if they are known, else
            agreement with the reference. A step may take a layout whose score is at most ``layout_tolerance`` below
            its score in the reference.
        steps: those that run on the model; None for all. The others get what the pipeline fixes, else the reference.
    """
    reference = with_default(pipeline, {})
    if not leaves_open(pipeline, steps):
        return LayoutChoice(reference, SET_BY_PIPELINE)
    here = fixed_layouts(pipeline).items()
    fixed = {name: held if steps is None or name in steps else reference[name] for name, held in here}
    free = [name for name, held in fixed.items() if held is None]
    measured = {name: [layout for layout in LAYOUTS if name in quality.get(layout, {})] for name in free}
    if all(layouts in ([], [REFERENCE]) for layouts in measured.values()):
        return LayoutChoice(reference, "no other layout has been measured for this pipeline")

    def good(name: str, layout: Layout) -> bool:
        least = quality[REFERENCE].get(name, 1.0) - pipeline.layout_tolerance
        return layout == REFERENCE or quality.get(layout, {}).get(name, 0.0) >= least - 1e-9

    allowed = {
        name: (held,) if held else tuple(layout for layout in LAYOUTS if good(name, layout))
        for name, held in fixed.items()
    }
    combinations = [dict(zip(allowed, combination, strict=True)) for combination in _combinations(allowed)]
    best = min([reference, *combinations], key=cost)
    saved = 1 - cost(best) / max(cost(reference), 1e-9)
    if best == reference:
        why = "no other layout is cheaper"
        if unknown := [name for name in free if len(measured[name]) < len(LAYOUTS)]:
            why = (
                f"the cheaper layouts change too many answers, or have not been measured for {', '.join(unknown)} "
                "(or answers there cannot be compared)"
            )
        elif any(len(allowed[name]) < len(LAYOUTS) for name in free):
            why = "the cheaper layouts change too many answers"
        return LayoutChoice(best, why)
    return LayoutChoice(best, f"the cheapest layout whose answers are good enough: it costs {saved:.0%} less")


def _combinations(allowed: Mapping[str, tuple[Layout, ...]]) -> list[tuple[Layout, ...]]:
    count = 1
    for layouts in allowed.values():
        count *= len(layouts)
    if count <= MOST_COMBINATIONS:
        return list(product(*allowed.values()))
    # One layout wherever it may be, the reference elsewhere (what the pipeline fixes is the only one allowed).
    return [tuple(layout if layout in layouts else layouts[0] for layouts in allowed.values()) for layout in LAYOUTS]
