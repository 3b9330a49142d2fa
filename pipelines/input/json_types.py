"""The Arrow types of observed JSON values, and conversion of values to these types.

A type holds every observed value unchanged. If no type does, the column is text: strings as they are, and anything else
as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

MOST_KEYS = 256
"""Different keys of objects in one place that become fields. With more, the keys are values rather than names: such
objects are JSON text. DuckDB also uses 200."""

MOST_FIELDS = 10_000
"""Fields of all columns of a file together, including the columns."""

MOST_DEPTH = 32
"""Levels of nested lists and objects that become types. Deeper values are JSON text."""

EXACT_IN_FLOAT = 2**53
"""All integers up to this one, and their negatives, are exact as float64."""

_WORDS = {bool: "true or false", int: "integers", float: "decimals", str: "text", list: "lists", dict: "objects"}


@dataclass(slots=True)
class Place:
    """What was observed in one place of a file's rows: a column, a field of an object, or the items of a list.

    Attributes:
        kinds: the Python types of the values, except null.
        low: the smallest integer; ``high`` is the largest. 0 if there was none.
        fields: the places in objects; None if they are JSON text.
        items: the place of a list's items.
        why_text: why the place cannot have a type of its own.
    """

    kinds: set[type] = field(default_factory=set)
    low: int = 0
    high: int = 0
    fields: dict[str, Place] | None = field(default_factory=dict)
    items: Place | None = None
    why_text: str = ""


class Columns:
    """What was observed in the rows of a file. It determines the file's schema.

    >>> columns = Columns()
    >>> columns.see({"id": 1, "tags": ["a"]})
    >>> columns.see({"id": None, "score": 0.5})
    >>> columns.schema()[0].to_string().splitlines()[0]
    'id: int64'
    """

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._fields = 0
        self._left_out = 0

    def see(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        places = self._places
        for key, value in row.items():
            place = places.get(key)
            if place is None:
                if not self._may_add(key):
                    self._left_out += 1
                    continue
                place = places[key] = Place()
            self._look(place, value, 1)

    def schema(self) -> tuple[pa.Schema, tuple[str, ...]]:
        """The columns, and notes about them: a clause each."""
        notes: list[str] = []
        fields = []
        for name, place in self._places.items():
            why: list[str] = []
            fields.append(pa.field(name, _type_of(place, name, why)))
            notes += why[:1]
        if self._left_out:
            notes.append(f"keys after the first {MOST_FIELDS:,}, and keys that are not Unicode, are ignored")
        return pa.schema(fields), tuple(notes)

    def _may_add(self, key: str) -> bool:
        if self._fields >= MOST_FIELDS or not _is_name(key):
            return False
        self._fields += 1
        return True

    def _look(self, place: Place, value: Any, depth: int) -> None:
        if value is None:
            return
        kind = type(value)
        place.kinds.add(kind)
        if kind is int:
            place.low, place.high = min(place.low, value), max(place.high, value)
        elif kind is dict and place.fields is not None:
            self._look_inside(place, place.fields, value, depth)
        elif kind is list and not place.why_text:
            if depth >= MOST_DEPTH:
                place.why_text = f"is nested deeper than {MOST_DEPTH}"
                return
            if place.items is None:
                place.items = Place()
            for item in value:
                self._look(place.items, item, depth + 1)

    def _look_inside(self, place: Place, fields: dict[str, Place], value: Mapping[str, Any], depth: int) -> None:
        for key, inner in value.items():
            at = fields.get(key)
            if at is None:
                why = self._why_no_field(fields, key, depth)
                if why:
                    self._fields -= len(fields)
                    place.fields, place.why_text = None, why
                    return
                at = fields[key] = Place()
            self._look(at, inner, depth + 1)

    def _why_no_field(self, fields: Mapping[str, Place], key: str, depth: int) -> str:
        if depth >= MOST_DEPTH:
            return f"is nested deeper than {MOST_DEPTH}"
        if len(fields) >= MOST_KEYS:
            return f"has objects with more than {MOST_KEYS} different keys"
        return "" if self._may_add(key) else "has objects with too many keys, or with keys that cannot be names"


def _is_name(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_of(place: Place, name: str, notes: list[str]) -> pa.DataType:  # noqa: PLR0911 - one return for each type
    """The type of a place. If that is text because no other type fits, a clause is added to ``notes``."""

    def text(why: str) -> pa.DataType:
        notes.append(f"the column {name!r} {why}, so it is read as text")
        return pa.string()

    kinds = place.kinds
    if place.why_text:
        return text(place.why_text)
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {str}:
        return pa.string()
    if kinds == {int}:
        if place.low >= -(2**63) and place.high < 2**63:
            return pa.int64()
        return pa.uint64() if place.low >= 0 and place.high < 2**64 else text("holds integers of more than 64 bits")
    if kinds <= {int, float}:
        exact = max(-place.low, place.high) <= EXACT_IN_FLOAT
        return pa.float64() if exact else text("holds decimals, and integers that are too large for decimals")
    if kinds == {list} and place.items is not None:
        return pa.list_(_type_of(place.items, f"{name}[]", notes))
    if kinds == {dict} and place.fields is not None:
        if not place.fields:
            return text("holds empty objects only")
        return pa.struct([pa.field(key, _type_of(at, f"{name}.{key}", notes)) for key, at in place.fields.items()])
    return text(f"holds {' and '.join(word for kind, word in _WORDS.items() if kind in kinds)}")


def as_typed(value: Any, kind: pa.DataType) -> Any:
    """A JSON value for a column of that type. In a text column, what is not text becomes JSON."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json_text(value)
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: as_typed(value.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind) and isinstance(value, list):
        return [as_typed(item, kind.value_type) for item in value]
    return value


def json_text(value: Any) -> str:
    """A value as compact JSON; NaN and infinities as JavaScript writes them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
