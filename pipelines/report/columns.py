"""The columns of an output that a report describes, and what is known about each before any row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from headrace.operators.shown import Shown
from headrace.pipelines.spec.steps import known_steps


@dataclass(frozen=True, slots=True)
class ReportedColumn:
    """An output column to count.

    Attributes:
        step: the step of the column, of kind ``kind``.
        shown: what the step says about it.
    """

    name: str
    step: str
    kind: str
    type: pa.DataType
    shown: Shown = field(default_factory=Shown)


def reported_columns(
    schema: pa.Schema, pipeline: Mapping[str, Any], columns: Mapping[str, Sequence[str]]
) -> list[ReportedColumn]:
    """The columns of a part with this ``schema`` that a report describes.

    Args:
        pipeline: as data, as in a plan. For a step that cannot be read here, the types of its columns decide what is
            shown.
        columns: the output columns of each step.
    """
    known = known_steps(pipeline)
    found = []
    for step in pipeline.get("steps", ()):
        [(kind, settings)] = step.items()
        name = settings.get("name", "")
        there = [column for column in columns.get(name, ()) if column in schema.names]
        shown = known[name].shown() if name in known else {column: Shown() for column in there}
        for column in (column for column in there if column in shown):
            of_column = shown[column]
            if of_column.confidence not in there:
                of_column = replace(of_column, confidence=None)
            if of_column.spans not in there:
                of_column = replace(of_column, spans=None)
            found.append(ReportedColumn(column, name, kind, schema.field(column).type, of_column))
    return found
