"""The Arrow type of a schema's values, and the conversion of one value into it and back.

Every valid value must fit, so what Arrow has no type for (a map with free keys, a union, a recursive tree) is kept as
JSON text, and check time says so. Nothing is dropped or rounded silently. A value that does not fit after all (an
integer of more than 64 bits, a field that the schema does not name) is :class:`NotAccepted`, so the answer is rejected.

An absent field and a null one are the same in a table; only that difference is lost.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from headrace.operators.schema.nodes import Flat, Node, compact, fields_of, flatten, is_record, types
from headrace.operators.schema.not_accepted import NotAccepted

INT64 = range(-(2**63), 2**63)
T = TypeVar("T")


class Codec(Protocol):
    """A column type's two conversions: from a valid JSON value to what Arrow takes, and from Arrow's value to JSON."""

    @property
    def type(self) -> pa.DataType: ...

    def to_arrow(self, value: Any) -> Any: ...

    def from_arrow(self, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Column:
    """A typed column for the values of one schema.

    ``nullable`` says whether a valid value may be null; a row without an answer is null in any column. ``notes`` name
    what stays JSON text, for the user to see at check time.
    """

    type: pa.DataType
    codec: Codec
    nullable: bool
    notes: tuple[str, ...]

    def convert(self, value: Any) -> Any:
        """A valid JSON value as plain Python that ``pa.array([...], self.type)`` takes.

        Raises:
            NotAccepted: the type cannot hold the value; one sentence says where and why.
        """
        return None if value is None else self.codec.to_arrow(value)

    def restore(self, value: Any) -> Any:
        """The reverse: a value from Arrow's ``to_pylist`` as the JSON value, without the fields that are null."""
        return None if value is None else self.codec.from_arrow(value)


def column_for(schema: Node, where: str = "answer") -> Column:
    """The column for the values of a checked schema; ``where`` is its name in messages."""
    notes: list[str] = []
    codec, nullable = _codec(schema, schema, where, frozenset(), notes)
    return Column(codec.type, codec, nullable, tuple(dict.fromkeys(notes)))


def _codec(root: Node, schema: Any, where: str, above: frozenset[int], notes: list[str]) -> tuple[Codec, bool]:  # noqa: PLR0911 - one return for each kind of schema
    flat = flatten(root, schema)
    if flat.ids & above:
        return _json_text(where, "the schema is recursive here", notes), flat.nullable
    node, inside = flat.node, above | flat.ids
    reason = _untyped(flat)
    if reason:
        return _json_text(where, reason, notes), True
    if "enum" in node or "const" in node:
        codec = _closed(where, node, top=not above)
        return codec or _json_text(where, "values of several types have no single type", notes), flat.nullable
    match flat.types:
        case ("object",):
            return _struct(root, node, where, inside, notes), flat.nullable
        case ("array",):
            item, _ = _codec(root, node["items"], f"{where}[]", inside, notes)
            return Items(where, item), flat.nullable
        case ("string",):
            return _string(where, node.get("format")), flat.nullable
        case ("integer",):
            return Integer(where), flat.nullable
        case ("boolean",):
            return Boolean(where), flat.nullable
    return Number(where), flat.nullable


def _untyped(flat: Flat) -> str | None:  # noqa: PLR0911 - one return for each reason
    """Why a node has no single Arrow type; None if it has one."""
    node = flat.node
    if flat.opaque in ("anyOf", "oneOf"):
        return f"{flat.opaque} of several types has no single type"
    if flat.opaque:
        return f"{flat.opaque} with other keywords beside it has no column type"
    if "enum" in node or "const" in node:
        return None
    kinds = set(flat.types)
    if not kinds:
        return "a value without a type has no column type"
    if kinds == {"null"}:
        return "a value that is always null has no column type"
    if kinds == {"integer", "number"}:
        return None
    if len(kinds) > 1:
        return f"{' or '.join(flat.types)} has no single type"
    if kinds == {"array"}:
        items = node.get("items", True)
        if "prefixItems" in node or isinstance(items, list):
            return "a list whose items differ by position has no column type"
        if isinstance(items, bool):
            return "a list whose items have no schema has no column type"
    if kinds == {"object"} and not is_record(node):
        for keyword in ("patternProperties", "additionalProperties", "unevaluatedProperties"):
            if node.get(keyword):
                return f"{keyword} has no column type"
        return (
            "an object without properties has no column type"
            if not fields_of(node)
            else ("minProperties requires properties that are not named, which have no column type")
        )
    return None


def _json_text(where: str, reason: str, notes: list[str]) -> Codec:
    notes.append(f"{where}: {reason}, so it is kept as JSON text")
    return JsonText(where)


def _struct(root: Node, node: Node, where: str, inside: frozenset[int], notes: list[str]) -> Codec:
    fields = {name: _codec(root, item, f"{where}.{name}", inside, notes)[0] for name, item in fields_of(node).items()}
    return Struct(where, fields)


def _closed(where: str, node: Node, top: bool) -> Codec | None:
    values = node["enum"] if "enum" in node else [node["const"]]
    if not values or not all(isinstance(value, (str, bool, int, float)) for value in values):
        return None
    if all(isinstance(value, str) for value in values):
        return Label(where) if top else Text(where)
    if all(isinstance(value, bool) for value in values):
        return Boolean(where)
    if any(isinstance(value, (str, bool)) for value in values):
        return None
    if all(isinstance(value, int) or value.is_integer() for value in values):
        if all(int(value) in INT64 for value in values):
            return Integer(where)
        if all(isinstance(value, int) for value in values) and types(node) != ("number",):
            return None
    return Number(where)


def _string(where: str, form: object) -> Codec:
    if form == "date":
        return Date(where)
    return Timestamp(where) if form == "date-time" else Text(where)


@dataclass(frozen=True, slots=True)
class JsonText:
    """A value without an Arrow type."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.string()

    def to_arrow(self, value: Any) -> str:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            rule = "is beyond what JSON can hold"
            raise NotAccepted(f"{self.where}: a number in {_shown(value)} {rule}", rule) from None

    def from_arrow(self, value: Any) -> Any:
        return json.loads(value)


@dataclass(frozen=True, slots=True)
class Text:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.string()

    def to_arrow(self, value: Any) -> str:
        return _expect(self.where, value, str)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Label:
    """One of a few strings.

    Only for a whole column. A Parquet file with a dictionary inside a struct or a list cannot be read by pyarrow's
    ``ParquetFile`` beyond one row group (apache/arrow, "Nested data conversions not implemented for chunked array
    outputs", 26.0), so there it is a plain string, which Parquet itself stores as a dictionary anyway.
    """

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.dictionary(pa.int32(), pa.string())

    def to_arrow(self, value: Any) -> str:
        return _expect(self.where, value, str)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Boolean:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()

    def to_arrow(self, value: Any) -> bool:
        return _expect(self.where, value, bool)

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Integer:
    """64 bits. JSON Schema counts 3.0 as an integer."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.int64()

    def to_arrow(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = _expect(self.where, value, int)
        if number not in INT64:
            raise _refused(self.where, number, "does not fit into 64 bits")
        return number

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A double, as in JavaScript: an integer beyond 2**53 keeps its leading 15 digits."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.float64()

    def to_arrow(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _unexpected(self.where, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _refused(self.where, value, "is beyond what a 64-bit float can hold")
        return number

    def from_arrow(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Date:
    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.date32()

    def to_arrow(self, value: Any) -> date:
        text = _expect(self.where, value, str)
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise _refused(self.where, value, "is not a valid date", f" ({error})") from None

    def from_arrow(self, value: Any) -> Any:
        return value.isoformat()


@dataclass(frozen=True, slots=True)
class Timestamp:
    """An instant in UTC, to the microsecond; the offset that the answer was written with is not kept."""

    where: str

    @property
    def type(self) -> pa.DataType:
        return pa.timestamp("us", tz="UTC")

    def to_arrow(self, value: Any) -> datetime:
        text = _expect(self.where, value, str)
        try:
            instant = datetime.fromisoformat(text.upper())
            if instant.tzinfo is not None:
                return instant.astimezone(UTC)
            why = "it has no offset from UTC"
        except (ValueError, OverflowError) as error:
            why = str(error)
        raise _refused(self.where, value, "is not a valid time", f" ({why})")

    def from_arrow(self, value: Any) -> Any:
        return value.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Items:
    """A list of one type."""

    where: str
    item: Codec

    @property
    def type(self) -> pa.DataType:
        return pa.list_(self.item.type)

    def to_arrow(self, value: Any) -> list[Any]:
        convert = self.item.to_arrow
        return [None if item is None else convert(item) for item in _expect(self.where, value, list)]

    def from_arrow(self, value: Any) -> Any:
        return [None if item is None else self.item.from_arrow(item) for item in value]


@dataclass(frozen=True, slots=True)
class Struct:
    """An object whose fields are all named."""

    where: str
    fields: Mapping[str, Codec]

    @property
    def type(self) -> pa.DataType:
        return pa.struct([pa.field(name, codec.type) for name, codec in self.fields.items()])

    def to_arrow(self, value: Any) -> dict[str, Any]:
        record = _expect(self.where, value, dict)
        extra = [name for name in record if name not in self.fields]
        if extra:
            raise _refused(self.where, extra[0], "is not a property of the schema", ", so no column holds it")
        result = {}
        for name, codec in self.fields.items():
            item = record.get(name)
            result[name] = None if item is None else codec.to_arrow(item)
        return result

    def from_arrow(self, value: Any) -> Any:
        return {name: codec.from_arrow(value[name]) for name, codec in self.fields.items() if value[name] is not None}


_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    list: "a list",
    dict: "an object",
}


def _expect(where: str, value: Any, kind: type[T]) -> T:
    """Without ``type`` a schema allows values that its keywords do not mention; a column does not."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _unexpected(where, value, _NAMES[kind])
    return value


def _unexpected(where: str, value: Any, wanted: str) -> NotAccepted:
    return _refused(where, value, f"is not {wanted}", ", which is what the column holds")


def _refused(where: str, value: Any, rule: str, more: str = "") -> NotAccepted:
    return NotAccepted(f"{where}: {_shown(value)} {rule}{more}", rule)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**80:
        return "a number of more than 80 digits"
    text = compact(value)
    return text if len(text) <= 80 else text[:77] + "..."
