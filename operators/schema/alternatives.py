"""Alternatives in a schema: keywords beside them, and whether they exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.operators.schema.nodes import (
    Node,
    SchemaError,
    SchemaPath,
    as_node,
    compact,
    fields_of,
    flatten,
    is_record,
    merge,
    pointer,
    types,
)


def unwritable(root: Node, kept: Any, other: Any) -> str | None:
    """A field that ``other`` requires and that no object of ``kept`` has; None if there is none."""
    record = flatten(root, kept).node
    if not is_record(record):
        return None
    fields = fields_of(record)
    required = flatten(root, other).node.get("required", ())
    return next((name for name in required if name not in fields), None)


def check_writable(root: Node, kept: Any, others: Sequence[Any], keyword: str, path: SchemaPath) -> None:
    """Check that answers of ``kept``, which is decoded alone, can be valid under the others."""
    for other in others:
        if name := unwritable(root, kept, other):
            raise SchemaError(
                f"{pointer(path)}: {keyword} requires {name!r}, and its parts cannot be merged into one object, so no "
                "answer would have it: write all fields in one place"
            )


def with_what_is_beside(root: Node, rest: Node, branch: Any, ids: set[int]) -> Node | None:
    """A branch combined with the keywords beside ``anyOf``; a type list there is narrowed to the branch's."""
    if branch is False:
        return {"not": {}}
    inner, outer = flatten(root, branch), types(rest)
    if inner.types and outer and not inner.opaque:
        kinds = set(inner.types) | ({"null"} if inner.nullable else set())
        allowed = set(outer) | ({"integer"} if "number" in outer else set())
        if not kinds & allowed:
            return {"not": {}}
        if kinds <= allowed:
            rest = {key: value for key, value in rest.items() if key != "type"}
    return merge(root, [branch, rest], ids)


def are_exclusive(root: Node, branches: Sequence[Any]) -> bool:
    """Whether at most one branch can be valid, by type or by a field that each requires with another value."""
    flats = [flatten(root, branch) for branch in branches]
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
