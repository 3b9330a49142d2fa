"""Which steps a row reaches, as far as its columns tell: conditions on answers count as true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from headrace.operators.base import RowStep, Step
from headrace.operators.outcomes import Answer
from headrace.pipelines.spec.expressions import Condition, ConditionFailed
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline


class Reaching:
    """Tells for rows of the input which steps they reach. Nothing is asked."""

    def __init__(self, pipeline: Pipeline, columns: pa.Schema) -> None:
        graph = Graph.of(pipeline)
        known = frozenset(graph.input_columns)
        self._graph = graph
        self._steps = {step.name: step for step in pipeline.steps}
        self._gates = {step.name for step in pipeline.steps if step.gates and graph.reads[step.name] <= known}
        self._conditions: dict[tuple[str, str], Condition] = {
            (name, key): expression.bind(pipeline.row_schema(columns, before=self._steps[name]))
            for (name, key), expression in pipeline.expressions.items()
            if expression.names <= known
        }

    def __call__(self, step: str, values: Mapping[str, Any]) -> bool:
        """Whether a row with these columns reaches a step."""
        try:
            if not self._holds(step, "when", values):
                return False
            gates = [self._steps[name] for name in self._graph.upstream(step) & self._gates]
            return all(self._passes(gate, values) for gate in gates)
        except ConditionFailed:
            return False  # a run makes a dead letter of it

    def _holds(self, step: str, field: str, values: Mapping[str, Any]) -> bool:
        condition = self._conditions.get((step, field))
        return condition is None or bool(condition(values))

    def _passes(self, gate: Step, values: Mapping[str, Any]) -> bool:
        if not isinstance(gate, RowStep) or not self._holds(gate.name, "when", values):
            return True
        row = {name: values[name] for name in sorted(self._graph.reads[gate.name])}
        try:
            return isinstance(gate.apply(row, lambda field: self._holds(gate.name, field, values)), Answer)
        except ConditionFailed:
            raise
        except Exception:  # noqa: BLE001  (an operator is anybody's code; a run makes a dead letter of the row)
            return False
