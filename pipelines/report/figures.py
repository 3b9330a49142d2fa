"""What a report says of the answers: counts of labels, confidences, lengths and nulls, which add up over pieces.

No text of a row gets in here but labels and the values of closed fields, which the pipeline names itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.operators.shown import Shown
from headrace.pipelines.spec.steps import known_steps

CONFIDENCE_BINS = 20
"""Bins of a confidence histogram, of equal width from 0 to 1."""

MOST_VALUES = 200
"""Different values of a column that are told apart; what else there is counts as :data:`OTHERS`."""

OTHERS = "(others)"
NONE = "(none)"
"""Rows of a step that may choose several labels, and chose none."""

MOST_FIELDS = 200
"""Fields of an answer that are looked at."""

MOST_LEVELS = 4
"""Levels of objects within an answer whose fields are looked at."""


def length_edges() -> list[int]:
    """Where the bins of a length histogram begin: 0, 1, 2, 3, 4, 6, 8, 12 and so on, two to each doubling."""
    edges = [0, 1, 2, 3]
    while edges[-1] < 1 << 24:
        edges += [2 * edges[-2], 2 * edges[-1]]
    return edges


EDGES = tuple(length_edges())


@dataclass(frozen=True, slots=True)
class LengthsSeen:
    """Lengths of texts, in ``unit``: how many there are, and how many fall into each bin of :data:`EDGES`, by the
    bin's number."""

    unit: str
    count: int
    mean: float
    p50: int
    p95: int
    most: int
    bins: Mapping[str, int]

    @classmethod
    def from_data(cls, data: Mapping[str, Any] | None) -> LengthsSeen | None:
        return None if data is None else cls(**data)


class Lengths:
    """Lengths as they are counted: to three digits, so that memory does not grow with them."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.count = self.sum = self.most = 0
        self._rounded: Counter[int] = Counter()

    def add(self, length: int, times: int = 1) -> None:
        self.count += times
        self.sum += length * times
        self.most = max(self.most, length)
        self._rounded[_three_digits(length)] += times

    def add_texts(self, texts: pa.ChunkedArray) -> None:
        """Characters of each text that is not null."""
        for each in pc.value_counts(pc.utf8_length(texts.drop_null())).to_pylist():
            self.add(each["values"], each["counts"])

    def merge(self, other: Lengths) -> None:
        self.count += other.count
        self.sum += other.sum
        self.most = max(self.most, other.most)
        self._rounded.update(other._rounded)

    def seen(self) -> LengthsSeen:
        bins: Counter[int] = Counter()
        for length, times in self._rounded.items():
            bins[_bin_of(length)] += times
        return LengthsSeen(
            self.unit,
            self.count,
            self.sum / self.count if self.count else 0.0,
            self._percentile(0.5),
            self._percentile(0.95),
            self.most,
            {str(number): bins[number] for number in sorted(bins)},
        )

    def _percentile(self, share: float) -> int:
        before = 0
        for length in sorted(self._rounded):
            before += self._rounded[length]
            if before >= share * self.count:
                return min(length, self.most)
        return 0


def _three_digits(length: int) -> int:
    if length < 1000:
        return length
    unit = int(10 ** (len(str(length)) - 3))
    return round(length / unit) * unit


def _bin_of(length: int) -> int:
    return max(number for number, edge in enumerate(EDGES) if edge <= length) if length else 0


@dataclass(frozen=True, slots=True)
class FieldSeen:
    """A field of a structured answer: of ``count`` answers it was null in ``null``, an empty list or text in
    ``empty``. ``values`` counts those of a closed field (true or false, or an enum)."""

    path: str
    count: int
    null: int
    empty: int
    values: Mapping[str, int] | None = None

    @property
    def null_share(self) -> float:
        return self.null / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class ColumnSeen:
    """An output column of a step.

    Attributes:
        answered: rows in which it is not null; it is in ``null`` others (a condition skipped the step).
        values: how often each label, or value of a closed column, was given. Of a step that chooses several labels a
            row counts for each.
        confidence: rows in each of :data:`CONFIDENCE_BINS` bins, and their ``mean_confidence``.
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
    lengths: LengthsSeen | None = None
    fields: Sequence[FieldSeen] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ColumnSeen:
        return cls(
            **{
                **data,
                "lengths": LengthsSeen.from_data(data["lengths"]),
                "fields": tuple(FieldSeen(**each) for each in data["fields"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an output's answers.

    Attributes:
        rows: looked at, in ``places`` places; ``planned`` are the input rows that these stand for.
        whole: whether those are all answered rows.
        columns: of the steps, by output column; that of a confidence is at its label's.
    """

    rows: int
    planned: int
    places: int
    whole: bool
    columns: Mapping[str, ColumnSeen]

    def to_data(self) -> dict[str, Any]:
        """As ``report.json`` has it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Seen:
        """What :meth:`to_data` gives.

        Raises:
            KeyError, TypeError: another version has written it.
        """
        columns = {name: ColumnSeen.from_data(column) for name, column in data["columns"].items()}
        return cls(**{**data, "columns": columns})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column to look at: the step that gives it and its kind, its type, and what the step says of it."""

    name: str
    step: str
    kind: str
    type: pa.DataType
    shown: Shown = field(default_factory=Shown)


def wanted_columns(
    schema: pa.Schema, pipeline: Mapping[str, Any], columns: Mapping[str, Sequence[str]]
) -> list[Wanted]:
    """What there is to look at in a part of this ``schema``.

    Args:
        pipeline: as data, as a plan has it. Of a step that cannot be read here its columns' types say what is shown.
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
            wanted = shown[column]
            if wanted.confidence not in there:
                wanted = replace(wanted, confidence=None)
            found.append(Wanted(column, name, kind, schema.field(column).type, wanted))
    return found


class Tally:
    """Counts a column, piece by piece."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        kind = wanted.type
        self.many = pa.types.is_list(kind) and wanted.shown.many
        self._answered = self._null = 0
        closed = pa.types.is_dictionary(kind) or pa.types.is_boolean(kind) or self.many
        self._values: Counter[str] | None = Counter(dict.fromkeys(wanted.shown.labels, 0)) if closed else None
        self._bins: Counter[int] | None = Counter() if wanted.shown.confidence else None
        self._confidence_sum = 0.0
        self._lengths = Lengths("characters") if _is_text(kind) else None
        self._fields = {each.path: each for each in _fields_of(kind, wanted.shown.enums)}

    def add(self, table: pa.Table) -> None:
        """Rows with the column, and with its confidence where it has one."""
        column = table[self.wanted.name]
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
            self._add_confidence(table[self.wanted.shown.confidence])

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

    def merge(self, other: Tally) -> None:
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

    def seen(self) -> ColumnSeen:
        bins = None if self._bins is None else [self._bins[number] for number in range(CONFIDENCE_BINS)]
        sure = sum(bins) if bins else 0
        return ColumnSeen(
            self.wanted.step,
            self.wanted.kind,
            self._answered,
            self._null,
            self.many,
            None if self._values is None else _most(self._values, self.wanted.shown.labels),
            bins,
            self._confidence_sum / sure if sure else None,
            self._lengths.seen() if self._lengths else None,
            tuple(each.seen() for each in self._fields.values()),
        )


class _Field:
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

    def merge(self, other: _Field) -> None:
        self._count += other._count
        self._null += other._null
        self._empty += other._empty
        if self._values is not None and other._values is not None:
            self._values.update(other._values)

    def seen(self) -> FieldSeen:
        values = None if self._values is None else _most(self._values, self._allowed)
        return FieldSeen(self.path, self._count, self._null, self._empty, values)


def _fields_of(kind: pa.DataType, enums: Mapping[str, tuple[str, ...]]) -> list[_Field]:
    found: list[_Field] = []

    def walk(inner: pa.DataType, above: tuple[str, ...]) -> None:
        for each in inner:
            if len(found) >= MOST_FIELDS:
                return
            names = (*above, each.name)
            found.append(_Field(names, each.type, enums.get(".".join(names))))
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
    """The known values in their order, then the others by how many there are."""
    known = [value for value in order if value in values]
    rest = sorted((value for value in values if value not in set(known)), key=lambda value: (-values[value], value))
    return {value: values[value] for value in (*known, *rest) if value in known or values[value]}
