"""How a JSON Schema's nodes are read, for everything that needs more than validation.

The column's type, the grammar, the prompt and the token estimate all need the same facts about a node: what does this
reference point to, may it be null, is it a record with known fields? One answer here keeps the four from disagreeing.
Nothing here decides whether a schema is valid: :func:`headrace.operators.schema.schemas.check_schema` does, and runs
first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from headrace.operators.schema.lazy_module import LazyModule

if TYPE_CHECKING:
    import jsonschema
    from jsonschema.protocols import Validator as JsonSchemaValidator
else:
    jsonschema = LazyModule("jsonschema")

Node = Mapping[str, Any]

SchemaPath = tuple[str | int, ...]
"""The path of a node in its schema: keys and indexes from the root."""

ANNOTATIONS = frozenset(
    {
        "$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description",
        "discriminator", "example", "examples", "id", "readOnly", "title", "writeOnly", "x-headrace-means",
    }
)  # fmt: skip
"""Keywords that describe a value without restricting it (and those that only hold other schemas)."""

MEANS = "x-headrace-means"
"""What the letters of a short form mean, by letter: the keys of an object, or the values of an ``enum``.
:mod:`headrace.operators.schema.short_form` writes it, and the prompt says it."""

SUBSCHEMA = frozenset(
    {
        "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
        "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
SUBSCHEMA_LIST = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
SUBSCHEMA_MAP = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
"""Where a schema holds further schemas, in drafts 4 to 2020-12; ``items`` is a list up to 2019-09."""

IMPLIED_TYPES = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "propertyNames",
               "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
"""A node without ``type`` accepts any value of another type, but nobody who writes ``properties`` means that."""


class SchemaError(ValueError):
    """A schema that headrace cannot use; the message says where in it, why, and what to do."""


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901). The root, an empty string there, is shown as ``/``, which reads better."""
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in path)


def dialect(schema: Node) -> type[JsonSchemaValidator]:
    """The validator class of the draft that ``$schema`` names; 2020-12 if it names none."""
    return jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)


def refs_stand_alone(schema: Node) -> bool:
    """Whether keywords beside a ``$ref`` are ignored, as up to draft 7."""
    return "prefixItems" not in dialect(schema).VALIDATORS and "dependentRequired" not in dialect(schema).VALIDATORS


def subschemas(node: Node) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The schemas directly inside a node, each with its path from there."""
    for key, value in node.items():
        if key in SUBSCHEMA and isinstance(value, (Mapping, bool)):
            yield (key,), value
        if key in SUBSCHEMA_LIST and isinstance(value, list):
            for index, item in enumerate(value):
                yield (key, index), item
        if key in SUBSCHEMA_MAP and isinstance(value, Mapping):
            for name, item in value.items():
                if isinstance(item, (Mapping, bool)):  # draft 7's dependencies also hold lists of names
                    yield (key, name), item


def walk(schema: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """Every schema that is an object, the root first, with its path."""
    if isinstance(schema, Mapping):
        yield path, schema
        for step, item in subschemas(schema):
            yield from walk(item, path + step)


def resolve(root: Node, ref: str) -> tuple[Node, str]:
    """What a local ``$ref`` points to, and its pointer.

    Raises:
        SchemaError: it is remote, or points to nothing. The message does not say where the ``$ref`` is.
    """
    if not ref.startswith("#"):
        raise SchemaError(
            f"$ref {ref!r} is remote, and headrace fetches no schemas: copy it under $defs and write #/$defs/NAME"
        )
    fragment = unquote(ref[1:])
    if fragment and not fragment.startswith("/"):
        for path, node in walk(root):
            if fragment in (node.get("$anchor"), str(node.get("$id", "")).removeprefix("#")):
                return node, pointer(path)
        raise SchemaError(f"$ref {ref!r}: no schema has the $anchor {fragment!r}")
    target: Any = root
    for part in fragment.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            known = ", ".join(f"#/$defs/{name}" for name in root.get("$defs", root.get("definitions", {})))
            raise SchemaError(f"$ref {ref!r} points to nothing" + (f"; there are {known}" if known else ""))
    if isinstance(target, bool):
        target = {} if target else {"not": {}}
    if not isinstance(target, Mapping):
        raise SchemaError(f"$ref {ref!r} points to something that is not a schema")
    return target, fragment or "/"


@dataclass(frozen=True, slots=True)
class Flat:
    """A node after its references, its ``null`` and its single-branch combinators have been resolved.

    ``ids`` are the identities of the nodes that were passed on the way: meeting one of them again further down means
    that the schema is recursive. ``opaque`` is the keyword that keeps the node from being read as one shape, if any.
    ``restricted`` says that there were branches which only forbid combinations of the fields.
    """

    node: Node
    nullable: bool
    ids: frozenset[int]
    opaque: str | None = None
    restricted: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        return types(self.node)


def types(node: Node) -> tuple[str, ...]:
    """The declared types, or the one that the node's keywords imply; empty if any type is allowed."""
    declared = node.get("type")
    if isinstance(declared, str):
        return (declared,)
    if isinstance(declared, list):
        return tuple(declared)
    if any(key in node for key in ("enum", "const", "anyOf", "oneOf", "allOf", "$ref", "not")):
        return ()
    implied = [name for name, keys in IMPLIED_TYPES.items() if any(key in node for key in keys)]
    return (implied[0],) if len(implied) == 1 else ()


def flatten(root: Node, schema: Any) -> Flat:
    """Read a node as one shape if it is one: ``Optional[Ref]`` as what Ref is, nullable."""
    node: Node = as_node(schema)
    ids = {id(node)}
    nullable = restricted = False
    while True:
        rest = {key: value for key, value in node.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        if "$ref" in node:
            target, _ = resolve(root, node["$ref"])
            if id(target) in ids:
                return Flat({}, nullable, frozenset(ids), "$ref")
            ids.add(id(target))
            beside = {key: value for key, value in node.items() if key != "$ref"}
            if refs_stand_alone(root):
                beside = {key: value for key, value in beside.items() if key in ANNOTATIONS}
            merged = merge(root, [target, beside], ids)
            if merged is None:
                return Flat({**_annotations(node)}, nullable, frozenset(ids), "$ref")
            node = merged
        elif "allOf" in node:
            beside = {key: value for key, value in node.items() if key != "allOf"}
            merged = merge(root, [*node["allOf"], beside], ids)
            if merged is None:
                return Flat({**_annotations(node)}, nullable, frozenset(ids), "allOf")
            node = merged
        elif "anyOf" in node or "oneOf" in node:
            key = "anyOf" if "anyOf" in node else "oneOf"
            if "anyOf" in node and "oneOf" in node:
                return Flat({**_annotations(node)}, nullable, frozenset(ids), "oneOf")
            branches = [as_node(branch) for branch in node[key]]
            if is_record(rest) and all(_only_restricts(branch, fields_of(rest)) for branch in branches):
                node, restricted = rest, True
                continue
            solid = [branch for branch in branches if not is_null(branch)]
            if len(solid) != 1:
                return Flat(node, nullable or len(solid) < len(branches), frozenset(ids), key)
            nullable = nullable or len(solid) < len(branches)
            if types(rest):
                declared = [name for name in types(rest) if name != "null"]
                rest = {**rest, "type": declared if len(declared) != 1 else declared[0]}
            merged = merge(root, [solid[0], rest], ids)
            if merged is None:
                return Flat({**_annotations(node)}, nullable, frozenset(ids), key)
            node = merged
        else:
            return _without_null(Flat(node, nullable, frozenset(ids), restricted=restricted))


def _without_null(flat: Flat) -> Flat:
    node, nullable = flat.node, flat.nullable
    declared = node.get("type")
    if isinstance(declared, list) and "null" in declared and len(declared) > 1:
        others = [name for name in declared if name != "null"]
        node = {**node, "type": others[0] if len(others) == 1 else others}
        nullable = True
    values = node.get("enum")
    if isinstance(values, list) and None in values and len(values) > 1:
        node = {**node, "enum": [value for value in values if value is not None]}
        nullable = True
    return replace(flat, node=node, nullable=nullable)


def as_node(schema: Any) -> Node:
    if isinstance(schema, Mapping):
        return schema
    return {"not": {}} if schema is False else {}


def is_null(node: Node) -> bool:
    return node.get("type") in ("null", ["null"]) or node.get("const", 0) is None or node.get("enum") == [None]


def _annotations(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key in ("title", "description")}


_RESTRICTS = frozenset({"required", "not", "minProperties", "maxProperties", "title", "description", "$comment"})


def _only_restricts(node: Node, fields: Collection[str]) -> bool:
    """Whether a branch beside ``properties`` of these names only forbids combinations, and adds no field."""
    if not set(node.get("required", ())) <= set(fields):
        return False
    return node.keys() <= _RESTRICTS or (
        node.keys() <= _RESTRICTS | {"properties", "type"} and not node.get("properties")
    )


def merge(root: Node, parts: Sequence[Any], ids: set[int]) -> Node | None:
    """One node that means all of ``parts``; None if that takes more than putting their keywords side by side.

    The last of them is the one that contains the others: its ``unevaluatedProperties`` covers all their fields.
    """
    result: dict[str, Any] = {}
    closed = False
    seen = 0
    for number, part in enumerate(parts, 1):
        node = as_node(part)
        if number == len(parts) and "unevaluatedProperties" in node and "additionalProperties" not in node:
            node = {key: value for key, value in node.items() if key != "unevaluatedProperties"}
            others = {"additionalProperties": as_node(part)["unevaluatedProperties"]}
        else:
            others = {}
        hops = 0
        while "$ref" in node:
            target, _ = resolve(root, node["$ref"])
            beside = {key: value for key, value in node.items() if key != "$ref"}
            if any(key not in ANNOTATIONS for key in beside) and not refs_stand_alone(root):
                return None
            ids.add(id(target))
            node = {**target, **_annotations(beside)}
            hops += 1
            if hops > 64:
                return None
        solid = {key for key in node if key not in ANNOTATIONS}
        if solid and closed:
            return None
        seen += bool(solid)
        closed = closed or ("additionalProperties" in node or "unevaluatedProperties" in node)
        if closed and seen > 1:
            return None
        for key, value in {**node, **others}.items():
            if key == "properties" and key in result:
                both = {name: _both(root, result[key][name], value[name], ids) for name in value if name in result[key]}
                if None in both.values():
                    return None
                result[key] = {**result[key], **value, **both}
            elif key == "required" and key in result:
                result[key] = [*result[key], *(name for name in value if name not in result[key])]
            elif key in ANNOTATIONS or key not in result or result[key] == value:
                result[key] = value
            else:
                return None
    return result


def _both(root: Node, one: Any, other: Any, ids: set[int]) -> Any:
    """A field's schema that means both; None where that takes more than putting their keywords side by side."""
    return one if one == other else merge(root, [one, other], ids)


def fields_of(node: Node) -> dict[str, Any]:
    """A record's properties. A name that is only ``required`` counts as one, and may hold anything.

    So do those that only a condition names (``then``, ``else``, ``dependentRequired``, ``dependentSchemas``).
    """
    properties = dict(node.get("properties", {}))
    for name in _names(node.get("required")):
        properties.setdefault(name, {})
    conditional: dict[str, list[Any]] = {}
    for part in _conditional(node):
        required: dict[str, Any] = {name: {} for name in _names(part.get("required"))}
        for name, item in {**required, **part.get("properties", {})}.items():
            conditional.setdefault(name, []).append(item)
    for name, (item, *others) in conditional.items():
        properties.setdefault(name, {} if others else item)
    return {name: schema for name, schema in properties.items() if schema is not False}


def _conditional(node: Node) -> Iterator[Node]:
    """The parts of a node that hold for some values only."""
    for part in (node.get("then"), node.get("else"), *_values(node.get("dependentSchemas"))):
        if isinstance(part, Mapping):
            yield part
    for names in _values(node.get("dependentRequired")):
        yield {"required": names}


def _names(required: Any) -> Sequence[str]:
    return required if isinstance(required, list) else ()


def _values(mapping: Any) -> Collection[Any]:
    return mapping.values() if isinstance(mapping, Mapping) else ()


def is_record(node: Node) -> bool:
    """Whether the node is an object whose fields are all named: what a struct can hold.

    JSON Schema leaves an object open unless ``additionalProperties`` says otherwise. Whoever lists properties for an
    extraction wants no others, so such an object is closed by default, while decoding and in its column.
    """
    fields = fields_of(node)
    return (
        types(node) == ("object",)
        and bool(fields)
        and node.get("additionalProperties", False) is False
        and node.get("unevaluatedProperties", False) is False
        and not node.get("patternProperties")
        and node.get("minProperties", 0) <= len(fields)
    )


def compact(value: object) -> str:
    """JSON without whitespace, as the engine writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
