"""The schema that the engine's grammar gets: the part of the user's schema that llguidance supports, with bounds added.

llguidance refuses a schema with a keyword that it does not know. Here every such keyword is removed and named, and the
check of the finished answer (``validation.Validator``) enforces it. The decoding schema is closed and bounded
(``bounds``).

The behaviour of llguidance 1.7 was tested keyword by keyword; ``tests/operators/schema/test_schemas.py`` checks the
result against llguidance itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.operators.schema.alternatives import are_exclusive, check_writable, unwritable, with_what_is_beside
from headrace.operators.schema.bounded import BoundedValidator, TooMuchWork
from headrace.operators.schema.bounds import (
    DEFAULT_MAX_ITEMS,
    DEFAULT_MAX_LENGTH,
    DEFAULT_MAX_NUMBER,
    KEY_LENGTH,
)
from headrace.operators.schema.decoding_scalars import (
    Scalar,
    integer_scalar,
    least_of,
    number_scalar,
    string_of,
    string_scalar,
)
from headrace.operators.schema.nodes import (
    ANNOTATIONS,
    Node,
    SchemaError,
    SchemaPath,
    as_node,
    compact,
    fields_of,
    is_record,
    merge,
    pointer,
    refs_stand_alone,
    resolve,
    types,
)
from headrace.operators.schema.patterns import bounded, decodes, one_of

MAX_PLACES = 20_000
"""Nodes of a decoding schema: keywords beside alternatives are repeated in each of them."""

FREE_KEY = f"^.{{0,{KEY_LENGTH}}}$"
"""The pattern of a key in a map."""

_BY_TYPE: dict[str, tuple[str, ...]] = {
    "string": ("format", "pattern", "minLength", "maxLength"),
    "array": ("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
    "object": ("propertyNames", "patternProperties", "dependentRequired", "dependentSchemas", "dependencies",
               "unevaluatedProperties"),
}  # fmt: skip
_ANY_TYPE = ("not", "if", "then", "else")


def decoding_schema(schema: Node, root: Node | None = None) -> tuple[dict[str, Any], list[str]]:
    """What the grammar gets, and a note for each keyword that only the final check enforces.

    Whatever is valid under the decoding schema and satisfies the keywords in the notes is valid under ``schema``.
    ``root`` is the schema that references point into, if it is another one.

    Raises:
        SchemaError: nothing can be valid under it.
    """
    decoder = _Decoder(schema if root is None else root, schema)
    body = decoder.relax(schema, (), frozenset())
    if body is None:
        raise SchemaError("/: the schema is false, so no answer can be valid")
    result = dict(body)
    if decoder.defs:
        result["$defs"] = decoder.defs
    notes = list(dict.fromkeys(decoder.notes))
    if decoder.bounded:
        notes.append(
            f"/: a string without maxLength ends at {DEFAULT_MAX_LENGTH} characters and a list without maxItems at "
            f"{DEFAULT_MAX_ITEMS} items; set these keywords for other bounds"
        )
    return result, notes


@dataclass(slots=True)
class _Decoder:
    root: Node
    top: Node
    defs: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bounded: bool = False
    _places: int = 0
    _names: dict[int, str] = field(default_factory=dict)
    _validated: BoundedValidator | None = None

    @property
    def _validator(self) -> BoundedValidator:
        if self._validated is None:
            self._validated = BoundedValidator.of(self.root)
        return self._validated

    def note(self, path: SchemaPath, keyword: str) -> None:
        self.notes.append(f"{pointer(path)}: {keyword} is checked after the answer, not while decoding")

    def relax(self, schema: Any, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:  # noqa: PLR0911 - one return for each form of a node
        """One node; None if nothing can be valid."""
        self._places += 1
        if self._places > MAX_PLACES:
            raise SchemaError(
                f"{pointer(path)}: with the keywords beside anyOf, oneOf and allOf in every branch, the schema has "
                f"more than {MAX_PLACES:,} places; ask for fewer fields, or put the alternatives side by side"
            )
        if schema is False or schema == {"not": {}}:
            return None
        node = as_node(schema)
        beside = {key: value for key, value in node.items() if key not in ANNOTATIONS}
        if not beside:
            return self.anything()
        if "$ref" in beside:
            return self._ref(node, beside, path, inlined)
        if "allOf" in beside:
            return self._all_of(node, path, inlined)
        if "enum" in beside or "const" in beside:
            return self._closed(beside, path)
        if "anyOf" in beside or "oneOf" in beside:
            return self._any_of(beside, path, inlined)
        for keyword in _ANY_TYPE:
            if keyword in beside:
                self.note(path, keyword)
        kinds = types(beside)
        if not kinds:
            return self.anything()
        for keyword in dict.fromkeys(key for kind in kinds for key in _BY_TYPE.get(kind, ())):
            if keyword in beside and keyword not in ("format", "pattern", "minLength", "maxLength",
                                                     "propertyNames", "patternProperties"):  # fmt: skip
                self.note(path, keyword)
        parts = [part for kind in kinds if (part := self._typed(kind, beside, path, inlined)) is not None]
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def anything(self) -> dict[str, Any]:
        """A value without a type: a scalar, or a flat list or map of scalars, so that it ends."""
        if "_scalar" not in self.defs:
            self.defs["_scalar"] = {
                "anyOf": [
                    string_of({}),
                    {"type": "number", "minimum": -DEFAULT_MAX_NUMBER, "maximum": DEFAULT_MAX_NUMBER},
                    {"type": "boolean"},
                    {"type": "null"},
                ]
            }
            scalar = {"$ref": "#/$defs/_scalar"}
            self.defs["_anything"] = {
                "anyOf": [
                    scalar,
                    {"type": "array", "items": scalar, "maxItems": DEFAULT_MAX_ITEMS},
                    {"type": "object", "patternProperties": {FREE_KEY: scalar}, "additionalProperties": False,
                     "maxProperties": DEFAULT_MAX_ITEMS},
                ]
            }  # fmt: skip
        return {"$ref": "#/$defs/_anything"}

    def _ref(self, node: Node, beside: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        target, place = resolve(self.root, node["$ref"])
        if len(beside) > 1 and not refs_stand_alone(self.root):
            others = {key: value for key, value in node.items() if key != "$ref"}
            ids: set[int] = {id(target)}
            merged = None if id(target) in inlined else merge(self.root, [target, others], ids)
            if merged is not None:
                return self.relax(merged, path, inlined | ids)
            check_writable(self.root, target, [others], "$ref with other keywords beside it", path)
            for keyword in beside:
                if keyword != "$ref":
                    self.note(path, keyword)
        if target is self.top:
            return {"$ref": "#"}
        if id(target) not in self._names:
            name = place.rsplit("/", 1)[-1].replace("~", "_")
            name = "".join(char if char.isalnum() and char.isascii() else "_" for char in name) or "schema"
            taken = {*self.defs, *self._names.values()}
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            name = next(free for free in itertools.chain([name], numbered) if free not in taken)
            self._names[id(target)] = name
            parts = [part.replace("~1", "/").replace("~0", "~") for part in place.split("/")[1:]]
            body = self.relax(target, tuple(parts), frozenset())
            if body is None:
                raise SchemaError(f"{place}: the schema is false, so no answer can be valid")
            self.defs[name] = body
        return {"$ref": f"#/$defs/{self._names[id(target)]}"}

    def _all_of(self, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        rest = {key: value for key, value in node.items() if key != "allOf"}
        ids: set[int] = set()
        merged = None if id(node) in inlined else merge(self.root, [*node["allOf"], rest], ids)
        if merged is not None and not ids & inlined:
            return self.relax(merged, path, inlined | ids | {id(node)})
        self.note(path, "allOf")
        if types(rest) or any(key in rest for key in ("enum", "const", "anyOf", "oneOf")):
            check_writable(self.root, rest, node["allOf"], "allOf", path)
            return self.relax(rest, path, inlined)
        first, *others = node["allOf"]
        check_writable(self.root, first, [*others, rest], "allOf", path)
        return self.relax(first, (*path, "allOf", 0), inlined)

    def _closed(self, node: Node, path: SchemaPath) -> dict[str, Any]:
        """The values of ``enum`` or ``const`` that the other keywords allow."""
        values = node["enum"] if "enum" in node else [node["const"]]
        try:
            valid = [value for value in values if self._validator.allows(node, value)]
        except TooMuchWork as problem:
            raise SchemaError(f"{pointer(path)}: {problem}") from None
        if not valid:
            raise SchemaError(f"{pointer(path)}: none of the values of enum or const is valid with the other keywords")
        return {"enum": valid}

    def _any_of(self, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        key = "anyOf" if "anyOf" in node else "oneOf"
        rest = {name: value for name, value in node.items() if name != key}
        branches = []
        for index, branch in enumerate(node[key]):
            merged, ids = (branch, set[int]()) if not rest else (None, set[int]())
            if rest and not (is_record(rest) and len(compact(rest)) > 2000):
                merged = with_what_is_beside(self.root, rest, branch, ids)
            if merged is None or (rest and ids & inlined):
                if all(unwritable(self.root, rest, each) for each in node[key]):
                    check_writable(self.root, rest, node[key], key, path)
                self.note(path, key)
                return self.relax(rest, path, inlined)
            part = self.relax(merged, (*path, key, index), inlined | ids if rest else inlined)
            if part is not None:
                branches.append(part)
        if key == "oneOf" and not are_exclusive(self.root, node[key]):
            self.note(path, key)
        if not branches:
            return None
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _typed(self, kind: str, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        match kind:
            case "string":
                return self._scalar(string_scalar, node, path)
            case "integer":
                return self._scalar(integer_scalar, node, path)
            case "number":
                return self._scalar(number_scalar, node, path)
            case "array":
                return self._array(node, path, inlined)
            case "object":
                return self._object(node, path, inlined)
        return {"type": kind}

    def _scalar(self, of: Callable[[Node, SchemaPath], Scalar], node: Node, path: SchemaPath) -> dict[str, Any]:
        scalar = of(node, path)
        self.bounded = self.bounded or scalar.bounded
        for keyword in scalar.dropped:
            self.note(path, keyword)
        return scalar.schema

    def _array(self, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        least = least_of(node, "minItems", path)
        most = int(node.get("maxItems", max(DEFAULT_MAX_ITEMS, least)))
        if least > most:
            raise SchemaError(f"{pointer(path)}: minItems {least} is above maxItems {most}")
        result: dict[str, Any] = {"type": "array"}
        self.bounded = self.bounded or ("maxItems" not in node and "prefixItems" not in node)
        prefix = node.get("prefixItems", node["items"] if isinstance(node.get("items"), list) else None)
        key = "prefixItems" if "prefixItems" in node else "items"
        after = node.get("items", True) if key == "prefixItems" or not prefix else node.get("additionalItems", True)
        if prefix:
            first = [self.relax(item, (*path, key, index), inlined) for index, item in enumerate(prefix)]
            if any(item is None for item in first):
                self.note(path, key)
                first = first[: first.index(None)]
            result["prefixItems"] = first
            room = len(first)
            # Nobody who lists the positions wants more of them, unless there is a schema for those.
            rest = self.relax(after, (*path, "items"), inlined) if isinstance(after, Mapping) else None
            if rest is None and least > room:
                rest = self.anything() if after is not False else None
            result["items"] = False if rest is None else rest
            if "maxItems" not in node:
                most = max(least, room if rest is None else room + DEFAULT_MAX_ITEMS)
            if rest is None:
                most = min(most, room)
        else:
            item = self.relax(after, (*path, "items"), inlined)
            if item is None:
                most = 0
            result["items"] = item or {"type": "null"}
        if least > most:
            raise SchemaError(f"{pointer(path)}: minItems {least} is more than the {most} items that can be valid")
        if least:
            result["minItems"] = least
        result["maxItems"] = most
        return result

    def _object(self, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any]:
        fields = fields_of(node)
        properties = self._properties(fields, path, inlined)
        _check_required(node, properties, path)
        result: dict[str, Any] = {"type": "object"}
        free = self._others(node, path, inlined)
        if fields:
            result["properties"] = properties
            if node.get("required"):
                result["required"] = list(node["required"])
            for keyword in ("propertyNames", "patternProperties"):
                if node.get(keyword):
                    self.note(path, keyword)
            result["additionalProperties"] = False if free is None else free
        else:
            keys, free = self._keys(node, path, inlined, free)
            result["additionalProperties"] = False
            if free is None:
                result["properties"] = {}
            else:
                result["patternProperties"] = {keys: free}
        self._bound_properties(node, result, path, free=free is not None)
        return result

    def _properties(self, fields: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any]:
        """The named properties, without those that no value is valid for."""
        parts = {name: self.relax(item, (*path, "properties", name), inlined) for name, item in fields.items()}
        return {name: part for name, part in parts.items() if part is not None}

    def _others(self, node: Node, path: SchemaPath, inlined: frozenset[int]) -> dict[str, Any] | None:
        """What properties that are not named may hold; None if there can be none."""
        others = node.get("additionalProperties")
        if is_record(node) or others is False:
            return None
        if others is None and fields_of(node) and node.get("patternProperties"):
            return None
        return self.relax(True if others is None else others, (*path, "additionalProperties"), inlined)

    def _keys(
        self, node: Node, path: SchemaPath, inlined: frozenset[int], free: dict[str, Any] | None
    ) -> tuple[str, dict[str, Any] | None]:
        """A pattern for the keys of a map, and what they may hold.

        llguidance does not know ``propertyNames``, and supports several patterns only if no key can match two of them:
        so one is decoded.
        """
        patterns = node.get("patternProperties") or {}
        for pattern, item in patterns.items():
            part = self.relax(item, (*path, "patternProperties", pattern), inlined) if decodes(pattern) else None
            if part is not None:
                if len(patterns) > 1 or "propertyNames" in node:
                    self.note(path, "patternProperties" if len(patterns) > 1 else "propertyNames")
                return bounded(pattern, KEY_LENGTH), part
        if patterns:
            self.note(path, "patternProperties")
            if node.get("additionalProperties") is False:
                self.note(path, "additionalProperties")
            return FREE_KEY, self.anything()
        return self._names_of(node, path), free

    def _names_of(self, node: Node, path: SchemaPath) -> str:
        """A pattern for what ``propertyNames`` allows."""
        names = node.get("propertyNames")
        if isinstance(names, Mapping) and ("enum" in names or "const" in names):
            return one_of(self._closed({**names, "type": "string"}, (*path, "propertyNames"))["enum"])
        if isinstance(names, Mapping) and not names.keys() - ANNOTATIONS - {"type", *_BY_TYPE["string"]}:
            if "pattern" in names and decodes(names["pattern"]):
                for keyword in ("format", "minLength", "maxLength"):
                    if keyword in names:
                        self.note((*path, "propertyNames"), keyword)
                return bounded(names["pattern"], KEY_LENGTH)
            for keyword in ("format", "pattern"):
                if keyword in names:
                    self.note((*path, "propertyNames"), keyword)
            least = least_of(names, "minLength", (*path, "propertyNames"))
            return f"^.{{{least},{int(names.get('maxLength', max(KEY_LENGTH, least)))}}}$"
        if names is not None:
            self.note(path, "propertyNames")
        return FREE_KEY

    def _bound_properties(self, node: Node, result: dict[str, Any], path: SchemaPath, *, free: bool) -> None:
        """Limit the number of properties; ``free``: there may be some that are not named.

        Where a named one is optional, llguidance counts to one only, and only if none is required or without a name.
        """
        fields, required = result.get("properties", {}), set(result.get("required", ()))
        least, room = least_of(node, "minProperties", path), len(fields) + DEFAULT_MAX_ITEMS
        if not free and least > len(fields):
            raise SchemaError(f"{pointer(path)}: minProperties is more than the number of possible properties")
        bounds = {"minProperties": least} if least else {}
        if free or "maxProperties" in node:
            bounds["maxProperties"] = int(node.get("maxProperties", max(room, least)))
        optional = not set(fields) <= required
        for keyword, bound in bounds.items():
            if not optional or (bound <= 1 and not free and not required):
                result[keyword] = bound
            elif keyword in node:
                self.note(path, keyword)


def _check_required(node: Node, properties: Mapping[str, Any], path: SchemaPath) -> None:
    """Check that required properties can exist."""
    required = list(node.get("required", ()))
    missing = [name for name in required if name not in properties]
    if missing:
        raise SchemaError(f"{pointer(path)}: {missing[0]!r} is required, but its schema is false")
    if max(len(required), int(node.get("minProperties", 0))) > node.get("maxProperties", math.inf):
        raise SchemaError(f"{pointer(path)}: maxProperties {node['maxProperties']} leaves out required properties")
