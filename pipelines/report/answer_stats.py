"""Statistics of an output's answers, as ``report.json`` holds them.

They contain no text of a row except labels and the values of closed fields, and those come from the pipeline file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headrace.pipelines.report.lengths import LengthStats


@dataclass(frozen=True, slots=True)
class FieldStats:
    """A field of a structured answer.

    Attributes:
        path: names of the field and of those above it, joined by dots.
        count: answers; the field is null in ``null`` of them, and an empty list or text in ``empty``.
        values: answers by value, for a closed field (a boolean or an enum).
    """

    path: str
    count: int
    null: int
    empty: int
    values: Mapping[str, int] | None = None

    @property
    def null_share(self) -> float:
        return self.null / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """An output column of a step.

    Attributes:
        answered: rows in which the column is not null. It is null in ``null`` rows, where a condition skipped the step.
        many: whether a row may have several labels. Such a row counts for each of them in ``values``.
        values: rows by label, or by value of a closed column.
        confidence: rows in each bin of equal width from 0 to 1.
        lengths: of texts.
    """

    step: str
    kind: str
    answered: int
    null: int
    many: bool = False
    values: Mapping[str, int] | None = None
    confidence: Sequence[int] | None = None
    mean_confidence: float | None = None
    lengths: LengthStats | None = None
    fields: Sequence[FieldStats] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ColumnStats:
        return cls(
            **{
                **data,
                "lengths": LengthStats.from_data(data["lengths"]),
                "fields": tuple(FieldStats(**each) for each in data["fields"]),
            }
        )


@dataclass(frozen=True, slots=True)
class AnswerStats:
    """The answers of an output, or of a sample of it.

    Attributes:
        rows: answered rows that were read.
        planned: input rows that these stand for.
        places: row ranges of the sample; input files where everything was read.
        whole: whether everything was read.
        columns: of the steps, by output column. A confidence column is part of its label's column.
    """

    rows: int
    planned: int
    places: int
    whole: bool
    columns: Mapping[str, ColumnStats]

    def to_data(self) -> dict[str, Any]:
        """As ``report.json`` has it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AnswerStats:
        """The reverse of :meth:`to_data`.

        Raises:
            KeyError, TypeError: another version of headrace wrote the data.
        """
        columns = {name: ColumnStats.from_data(column) for name, column in data["columns"].items()}
        return cls(**{**data, "columns": columns})
