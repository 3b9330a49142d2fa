"""The schema that the engine's grammar gets: what xgrammar can hold of the user's schema, and bounds where it has none.

xgrammar ignores some keywords in silence and vLLM refuses others, so a schema cannot go to the engine as it is.
Here every such keyword is taken out and named, and the check of the finished answer
(``validation.Validator``) holds the answer to it. The decoding schema is closed and bounded:
a small model that may go on for ever does, until ``max_tokens`` cuts it, and a cut answer is no answer.

What xgrammar 0.2.8 and vLLM 0.32 do was tried out, keyword by keyword; ``tests/test_schemas.py`` holds the
outcome against vLLM's own check.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.operators.schema.bounded import BoundedValidator, TooMuchWork
from headrace.operators.schema.nodes import (
    ANNOTATIONS,
    Node,
    SchemaError,
    as_node,
    compact,
    fields_of,
    flatten,
    is_record,
    merge,
    pointer,
    refs_stand_alone,
    resolve,
    types,
)
from headrace.operators.schema.patterns import grammar_pattern

DEFAULT_MAX_LENGTH = 120
"""Characters of a string without a bound: a sentence, what a field of an extraction holds. xgrammar 0.2.8 compiles a
bound up to 128 in 1.6 s of one core and any longer one in 2.7 s. Under a bound of either kind it writes no escapes,
so such a string holds no quote, backslash or newline."""

DEFAULT_MAX_ITEMS = 8
"""Items of a list or a map without a bound: small models repeat themselves long before that."""

MAX_LEAST = 10_000
"""The most items, properties or characters that a schema may ask for at least: no answer holds more."""

MAX_PLACES = 20_000
"""Nodes of a decoding schema: what stands beside alternatives is repeated in each of them."""

KEY_LENGTH = 64
"""Characters of a free key in a map."""

DEFAULT_MAX_NUMBER = 1e15
"""With both bounds xgrammar writes plain decimals of at most six places; without, ``1.3333...`` never ends. The
biggest power of ten that a double holds exactly with its neighbours."""

DECIMALS = 6
"""Places after the point that xgrammar writes under a bound."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

GRAMMAR_FORMATS = frozenset(
    {
        "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer",
        "relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid",
    }
)  # fmt: skip
"""``STRING_SUPPORTED_FORMATS`` of vLLM 0.32's xgrammar backend."""

_BY_TYPE: dict[str, tuple[str, ...]] = {
    "string": ("format", "pattern", "minLength", "maxLength"),
    "number": ("multipleOf",),
    "integer": ("multipleOf",),
    "array": ("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
    "object": ("propertyNames", "patternProperties", "dependentRequired", "dependentSchemas", "dependencies",
               "unevaluatedProperties"),
}  # fmt: skip
_ANY_TYPE = ("not", "if", "then", "else")


def decoding_schema(schema: Node, root: Node | None = None) -> tuple[dict[str, Any], list[str]]:
    """What the grammar gets, and a note for each keyword that only the final check enforces.

    Whatever is valid under the decoding schema and passes the keywords in the notes is valid under ``schema``.
    ``root`` is what its references point into, where that is another schema.

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
            f"{DEFAULT_MAX_ITEMS} items; write these keywords for other bounds"
        )
    return result, notes


_Path = tuple[str | int, ...]


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

    def note(self, path: _Path, keyword: str) -> None:
        self.notes.append(f"{pointer(path)}: {keyword} is checked after the answer, not while decoding")

    def relax(self, schema: Any, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        """One node; None where nothing can be valid."""
        self._places += 1
        if self._places > MAX_PLACES:
            raise SchemaError(
                f"{pointer(path)}: with what stands beside anyOf, oneOf and allOf in every branch the schema has more "
                f"than {MAX_PLACES:,} places; ask for fewer fields, or put the alternatives side by side"
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
                    _string_of({}),
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
                    {"type": "object", "additionalProperties": scalar, "maxProperties": DEFAULT_MAX_ITEMS,
                     "propertyNames": {"maxLength": KEY_LENGTH}},
                ]
            }  # fmt: skip
        return {"$ref": "#/$defs/_anything"}

    def _ref(self, node: Node, beside: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        target, place = resolve(self.root, node["$ref"])
        if len(beside) > 1 and not refs_stand_alone(self.root):
            others = {key: value for key, value in node.items() if key != "$ref"}
            ids: set[int] = {id(target)}
            merged = None if id(target) in inlined else merge(self.root, [target, others], ids)
            if merged is not None:
                return self.relax(merged, path, inlined | ids)
            self._check_writable(target, [others], "$ref with more beside it", path)
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

    def _all_of(self, node: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        rest = {key: value for key, value in node.items() if key != "allOf"}
        ids: set[int] = set()
        merged = None if id(node) in inlined else merge(self.root, [*node["allOf"], rest], ids)
        if merged is not None and not ids & inlined:
            return self.relax(merged, path, inlined | ids | {id(node)})
        self.note(path, "allOf")
        if types(rest) or any(key in rest for key in ("enum", "const", "anyOf", "oneOf")):
            self._check_writable(rest, node["allOf"], "allOf", path)
            return self.relax(rest, path, inlined)
        first, *others = node["allOf"]
        self._check_writable(first, [*others, rest], "allOf", path)
        return self.relax(first, (*path, "allOf", 0), inlined)

    def _closed(self, node: Node, path: _Path) -> dict[str, Any]:
        """The values that the rest of the node lets through: xgrammar would write any of them."""
        values = node["enum"] if "enum" in node else [node["const"]]
        try:
            valid = [value for value in values if self._validator.allows(node, value)]
        except TooMuchWork as problem:
            raise SchemaError(f"{pointer(path)}: {problem}") from None
        if not valid:
            raise SchemaError(
                f"{pointer(path)}: none of the values of enum or const is valid beside the other keywords"
            )
        return {"enum": valid}

    def _any_of(self, node: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        key = "anyOf" if "anyOf" in node else "oneOf"
        rest = {name: value for name, value in node.items() if name != key}
        branches = []
        for index, branch in enumerate(node[key]):
            merged, ids = (branch, set[int]()) if not rest else (None, set[int]())
            if rest and not (is_record(rest) and len(compact(rest)) > 2000):
                merged = self._beside(rest, branch, ids)
            if merged is None or (rest and ids & inlined):
                if all(self._unwritable(rest, each) for each in node[key]):
                    self._check_writable(rest, node[key], key, path)
                self.note(path, key)
                return self.relax(rest, path, inlined)
            part = self.relax(merged, (*path, key, index), inlined | ids if rest else inlined)
            if part is not None:
                branches.append(part)
        if key == "oneOf" and not self._exclusive(node[key]):
            self.note(path, key)
        if not branches:
            return None
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _unwritable(self, kept: Any, other: Any) -> str | None:
        """A field that ``other`` requires and that no object of ``kept`` has; None if there is none."""
        record = flatten(self.root, kept).node
        if not is_record(record):
            return None
        fields = fields_of(record)
        required = flatten(self.root, other).node.get("required", ())
        return next((name for name in required if name not in fields), None)

    def _check_writable(self, kept: Any, others: Sequence[Any], keyword: str, path: _Path) -> None:
        """That answers of ``kept``, which is decoded alone, can be valid under the others."""
        for other in others:
            if name := self._unwritable(kept, other):
                raise SchemaError(
                    f"{pointer(path)}: {keyword} requires {name!r}, and its parts cannot be put together into one "
                    "object, so no answer would have it: write all fields in one place"
                )

    def _beside(self, rest: Node, branch: Any, ids: set[int]) -> Node | None:
        """A branch with what stands beside ``anyOf``; a type list there is narrowed to the branch's."""
        if branch is False:
            return {"not": {}}
        inner, outer = flatten(self.root, branch), types(rest)
        if inner.types and outer and not inner.opaque:
            kinds = set(inner.types) | ({"null"} if inner.nullable else set())
            allowed = set(outer) | ({"integer"} if "number" in outer else set())
            if not kinds & allowed:
                return {"not": {}}
            if kinds <= allowed:
                rest = {key: value for key, value in rest.items() if key != "type"}
        return merge(self.root, [branch, rest], ids)

    def _exclusive(self, branches: Sequence[Any]) -> bool:
        """Whether at most one branch can hold, by type or by a field that each requires with another value."""
        flats = [flatten(self.root, branch) for branch in branches]
        kinds = [{*flat.types, *(("null",) if flat.nullable else ())} for flat in flats]
        kinds = [each | {"integer"} if "number" in each else each for each in kinds]
        if all(kinds) and sum(map(len, kinds)) == len(set().union(*kinds)):
            return True
        shared = set.intersection(*(set(flat.node.get("required", ())) for flat in flats))
        for name in sorted(shared):
            tags = [as_node(fields_of(flat.node).get(name)) for flat in flats]
            values = [compact(v) for tag in tags for v in tag.get("enum", [tag["const"]] if "const" in tag else [])]
            if all("enum" in tag or "const" in tag for tag in tags) and len(values) == len(set(values)):
                return True
        return False

    def _typed(self, kind: str, node: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        match kind:
            case "string":
                return self._string(node, path)
            case "integer":
                return self._integer(node, path)
            case "number":
                return self._number(node, path)
            case "array":
                return self._array(node, path, inlined)
            case "object":
                return self._object(node, path, inlined)
        return {"type": kind}

    def _string(self, node: Node, path: _Path) -> dict[str, Any]:
        """One of format, pattern and length: vLLM refuses two together, and xgrammar would ignore one."""
        kept: dict[str, Any] = {}
        pattern = grammar_pattern(node["pattern"]) if "pattern" in node else None
        if node.get("format") in GRAMMAR_FORMATS:
            kept = {"type": "string", "format": node["format"]}
        elif pattern is not None:
            kept = {"type": "string", "pattern": pattern}
        else:
            if _least(node, "minLength", path) > node.get("maxLength", math.inf):
                raise SchemaError(
                    f"{pointer(path)}: minLength {node['minLength']} is above maxLength {node['maxLength']}"
                )
            kept = _string_of(node)
            self.bounded = self.bounded or "maxLength" not in node
        for keyword in ("format", "pattern"):
            if keyword in node and keyword not in kept:
                self.note(path, keyword)
        if "format" in kept or "pattern" in kept:
            for keyword in ("minLength", "maxLength"):
                if keyword in node:
                    self.note(path, keyword)
        return kept

    def _integer(self, node: Node, path: _Path) -> dict[str, Any] | None:
        low, high, open_low, open_high = _range(node)
        least = INT64_MIN if low == -math.inf else math.floor(low) + 1 if open_low else math.ceil(low)
        most = INT64_MAX if high == math.inf else math.ceil(high) - 1 if open_high else math.floor(high)
        least, most = max(least, INT64_MIN), min(most, INT64_MAX)
        if least > most:
            raise SchemaError(f"{pointer(path)}: no 64-bit integer lies between minimum and maximum")
        return {"type": "integer", "minimum": least, "maximum": most}

    def _number(self, node: Node, path: _Path) -> dict[str, Any]:
        low, high, open_low, open_high = _range(node)
        if low > high:
            raise SchemaError(f"{pointer(path)}: minimum {low} is above maximum {high}")
        if low == high and (open_low or open_high):
            raise SchemaError(f"{pointer(path)}: no number lies between minimum and maximum, which are both {low}")
        given = [bound for bound in (low, high) if math.isfinite(bound)]
        if any(abs(bound) > DEFAULT_MAX_NUMBER or round(bound, DECIMALS) != bound for bound in given):
            # The grammar of such a bound may hold no number at all, six places being all it writes.
            for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
                if keyword in node:
                    self.note(path, keyword)
            return {"type": "number"}
        return {
            "type": "number",
            "exclusiveMinimum" if open_low else "minimum": max(low, -DEFAULT_MAX_NUMBER),
            "exclusiveMaximum" if open_high else "maximum": min(high, DEFAULT_MAX_NUMBER),
        }

    def _array(self, node: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        least = _least(node, "minItems", path)
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

    def _object(self, node: Node, path: _Path, inlined: frozenset[int]) -> dict[str, Any] | None:
        result: dict[str, Any] = {"type": "object"}
        fields = fields_of(node)
        required = list(node.get("required", ()))
        properties = {}
        for name, item in fields.items():
            part = self.relax(item, (*path, "properties", name), inlined)
            if part is not None:
                properties[name] = part
        missing = [name for name in required if name not in properties]
        if missing:
            raise SchemaError(f"{pointer(path)}: {missing[0]!r} is required, but its schema is false")
        if max(len(required), int(node.get("minProperties", 0))) > node.get("maxProperties", math.inf):
            raise SchemaError(
                f"{pointer(path)}: maxProperties {node['maxProperties']} is less than what has to be there"
            )
        others = node.get("additionalProperties")
        patterns = node.get("patternProperties") or {}
        if fields:
            result["properties"] = properties
            if required:
                result["required"] = required
            if "propertyNames" in node:
                self.note(path, "propertyNames")
            if patterns:
                self.note(path, "patternProperties")
        free = None
        if not is_record(node) and others is not False and not (fields and patterns and others is None):
            free = self.relax(True if others is None else others, (*path, "additionalProperties"), inlined)
        if not fields and patterns:
            free = self._patterned(node, result, path, inlined)
        elif not fields and free is not None:
            names = node.get("propertyNames")
            if isinstance(names, Mapping) and ("enum" in names or "const" in names):
                result["propertyNames"] = self._closed({**names, "type": "string"}, (*path, "propertyNames"))
            elif isinstance(names, Mapping) and not names.keys() - ANNOTATIONS - {
                "type",
                *_BY_TYPE["string"],
            }:
                string = self._string({"maxLength": KEY_LENGTH, **names}, (*path, "propertyNames"))
                result["propertyNames"] = {key: value for key, value in string.items() if key != "type"}
            else:
                result["propertyNames"] = {"maxLength": KEY_LENGTH}
                if names is not None:
                    self.note(path, "propertyNames")
        if not patterns or fields:
            result["additionalProperties"] = False if free is None else free
        if not fields and free is None:
            result["properties"] = {}
        if node.get("minProperties"):
            result["minProperties"] = _least(node, "minProperties", path)
        if free is not None:
            room = max(len(fields) + DEFAULT_MAX_ITEMS, int(node.get("minProperties", 0)))
            result["maxProperties"] = int(node.get("maxProperties", room))
        elif "maxProperties" in node:
            result["maxProperties"] = int(node["maxProperties"])
        if free is None and result.get("minProperties", 0) > len(properties):
            raise SchemaError(f"{pointer(path)}: minProperties asks for more properties than can be there")
        return result

    def _patterned(
        self, node: Node, result: dict[str, Any], path: _Path, inlined: frozenset[int]
    ) -> dict[str, Any] | None:
        """A map whose keys match a pattern: xgrammar holds one such pattern, alone."""
        patterns = node["patternProperties"]
        if len(patterns) > 1 or "propertyNames" in node:
            self.note(path, "patternProperties" if len(patterns) > 1 else "propertyNames")
        for pattern, item in patterns.items():
            safe = grammar_pattern(pattern, KEY_LENGTH)
            part = self.relax(item, (*path, "patternProperties", pattern), inlined)
            if safe is not None and part is not None:
                result["patternProperties"] = {safe: part}
                result["additionalProperties"] = False
                return part
        self.note(path, "patternProperties")
        if node.get("additionalProperties") is False:
            self.note(path, "additionalProperties")
        result["propertyNames"] = {"maxLength": KEY_LENGTH}
        result["additionalProperties"] = free = self.anything()
        return free


def _least(node: Node, keyword: str, path: _Path) -> int:
    least = int(node.get(keyword, 0))
    if least > MAX_LEAST:
        raise SchemaError(f"{pointer(path)}: {keyword} {least} is more than any answer holds (at most {MAX_LEAST:,})")
    return least


def _string_of(node: Node) -> dict[str, Any]:
    least = int(node.get("minLength", 0))
    most = int(node.get("maxLength", max(DEFAULT_MAX_LENGTH, least)))
    bounds = {"minLength": least, "maxLength": most} if least else {"maxLength": most}
    return {"type": "string", **bounds}


def _range(node: Node) -> tuple[float, float, bool, bool]:
    """Lower and upper bound, and whether each is excluded; draft 4 writes that as a boolean."""
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    above, below = node.get("exclusiveMinimum", False), node.get("exclusiveMaximum", False)
    open_low, open_high = above is True, below is True
    if not isinstance(above, bool) and above >= low:
        low, open_low = above, True
    if not isinstance(below, bool) and below <= high:
        high, open_high = below, True
    return low, high, open_low, open_high
