"""The rows that a measurement asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.cluster.state.checked import Checked
from headrace.operators.base import ModelStep
from headrace.pipelines.inference.results import RowResult
from headrace.pipelines.inference.sampled_priors import PRIOR_ROWS
from headrace.pipelines.input.reader import ChunkReader
from headrace.pipelines.input.spread import Place, readable_at, spread
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.spec.pipeline import Pipeline

RowPlace = tuple[str, int]
"""The path of a row's shard, and its number there."""


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Rows as the chain takes them, and the correct answers of steps with a gold column.

    Attributes:
        answers: for each row, the answers of steps that ran on earlier models; empty if there were none.
        places: where each row is in the input; empty if nobody needs to know.
        prior_rows: the rows to take priors of labels from, for steps that want that; empty for these rows themselves.
    """

    values: Sequence[Mapping[str, Any]]
    gold: Mapping[str, Sequence[Any]]
    answers: Sequence[Mapping[str, Any]] = ()
    places: Sequence[RowPlace] = ()
    prior_rows: Sequence[Mapping[str, Any]] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def for_priors(self) -> Sequence[Mapping[str, Any]]:
        """The rows to take priors of labels from."""
        return self.prior_rows or self.values

    def after(self, results: Sequence[RowResult]) -> SampleRows:
        """The rows that reach the next model, with their answers: those that are neither filtered out nor dead.

        ``results`` are of the first rows or of all.
        """
        left = [i for i, result in enumerate(results) if result.outcome == "answered"]
        some = self._picked(left)
        return SampleRows(some.values, some.gold, [results[i].answers for i in left], some.places, some.prior_rows)

    def some(self, rows: int) -> SampleRows:
        """At most ``rows`` rows, evenly spread over these."""
        wide = max(1, len(self.values) // rows)
        return self._picked(range(0, len(self.values), wide)[:rows])

    def part(self, first: int, last: int) -> SampleRows:
        """The rows from ``first`` to before ``last``."""
        return self._picked(range(first, min(last, len(self.values))))

    def mixed(self) -> SampleRows:
        """The same rows in an order whose beginnings are spread evenly over all (van der Corput's)."""
        bits = max(1, (len(self.values) - 1).bit_length())
        order = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
        return self._picked([i for i in order if i < len(self.values)])

    def _picked(self, rows: Sequence[int]) -> SampleRows:
        return SampleRows(
            [self.values[i] for i in rows],
            {step: [right[i] for i in rows] for step, right in self.gold.items()},
            [self.answers[i] for i in rows] if self.answers else (),
            [self.places[i] for i in rows] if self.places else (),
            self.for_priors,
        )


def sample_rows(checked: Checked, rows: int) -> SampleRows:
    """``rows`` undamaged rows, spread evenly over the input.

    Raises:
        UserError: a gold column has values, but none of them is a label of its step.
    """
    pipeline = checked.pipeline
    columns = list(dict.fromkeys((*Graph.of(pipeline).input_columns, *pipeline.gold.values())))
    reader = ChunkReader(checked.columns)

    def read(wanted: int) -> list[tuple[Place, dict[str, Any]]]:
        return readable_at(reader, spread(checked.corpus.shards, wanted), columns)

    found = read(rows)
    values = [row for _, row in found]
    asking = (step for step in pipeline.steps if isinstance(step, ModelStep))
    # Those that a worker would take, so that the priors are those of a run without a measurement.
    for_priors = [row for _, row in read(PRIOR_ROWS)] if any(step.samples_priors for step in asking) else []
    return SampleRows(
        values,
        {name: _right(pipeline, name, values) for name in pipeline.gold},
        places=[(shard.path, row) for (shard, row), _ in found],
        prior_rows=for_priors,
    )


def _right(pipeline: Pipeline, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The correct answers of a step with a gold column; values that no answer can have stay."""
    step = next(step for step in pipeline.steps if step.name == name)
    assert isinstance(step, ModelStep)
    column = pipeline.gold[name]
    right = [step.gold_answer(row[column]) for row in rows]
    if (doubt := step.gold_doubt(right)) is not None:
        raise UserError(f"{pipeline.path_of(step)}.gold: the column {column!r} {doubt}.")
    return right
