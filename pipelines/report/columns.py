"""Which columns of an output a report describes, and what is known of each before any row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ReportedColumn:
    """An output column to count.

    Attributes:
        step: the step that makes it, of kind ``kind``.
        labels: of a classification, in the order of the pipeline file.
        confidence: the column that holds its confidence, if there is one.
        enums: values of its closed text fields, by path.
    """

    name: str
    step: str
    kind: str
    type: pa.DataType
    labels: tuple[str, ...] = ()
    confidence: str | None = None
    enums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def reported_columns(
    schema: pa.Schema, pipeline: Mapping[str, Any], columns: Mapping[str, Sequence[str]]
) -> list[ReportedColumn]:
    """The columns of a part with this ``schema`` that a report describes.

    Args:
        pipeline: as data, as a plan has it.
        columns: the output columns of each step.
    """
    found = []
    for step in pipeline.get("steps", ()):
        [(kind, settings)] = step.items()
        name = settings.get("name", "")
        there = [column for column in columns.get(name, ()) if column in schema.names]
        if name not in there:
            continue
        confidence = f"{name}_confidence" if kind == "classify" and f"{name}_confidence" in there else None
        found.append(
            ReportedColumn(
                name,
                name,
                kind,
                schema.field(name).type,
                tuple(settings.get("labels") or ()) if kind == "classify" else (),
                confidence,
                _enums(settings.get("schema")),
            )
        )
        # Further columns of the step that are no confidence.
        more = (column for column in there if column not in (name, confidence))
        found += [ReportedColumn(column, name, kind, schema.field(column).type) for column in more]
    return found


def _enums(schema: Any, above: str = "") -> dict[str, tuple[str, ...]]:
    """The closed text fields of a schema, by path. References are not followed."""
    if not isinstance(schema, Mapping):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        path = f"{above}.{name}" if above else name
        if isinstance(inner, Mapping):
            values = inner.get("enum")
            if isinstance(values, list) and all(isinstance(value, str) for value in values):
                found[path] = tuple(values)
            found |= _enums(inner, path)
    return found
