"""How good a layout's answers are: against right ones if they are known, else against another layout's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.operators.base import ModelStep
from headrace.pipelines.inference.results import RowResult


def score(
    step: ModelStep,
    results: Sequence[RowResult],
    reference: Sequence[RowResult],
    gold: Sequence[Any] | None = None,
) -> float | None:
    """The mean over rows of how well a step's answers agree with others, from 0 to 1.

    None if nothing can be compared: there are no such rows, or the step cannot tell how well two answers agree.

    Args:
        results: of some rows.
        reference: of the same rows, in the layout to compare with.
        gold: the right answers of the same rows, None if unknown. If given, they are compared with instead.
    """
    scores = []
    for i, (ours, theirs) in enumerate(zip(results, reference, strict=True)):
        other = theirs.answers.get(step.name) if gold is None else gold[i]
        if other is None or step.name not in ours.usage.steps:
            continue
        agreement = step.agreement(ours.answers.get(step.name), other)
        if agreement is not None:
            scores.append(agreement)
    return sum(scores) / len(scores) if scores else None
