"""Hypothesis strategies: JSON Schemas as users write them, and values that are valid under a schema.

Written against the JSON Schema specification alone, so that the code under test is not its own judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

scalars = st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5)
names = st.sampled_from(["a", "b", "name", "größe", "a b", 'quo"te', "x.y", "", "/~1", "list"])


def _with(base: Schema, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    """``base`` with any of the optional keywords."""
    return st.fixed_dictionaries({}, optional=options).map(lambda extra: {**base, **extra})


def leaves() -> st.SearchStrategy[Schema]:
    return st.one_of(
        _with({"type": "string"}, minLength=st.integers(0, 3), maxLength=st.integers(3, 9)),
        st.just({"type": "string", "format": "date"}),
        st.just({"type": "string", "format": "date-time"}),
        st.just({"type": "string", "pattern": "^[A-Z][a-z]+$", "maxLength": 4}),
        st.just({"type": "string", "pattern": "[A-Z]"}),
        _with({"type": "integer"}, minimum=st.integers(-9, 0), maximum=st.integers(1, 9)),
        _with({"type": "integer"}, multipleOf=st.just(3)),
        _with({"type": "number"}, minimum=st.sampled_from([-2, 0, 0.5]), exclusiveMaximum=st.sampled_from([1, 2.25])),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.just({"type": ["integer", "number"]}),
        st.just({"type": ["string", "integer"]}),
        st.just({}),
        st.lists(st.text(max_size=4), min_size=1, max_size=4, unique=True).map(lambda v: {"enum": v}),
        st.lists(st.integers(-5, 5), min_size=1, max_size=3, unique=True).map(lambda v: {"enum": v}),
        st.lists(scalars, min_size=1, max_size=3).map(lambda v: {"enum": v}),
        st.sampled_from([0.5, 2.0, 1, "x", True]).map(lambda v: {"const": v}),
    )


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    @st.composite
    def build(draw: st.DrawFn) -> Schema:
        properties = draw(st.dictionaries(names, inner, max_size=3))
        schema: Schema = {"type": "object", "properties": properties}
        if draw(st.booleans()):
            schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        match draw(st.sampled_from(["absent", "absent", "closed", "open", "typed"])):
            case "closed":
                schema["additionalProperties"] = False
            case "open":
                schema["additionalProperties"] = True
            case "typed":
                schema["additionalProperties"] = draw(inner)
        return schema

    return build()


def _arrays(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda items, extra: {"type": "array", "items": items, **extra},
        inner,
        st.fixed_dictionaries(
            {},
            optional={"minItems": st.integers(0, 2), "maxItems": st.integers(2, 4), "uniqueItems": st.just(True)},
        ),
    )


def _nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        _objects(inner),
        _arrays(inner),
        st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one, two: {"oneOf": [one, two]}, inner, inner),
        st.builds(lambda one: {"allOf": [one], "description": "one"}, inner),
        st.builds(lambda one, two: {"allOf": [one, two]}, _objects(inner), _objects(inner)),
        st.builds(lambda one: {"type": "array", "prefixItems": [one, {"type": "integer"}]}, inner),
        st.just({"$ref": "#/$defs/tree"}),
        st.just({"$ref": "#/$defs/day", "description": "a day"}),
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """A schema with two definitions, one of them recursive."""
    body = draw(st.recursive(leaves(), _nested, max_leaves=6))
    tree = {
        "type": "object",
        "properties": {"v": draw(leaves()), "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    }
    return {**body, "$defs": {"tree": tree, "day": {"type": ["string", "null"], "format": "date"}}}


def values(root: Mapping[str, Any], schema: Any = None, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values made to fit a schema. Not every one does (``allOf``, ``oneOf``, ``uniqueItems``): filter with a validator."""
    schema = root if schema is None else schema
    if depth > 6:
        return st.nothing()
    if schema is True or schema == {}:
        return st.recursive(
            scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2)
        )
    if schema is False:
        return st.nothing()
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        return values(root, target, depth + 1)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([values(root, branch, depth + 1) for branch in schema[key]])
    if "allOf" in schema:
        parts = [values(root, branch, depth + 1) for branch in schema["allOf"]]
        return st.tuples(*parts).map(_union)
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of([_typed(root, kind, schema, depth + 1) for kind in kinds])


def _union(parts: tuple[Any, ...]) -> Any:
    if all(isinstance(part, dict) for part in parts):
        return {name: value for part in parts for name, value in part.items()}
    return parts[0]


def _typed(root: Mapping[str, Any], kind: str, schema: Schema, depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
            step = schema.get("multipleOf", 1)
            return st.integers(math.ceil(low / step), high // step).map(lambda n: n * step)
        case "number":
            high = schema.get("maximum", schema.get("exclusiveMaximum", 1e15))
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1e15))
            floats = st.floats(low, high, exclude_max="exclusiveMaximum" in schema, allow_nan=False)
            return floats | st.integers(math.ceil(low), math.ceil(high) - 1)
        case "string":
            return _string(schema)
        case "array":
            return _array(root, schema, depth)
    return _object(root, schema, depth)


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date":
        return st.dates(date(1, 1, 1)).map(date.isoformat)
    if schema.get("format") == "date-time":
        moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
        return moments.map(lambda moment: moment.isoformat().replace("+00:00", "Z"))
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: len(text) <= schema.get("maxLength", 1000))
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 12))


def _array(root: Mapping[str, Any], schema: Schema, depth: int) -> st.SearchStrategy[list[Any]]:
    prefix = schema.get("prefixItems", [])
    first = st.tuples(*(values(root, item, depth) for item in prefix)).map(list)
    rest = st.lists(
        values(root, schema.get("items", {}), depth) if not prefix else st.nothing(),
        min_size=schema.get("minItems", 0),
        max_size=min(schema.get("maxItems", 3), 4) if not prefix else 0,
    )
    return first.flatmap(lambda head: rest.map(lambda tail: head + tail)) if prefix else rest


def _object(root: Mapping[str, Any], schema: Schema, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    fields = {name: values(root, item, depth) for name, item in properties.items()}
    known = st.fixed_dictionaries(
        {name: item for name, item in fields.items() if name in required},
        optional={name: item for name, item in fields.items() if name not in required},
    )
    others = schema.get("additionalProperties", False)
    if others is False:
        return known
    extra = st.dictionaries(st.sampled_from(["k1", "k2"]), values(root, others, depth), max_size=2)
    return st.builds(lambda one, two: {**two, **one}, known, extra)
