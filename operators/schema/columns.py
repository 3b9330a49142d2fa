"""The Arrow type of a schema's values, and the conversion of one value into it and back.

Every valid value must fit, so what Arrow has no type for (a map with free keys, a union, a recursive tree) is kept as
JSON text, and check time says so. Nothing is dropped or rounded silently. A value that does not fit after all (an
integer of more than 64 bits, a field that the schema does not name) is :class:`NotAccepted`, so the answer is rejected.

An absent field and a null one are the same in a table; only that difference is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.operators.schema.codecs import (
    INT64,
    Boolean,
    Codec,
    Date,
    Integer,
    Items,
    JsonText,
    Label,
    Number,
    Struct,
    Text,
    Timestamp,
)
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import Flat, Node, fields_of, flatten, is_record, types

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = LazyModule("pyarrow")


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
