"""How good a layout's answers are: against right ones where they are known, else against another layout's.

What is compared is what can be right or wrong: labels, numbers, dates, true and false, values of an enum. Two good
summaries have few words in common, so of free text only that there is an answer at all counts; how alike texts are
is for the reader of a sample to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.operators import Classify, Extract, Generate
from headrace.operators.base import ModelStep
from headrace.operators.schema.nodes import fields_of, flatten
from headrace.pipelines.inference.results import RowResult


def score(
    step: ModelStep,
    results: Sequence[RowResult],
    reference: Sequence[RowResult],
    gold: Sequence[Any] | None = None,
) -> float | None:
    """The mean over rows of how right a step's answers are, 0 to 1; None where nothing can be compared.

    Args:
        results: of some rows.
        reference: of the same rows, in the layout that others are held against.
        gold: the right answers of the same rows, None where one is not known; only labels have any.
    """
    scores = []
    for i, (ours, theirs) in enumerate(zip(results, reference, strict=True)):
        if gold is not None:
            if gold[i] is not None and step.name in ours.usage.steps:
                scores.append(_same_label(ours.answers.get(step.name), gold[i]))
        elif step.name in ours.usage.steps and theirs.answers.get(step.name) is not None:
            scores.append(_agreement(step, ours.answers.get(step.name), theirs.answers[step.name]))
    return sum(scores) / len(scores) if scores else None


def _agreement(step: ModelStep, ours: Any, theirs: Any) -> float:
    if ours is None:
        return 0.0
    if isinstance(step, Classify):
        return _same_label(ours, theirs)
    schema = step.schema_ if isinstance(step, Extract | Generate) else None
    if schema is None:
        return 1.0
    right = dict(_closed(schema, schema, theirs, ()))
    given = dict(_closed(schema, schema, ours, ()))
    return sum(given.get(path) == value for path, value in right.items()) / len(right) if right else 1.0


def _same_label(ours: Any, right: Any) -> float:
    """1 for the same label; for lists of labels the size of what they share over that of all in either."""
    if not isinstance(right, list):
        return float(ours == right)
    a, b = set(ours or ()), set(right)
    return len(a & b) / len(a | b) if a | b else 1.0


def _closed(root: Mapping[str, Any], schema: Any, value: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """The values below ``value`` that can be right or wrong, by where they stand."""
    if isinstance(value, Mapping):
        node = flatten(root, schema).node if isinstance(schema, Mapping) else {}
        for name, item in value.items():
            yield from _closed(root, fields_of(node).get(name, {}), item, (*path, name))
    elif isinstance(value, str):
        node = flatten(root, schema).node if isinstance(schema, Mapping) else {}
        if "enum" in node or "const" in node:
            yield path, value
    elif value is not None and not isinstance(value, list):
        yield path, value
