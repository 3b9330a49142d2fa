"""Fewer tokens per answer: which parts the engine need not decode, and how they are put back.

The engine computes every token of an answer, even those that the grammar determines. So a required property that can
have only one value is not decoded at all. With ``codes``, the names of an object's properties and the long values of an
``enum`` are decoded as letters. :func:`short_form` returns the schema of what is decoded, and converts a value into
that form and back: for every valid value ``restore(shorten(value)) == value``.

What has no single shape stays as it is: the branches of ``anyOf`` and ``oneOf`` (a constant there tells them apart),
free keys, lists whose items differ by position, and a recursive schema as a whole.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.operators.schema.bounded import BoundedValidator
from headrace.operators.schema.nodes import MEANS, Flat, Node, compact, fields_of, flatten, is_record
from headrace.operators.schema.not_accepted import NotAccepted
from headrace.operators.schema.recursion import is_recursive

LONG_VALUE = 8
"""Values of an ``enum`` up to this many characters usually take one or two tokens, so a letter saves almost nothing."""


class Form(Protocol):
    """The two conversions of one value. A value of another shape passes through, for the validator to check.

    Example::

        form = Coded("mood", {"a": "very happy with it", "b": "unhappy"})
        form.shorten("very happy with it")  # "a"
        form.restore("a")  # "very happy with it"
        form.restore("c")  # raises NotAccepted
    """

    def shorten(self, value: Any) -> Any:
        """What is decoded in place of a valid value; see :meth:`ShortForm.shorten`."""
        ...

    def restore(self, value: Any) -> Any:
        """The value of what was decoded; see :meth:`ShortForm.restore`."""
        ...


@dataclass(frozen=True, slots=True)
class ShortForm:
    """What is decoded in place of a schema's values.

    ``schema`` describes it; its references point into the schema that it was made from.
    """

    schema: Node
    form: Form

    def shorten(self, value: Any) -> Any:
        """A valid value as the engine would write it.

        Raises:
            NotAccepted: it contains a property or a text that the schema does not name, so that it has no letter.
        """
        return self.form.shorten(value)

    def restore(self, value: Any) -> Any:
        """The value that was meant.

        Raises:
            NotAccepted: it contains an unknown code; one sentence says where.
        """
        return self.form.restore(value)


def short_form(schema: Node, *, codes: bool = False) -> ShortForm:
    """The short form of a checked schema; ``codes``: with letters for names and long values."""
    if is_recursive(schema):
        return ShortForm(schema, AsIs())
    part = _Builder(schema, codes, BoundedValidator.of(schema)).part(schema, "")
    return ShortForm(part.schema, part.form)


@dataclass(frozen=True, slots=True)
class AsIs:
    """Nothing to shorten."""

    def shorten(self, value: Any) -> Any:
        return value

    def restore(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Coded:
    """A text of a closed list; ``values`` are the texts by letter."""

    where: str
    values: Mapping[str, str]

    def shorten(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for code, text in self.values.items():
            if text == value:
                return code
        raise _refused(self.where, f"{value!r:.80}", "is not a value of the enum")

    def restore(self, value: Any) -> Any:
        if isinstance(value, str) and value not in self.values:
            more = f" ({_listed(self.values.items())})"
            raise _refused(self.where, f"{value!r:.80}", "is not a known code", more)
        return self.values[value] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class ListForm:
    """A list of one form."""

    item: Form

    def shorten(self, value: Any) -> Any:
        return [self.item.shorten(item) for item in value] if isinstance(value, list) else value

    def restore(self, value: Any) -> Any:
        return [self.item.restore(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Constant:
    """A property that is not decoded."""

    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """A property that is decoded under the key ``code``, which may be its name."""

    code: str
    form: Form


@dataclass(frozen=True, slots=True)
class ObjectForm:
    """An object, by the names of its properties. ``coded``: the keys are letters, so no other key is possible."""

    where: str
    fields: Mapping[str, Field | Constant]
    coded: bool

    def shorten(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        others = {name: item for name, item in value.items() if name not in self.fields}
        if others and self.coded:
            raise _refused(self.where, f"{next(iter(others))!r:.80}", "is not a property of the schema")
        short = {
            field.code: field.form.shorten(value[name])
            for name, field in self.fields.items()
            if isinstance(field, Field) and name in value
        }
        return short | others

    def restore(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        codes = {field.code: name for name, field in self.fields.items() if isinstance(field, Field)}
        others = {key: item for key, item in value.items() if key not in codes}
        if others and self.coded:
            more = f" ({_listed(codes.items())})"
            raise _refused(self.where, f"the key {next(iter(others))!r:.80}", "is not a known code", more)
        whole = {}
        for name, field in self.fields.items():
            if isinstance(field, Constant):
                whole[name] = field.value
            elif field.code in value:
                whole[name] = field.form.restore(value[field.code])
        return whole | others


def _refused(where: str, what: str, rule: str, more: str = "") -> NotAccepted:
    return NotAccepted(f"{f'{where}: ' if where else ''}{what} {rule}{more}", rule)


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    shown = ", ".join(f"{code} = {meant}" for code, meant in pairs)
    return shown if len(shown) <= 200 else shown[:197] + "..."


@dataclass(frozen=True, slots=True)
class _Part:
    """The short form of one node; ``only`` holds its value if just one is valid."""

    schema: Any
    form: Form
    only: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Builder:
    root: Node
    codes: bool
    validator: BoundedValidator

    def part(self, schema: Any, where: str) -> _Part:
        flat = flatten(self.root, schema)
        unchanged = _Part(schema, AsIs())
        if flat.opaque or flat.restricted:
            return unchanged
        null = flat.nullable and self._valid(schema, None)
        if "enum" in flat.node or "const" in flat.node:
            part = self._closed(flat, schema, where)
        elif flat.types == ("array",):
            part = self._list(flat.node, where)
        elif flat.types == ("object",):
            part = self._record(flat.node, where) if is_record(flat.node) else self._open(flat.node, where)
        else:
            return unchanged
        if isinstance(part.form, AsIs):
            return _Part(schema, AsIs(), () if null else part.only)
        return _Part({"anyOf": [part.schema, {"type": "null"}]}, part.form) if null else part

    def _valid(self, schema: Any, value: Any) -> bool:
        return self.validator.allows(schema, value)

    def _closed(self, flat: Flat, schema: Any, where: str) -> _Part:
        values = flat.node["enum"] if "enum" in flat.node else [flat.node["const"]]
        values = list({compact(value): value for value in values if self._valid(schema, value)}.values())
        only = tuple(values) if len(values) == 1 else ()
        texts = [value for value in values if isinstance(value, str)]
        if not self.codes or len(texts) < len(values) or max(map(len, texts), default=0) <= LONG_VALUE:
            return _Part(schema, AsIs(), only)
        means = dict(zip(_letters(), texts, strict=False))
        return _Part({**_about(flat.node), "enum": list(means), MEANS: means}, Coded(where, means), only)

    def _list(self, node: Node, where: str) -> _Part:
        if "prefixItems" in node or not isinstance(node.get("items"), Mapping):
            return _Part(node, AsIs())
        item = self.part(node["items"], f"{where}[]")
        if isinstance(item.form, AsIs):
            return _Part(node, AsIs())
        return _Part({**node, "items": item.schema}, ListForm(item.form))

    def _record(self, node: Node, where: str) -> _Part:
        required = node.get("required", ())
        parts = self._properties(fields_of(node), where)
        constants = {name: part.only[0] for name, part in parts.items() if part.only and name in required}
        names = [name for name in parts if name not in constants]
        codes = dict(zip(names, _letters(), strict=False))
        coded = self.codes and any(len(code) < len(name) for name, code in codes.items())
        if not coded:
            codes = {name: name for name in names}
        if not coded and not constants and all(isinstance(part.form, AsIs) for part in parts.values()):
            return _Part(node, AsIs())
        fields = {
            name: Constant(constants[name]) if name in constants else Field(codes[name], part.form)
            for name, part in parts.items()
        }
        short = {
            **_about(node),
            "type": "object",
            "properties": {codes[name]: parts[name].schema for name in names},
            "required": [codes[name] for name in names if name in required],
            "additionalProperties": False,
            **{
                key: max(int(node[key]) - len(constants), 0)
                for key in ("minProperties", "maxProperties")
                if key in node
            },
            **({MEANS: {code: name for name, code in codes.items()}} if coded else {}),
        }
        return _Part(short, ObjectForm(where, fields, coded), () if names else (constants,))

    def _open(self, node: Node, where: str) -> _Part:
        """An object with free keys: a letter could be one of them, and so could the name of a constant."""
        properties = node.get("properties", {})
        parts = self._properties({name: item for name, item in properties.items() if item is not False}, where)
        if all(isinstance(part.form, AsIs) for part in parts.values()):
            return _Part(node, AsIs())
        short = {**node, "properties": {**properties, **{name: part.schema for name, part in parts.items()}}}
        forms = {name: Field(name, part.form) for name, part in parts.items()}
        return _Part(short, ObjectForm(where, forms, coded=False))

    def _properties(self, fields: Mapping[str, Any], where: str) -> dict[str, _Part]:
        return {name: self.part(item, f"{where}.{name}" if where else name) for name, item in fields.items()}


def _about(node: Node) -> dict[str, Any]:
    return {"description": node["description"]} if "description" in node else {}


def _letters() -> Iterator[str]:
    """``a`` to ``z``, ``aa``, ``ab`` and so on."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))
