"""Hypothesis strategies: JSON Schemas as users write them, and values that are valid under a schema.

Written against the JSON Schema specification alone, so that the code under test is not its own judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import reject
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
        st.lists(st.text(max_size=12), min_size=1, max_size=3, unique=True).map(lambda v: {"enum": v}),
        st.lists(st.integers(-5, 5), min_size=1, max_size=3, unique=True).map(lambda v: {"enum": v}),
        st.lists(scalars, min_size=1, max_size=3).map(lambda v: {"enum": v}),
        st.sampled_from([0.5, 2.0, 1, "x", True]).map(lambda v: {"const": v}),
    )


def _objects(inner: st.SearchStrategy[Schema], fewest: int = 0) -> st.SearchStrategy[Schema]:
    @st.composite
    def build(draw: st.DrawFn) -> Schema:
        properties = draw(st.dictionaries(names, inner, min_size=fewest, max_size=fewest + 3))
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


def _nullable(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner)


def _nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        _objects(inner),
        _arrays(inner),
        _nullable(inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one, two: {"oneOf": [one, two]}, inner, inner),
        st.builds(lambda one: {"allOf": [one], "description": "one"}, inner),
        st.builds(lambda one, two: {"allOf": [one, two]}, _objects(inner), _objects(inner)),
        st.builds(lambda one: {"type": "array", "prefixItems": [one, {"type": "integer"}]}, inner),
        st.just({"$ref": "#/$defs/tree"}),
        st.just({"$ref": "#/$defs/day", "description": "a day"}),
    )


def records() -> st.SearchStrategy[Schema]:
    """An object that is mostly constants, closed lists and optional parts, some of them shared by reference."""
    constant = st.sampled_from([{"const": "c"}, {"enum": [3]}, {"type": "string", "enum": ["only this", 4]}])
    leaf = constant | st.sampled_from([{"$ref": "#/$defs/size"}, {"$ref": "#/$defs/box"}]) | leaves()
    inner = st.recursive(leaf, lambda one: _objects(one, fewest=1) | _arrays(one) | _nullable(one), max_leaves=6)
    defs = st.fixed_dictionaries({"size": leaves() | constant, "box": _objects(leaves() | constant, fewest=1)})
    return st.builds(lambda body, named: {**body, "$defs": named}, _objects(inner, fewest=2), defs)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """A schema with two definitions, one of them recursive."""
    anywhere = st.recursive(leaves(), _nested, max_leaves=4)
    lists = _arrays(st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, leaves()))
    body = draw(anywhere | _objects(leaves() | anywhere | lists, fewest=4))
    tree = {
        "type": "object",
        "properties": {"v": draw(leaves()), "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    }
    return {**body, "$defs": {"tree": tree, "day": {"type": ["string", "null"], "format": "date"}}}


@st.composite
def values(draw: st.DrawFn, root: Mapping[str, Any]) -> Any:
    """A value made to fit a schema. Not every one does (``allOf``, ``oneOf``, ``uniqueItems``): ask a validator."""
    return _value(draw, root, root, 0)


anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2), max_leaves=4
)
MAX_DEPTH = 12
"""Where a recursive value stops growing: lists are empty from here on, and optional fields absent."""


def _value(draw: st.DrawFn, root: Mapping[str, Any], schema: Any, depth: int) -> Any:
    if schema is False or depth > 4 * MAX_DEPTH:
        reject()
    if schema is True or not schema.keys() - {"description", "$defs"}:
        return draw(anything)
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        return _value(draw, root, target, depth + 1)
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _value(draw, root, draw(st.sampled_from(schema[key])), depth + 1)
    if "allOf" in schema:
        parts = [_value(draw, root, branch, depth + 1) for branch in schema["allOf"]]
        if all(isinstance(part, dict) for part in parts):
            return {name: value for part in parts for name, value in part.items()}
        return parts[0]
    kinds = schema.get("type", "object")
    match draw(st.sampled_from([kinds] if isinstance(kinds, str) else kinds)):
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "integer":
            # Where a fraction is allowed as well, the column is one of doubles, which are exact up to here.
            bits = 53 if "number" in kinds else 63
            low, high = schema.get("minimum", -(2**bits)), schema.get("maximum", 2**bits - 1)
            step = schema.get("multipleOf", 1)
            return draw(st.integers(math.ceil(low / step), high // step)) * step
        case "number":
            return draw(_number(schema))
        case "string":
            return draw(_string(schema))
        case "array":
            return _array(draw, root, schema, depth + 1)
    return _object(draw, root, schema, depth + 1)


def _number(schema: Schema) -> st.SearchStrategy[float]:
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1e15))
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1e15))
    floats = st.floats(low, high, exclude_max="exclusiveMaximum" in schema, allow_nan=False)
    least, most = math.ceil(low), math.ceil(high) - 1
    return floats | st.integers(least, most) if least <= most else floats


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date":
        return st.dates(date(1, 1, 1)).map(date.isoformat)
    if schema.get("format") == "date-time":
        moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
        return moments.map(lambda moment: moment.isoformat().replace("+00:00", "Z"))
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: len(text) <= schema.get("maxLength", 1000))
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 12))


def _array(draw: st.DrawFn, root: Mapping[str, Any], schema: Schema, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [_value(draw, root, item, depth) for item in schema["prefixItems"]]
    least = schema.get("minItems", 0)
    most = max(least, min(schema.get("maxItems", 3), 3)) if depth < MAX_DEPTH else least
    return [_value(draw, root, schema.get("items", {}), depth) for _ in range(draw(st.integers(least, most)))]


def _object(draw: st.DrawFn, root: Mapping[str, Any], schema: Schema, depth: int) -> dict[str, Any]:
    required = schema.get("required", [])
    result = {
        name: _value(draw, root, item, depth)
        for name, item in schema.get("properties", {}).items()
        if name in required or (depth < MAX_DEPTH and draw(st.booleans()))
    }
    others = schema.get("additionalProperties", False)
    if others is not False and depth < MAX_DEPTH:
        for name in draw(st.lists(st.sampled_from(["k1", "k2"]), unique=True)):
            result[name] = _value(draw, root, others, depth)
    return result
