"""Counting the answers of an output, batch by batch: labels, confidences, lengths, nulls.

Tallies of several threads are merged into one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from headrace.pipelines.report.answer_stats import ColumnStats, FieldStats
from headrace.pipelines.report.columns import ReportedColumn
from headrace.pipelines.report.lengths import LengthTally

CONFIDENCE_BINS = 20
"""Bins of a confidence histogram, of equal width from 0 to 1."""

MOST_VALUES = 200
"""Different values of a column that are counted separately. Further ones count as :data:`OTHERS`."""

OTHERS = "(others)"
NONE = "(none)"
"""The key for rows without a label, in a step that may choose several."""

MOST_FIELDS = 200
"""Fields of an answer that are counted."""

MOST_LEVELS = 4
"""Levels of objects within an answer whose fields are counted."""


class ColumnTally:
    """Counts the answers in one column."""

    def __init__(self, column: ReportedColumn) -> None:
        self.column = column
        kind = column.type
        self.many = pa.types.is_list(kind) and column.shown.many
        self._answered = self._null = 0
        closed = pa.types.is_dictionary(kind) or pa.types.is_boolean(kind) or self.many
        self._values: Counter[str] | None = Counter(dict.fromkeys(column.shown.labels, 0)) if closed else None
        self._bins: Counter[int] | None = Counter() if column.shown.confidence else None
        self._confidence_sum = 0.0
        self._lengths = LengthTally("characters") if _is_text(kind) else None
        self._fields = {each.path: each for each in _fields_of(kind, column.shown.enums)}

    def add(self, table: pa.Table) -> None:
        """Count the rows of ``table``, which has the column and, if there is one, its confidence."""
        column = table[self.column.name]
        answers = column.drop_null()
        self._answered += len(answers)
        self._null += column.null_count
        if self._values is not None:
            if self.many:
                lengths = pc.list_value_length(answers)
                self._values[NONE] += pc.sum(pc.equal(lengths, 0)).as_py() or 0
                answers = pc.list_flatten(answers)
            _count(self._values, answers)
        if self._lengths is not None:
            self._lengths.add_texts(answers)
        for each in self._fields.values():
            each.add(answers)
        if self._bins is not None:
            self._add_confidence(table[self.column.shown.confidence])

    def _add_confidence(self, column: pa.ChunkedArray) -> None:
        values = column.drop_null()
        if pa.types.is_list(values.type):
            values = pc.list_flatten(values)
        values = values.filter(pc.is_finite(values))
        bins = pc.cast(pc.floor(pc.multiply(pc.cast(values, pa.float64()), CONFIDENCE_BINS)), pa.int64())
        assert self._bins is not None
        for each in pc.value_counts(bins).to_pylist():
            self._bins[min(max(each["values"], 0), CONFIDENCE_BINS - 1)] += each["counts"]
        self._confidence_sum += pc.sum(values).as_py() or 0.0

    def merge(self, other: ColumnTally) -> None:
        self._answered += other._answered
        self._null += other._null
        self._confidence_sum += other._confidence_sum
        for mine, theirs in ((self._values, other._values), (self._bins, other._bins)):
            if mine is not None and theirs is not None:
                mine.update(theirs)  # type: ignore[arg-type]
        if self._lengths is not None and other._lengths is not None:
            self._lengths.merge(other._lengths)
        for path, each in self._fields.items():
            each.merge(other._fields[path])

    def stats(self) -> ColumnStats:
        bins = None if self._bins is None else [self._bins[number] for number in range(CONFIDENCE_BINS)]
        sure = sum(bins) if bins else 0
        return ColumnStats(
            self.column.step,
            self.column.kind,
            self._answered,
            self._null,
            self.many,
            None if self._values is None else _most(self._values, self.column.shown.labels),
            bins,
            self._confidence_sum / sure if sure else None,
            self._lengths.stats() if self._lengths else None,
            tuple(each.stats() for each in self._fields.values()),
        )


class _FieldTally:
    """Counts a field of a structured answer."""

    def __init__(self, names: tuple[str, ...], kind: pa.DataType, values: tuple[str, ...] | None) -> None:
        self.path = ".".join(names)
        self._names = names
        self._list = pa.types.is_list(kind)
        self._text = _is_text(kind)
        self._count = self._null = self._empty = 0
        closed = pa.types.is_boolean(kind) or (values is not None and self._text)
        self._allowed = values or ()
        self._values: Counter[str] | None = Counter(dict.fromkeys(self._allowed, 0)) if closed else None

    def add(self, answers: pa.ChunkedArray) -> None:
        column = answers
        for name in self._names:
            column = pc.struct_field(column, name)
        self._count += len(column)
        self._null += column.null_count
        there = column.drop_null()
        if self._list:
            self._empty += pc.sum(pc.equal(pc.list_value_length(there), 0)).as_py() or 0
        elif self._text:
            self._empty += pc.sum(pc.equal(pc.utf8_length(there), 0)).as_py() or 0
        if self._values is not None:
            _count(self._values, there)

    def merge(self, other: _FieldTally) -> None:
        self._count += other._count
        self._null += other._null
        self._empty += other._empty
        if self._values is not None and other._values is not None:
            self._values.update(other._values)

    def stats(self) -> FieldStats:
        values = None if self._values is None else _most(self._values, self._allowed)
        return FieldStats(self.path, self._count, self._null, self._empty, values)


def _fields_of(kind: pa.DataType, enums: Mapping[str, tuple[str, ...]]) -> list[_FieldTally]:
    found: list[_FieldTally] = []

    def walk(inner: pa.DataType, above: tuple[str, ...]) -> None:
        for each in inner:
            if len(found) >= MOST_FIELDS:
                return
            names = (*above, each.name)
            found.append(_FieldTally(names, each.type, enums.get(".".join(names))))
            if pa.types.is_struct(each.type) and len(names) < MOST_LEVELS:
                walk(each.type, names)

    if pa.types.is_struct(kind):
        walk(kind, ())
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _count(into: Counter[str], values: pa.ChunkedArray | pa.Array) -> None:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    for each in pc.value_counts(values).to_pylist():
        value = each["values"]
        if value is None:
            continue
        name = str(value).lower() if isinstance(value, bool) else str(value)
        if name not in into and len(into) >= MOST_VALUES:
            name = OTHERS
        into[name] += each["counts"]


def _most(values: Counter[str], order: Iterable[str]) -> dict[str, int]:
    """The known values in their order, then the others, the most frequent first."""
    known = [value for value in order if value in values]
    rest = sorted((value for value in values if value not in set(known)), key=lambda value: (-values[value], value))
    return {value: values[value] for value in (*known, *rest) if value in known or values[value]}
