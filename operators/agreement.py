"""How well two answers agree, from 0 to 1.

Only what can be right or wrong is compared: labels, numbers, dates, booleans, enum values. Two good summaries share few
words, so for free text it counts only whether there is an answer. How similar two texts are is left to whoever reads a
sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.operators.schema.nodes import fields_of, flatten


def of_labels(answer: Any, other: Any) -> float:
    """1 for the same label; for lists of labels, the size of the intersection over the size of the union."""
    if not isinstance(other, list):
        return float(answer == other)
    a, b = set(answer or ()), set(other)
    return len(a & b) / len(a | b) if a | b else 1.0


def of_texts(answer: Any, other: Any) -> float:
    """1 if there is an answer."""
    return float(answer is not None)


def of_values(schema: Mapping[str, Any], answer: Any, other: Any) -> float:
    """The share of the values in ``other`` that can be right or wrong, by ``schema``, and are the same in ``answer``.

    1 if ``other`` has no such value.
    """
    if answer is None:
        return 0.0
    right = dict(_closed(schema, schema, other, ()))
    given = dict(_closed(schema, schema, answer, ()))
    return sum(given.get(path) == value for path, value in right.items()) / len(right) if right else 1.0


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
