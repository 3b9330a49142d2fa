"""How far a schema reaches: the places that its values have, whether it recurs, how deep its smallest value is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.operators.schema.nodes import Node, fields_of, flatten, refs_stand_alone, resolve, types, walk


def is_recursive(root: Node) -> bool:
    """Whether a value can contain values of the same schema, to any depth."""
    return any(recurs for _, recurs in unfold(root))


def unfold(root: Node) -> Iterator[tuple[int, bool]]:
    """Every place that a value of the schema has, with its depth and whether the schema recurs there.

    A definition counts wherever it is referenced, so a small schema may have countless places: the reader must stop in
    time.
    """
    pending: list[tuple[Any, frozenset[int], int]] = [(root, frozenset(), 0)]
    while pending:
        schema, above, depth = pending.pop()
        flat = flatten(root, schema)
        recurs = bool(flat.ids & above)
        yield depth, recurs
        if not recurs:
            pending.extend((item, above | flat.ids, depth + 1) for item in _children(flat.node))


def reachable(root: Node) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """Every schema of :func:`walk`, and what references point to beyond it (under keys that are not keywords).

    Raises:
        SchemaError: such a reference points to nothing.
    """
    seen: set[int] = set()
    pending: list[tuple[tuple[str | int, ...], Node]] = [((), root)]
    while pending:
        start, schema = pending.pop()
        for path, node in walk(schema, start):
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield path, node
            if isinstance(node.get("$ref"), str):
                target, place = resolve(root, node["$ref"])
                if id(target) not in seen:
                    parts = [part.replace("~1", "/").replace("~0", "~") for part in place.split("/")[1:]]
                    pending.append((tuple(parts), target))


def heights(root: Node) -> dict[int, int]:
    """By ``id``, an upper bound on the levels of each schema's smallest value; schemas without one are absent."""
    nodes = [node for _, node in reachable(root)]
    finite: dict[int, int] = {}

    def ends(schema: Any) -> bool:
        return not isinstance(schema, Mapping) or id(schema) in finite

    def has_end(node: Node) -> bool:
        if "$ref" in node and not ends(resolve(root, node["$ref"])[0]):
            return False
        if "$ref" in node and refs_stand_alone(root):
            return True
        if not all(map(ends, node.get("allOf", ()))):
            return False
        if any(node.get(key) and not any(map(ends, node[key])) for key in ("anyOf", "oneOf")):
            return False
        match types(node):
            case ("object",):
                required, fields = node.get("required"), node.get("properties", {})
                return all(ends(fields.get(name)) for name in (required if isinstance(required, list) else ()))
            case ("array",) if node.get("minItems", 0):
                return ends(node.get("items"))
        return True

    height = 0
    while more := [id(node) for node in nodes if id(node) not in finite and has_end(node)]:
        finite |= dict.fromkeys(more, height)
        height += 1
    return finite


def _children(node: Node) -> Iterator[Any]:
    yield from fields_of(node).values()
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), Mapping):
            yield node[key]
    for key in ("anyOf", "oneOf", "prefixItems"):
        yield from node.get(key, ())
