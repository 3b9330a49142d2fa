"""A user's JSON Schema: whether it is valid, and everything that headrace derives from it.

:func:`check_schema` comes first and says what is wrong before anything runs. The rest takes a checked schema:
:class:`Validator` and :func:`parse_json` read answers, :func:`decoding_schema` is what the engine's grammar gets,
:func:`describe` what the prompt says, :func:`max_answer_tokens` what an answer may cost, and :func:`short_form` which
parts of an answer need not be decoded.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from headrace.operators.schema.answer_tokens import max_answer_tokens
from headrace.operators.schema.bounded import TooMuchWork, found, pattern_problem
from headrace.operators.schema.decoding import decoding_schema
from headrace.operators.schema.describe import describe, in_a_line
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import Node, SchemaError, dialect, pointer, refs_stand_alone, resolve, walk
from headrace.operators.schema.quotes import QUOTE, check_quotes
from headrace.operators.schema.recursion import heights, reachable, unfold
from headrace.operators.schema.short_form import ShortForm, short_form
from headrace.operators.schema.validation import Validator, parse_json

if TYPE_CHECKING:
    import jsonschema
else:
    jsonschema = LazyModule("jsonschema")

__all__ = [
    "SchemaError",
    "ShortForm",
    "Validator",
    "check_schema",
    "decoding_schema",
    "describe",
    "in_a_line",
    "max_answer_tokens",
    "parse_json",
    "schema_of",
    "short_form",
]

MAX_NESTING = 64
"""vLLM 0.32 refuses a deeper schema (``MAX_STRUCTURED_OUTPUT_JSON_NESTING``)."""

MAX_SCHEMAS = 10_000
"""Schemas inside a schema: properties, items, branches, definitions."""

MAX_PLACES = 5_000
"""Places that a value of the schema has, where definitions count wherever they are used: no model answers that many."""

KEYWORDS = frozenset(
    {
        "$anchor", "$comment", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor",
        "$recursiveRef", "$ref", "$schema", "$vocabulary", "additionalItems", "additionalProperties",
        "allOf", "anyOf", "const", "contains", "contentEncoding", "contentMediaType", "contentSchema",
        "default", "definitions", "dependencies", "dependentRequired", "dependentSchemas", "deprecated",
        "description", "discriminator", "else", "enum", "example", "examples", "exclusiveMaximum",
        "exclusiveMinimum", "format", "if", "items", "maxContains", "maxItems", "maxLength",
        "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
        "multipleOf", "not", "nullable", "oneOf", "pattern", "patternProperties", "prefixItems",
        "properties", "propertyNames", "readOnly", "required", "then", "title", "type", "unevaluatedItems",
        "unevaluatedProperties", "uniqueItems", "writeOnly",
    }
)  # fmt: skip
"""JSON Schema, drafts 4 to 2020-12, with the three of OpenAPI that pydantic and others write."""

QUIET = frozenset(
    {
        "$anchor", "$comment", "$dynamicAnchor", "$id", "$recursiveAnchor", "$schema", "$vocabulary", "default",
        "definitions", "deprecated", "example", "examples", "if", "not", "nullable", "readOnly", "title", "writeOnly",
    }
)  # fmt: skip
"""Keywords whose misspelling changes nothing in headrace, and those too short to tell from another word."""


def schema_of(model: type[BaseModel] | Mapping[str, Any] | object) -> Any:
    """The JSON Schema of a pydantic model; anything else is returned for :func:`check_schema` to check."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_json_schema()
    return model


def check_schema(schema: object) -> dict[str, Any]:
    """Refuse what is not a JSON Schema, or one that no answer could follow; otherwise the schema as plain data.

    Raises:
        SchemaError: what is wrong, the JSON pointer to it, and what to do.
    """
    if not isinstance(schema, Mapping):
        raise SchemaError(f"/: a schema is a mapping such as {{type: object, properties: ...}}, not {schema!r:.80}")
    plain = _plain(schema)
    schemas = sum(1 for _ in walk(plain))
    if schemas > MAX_SCHEMAS:
        raise SchemaError(
            f"/: the schema contains {schemas:,} schemas, at most {MAX_SCHEMAS:,} are allowed; copy the part you need"
        )
    _check_dialect(plain)
    _check_keywords(plain)
    error = jsonschema.exceptions.best_match(dialect(plain)(dialect(plain).META_SCHEMA).iter_errors(plain))
    if error is not None:
        raise SchemaError(f"{pointer(list(error.absolute_path))}: {_wrong(error.message)}")
    for path, node in reachable(plain):
        _check_node(plain, node, path)
    _check_unevaluated(plain)
    _check_cycles(plain)
    _check_extent(plain)
    check_quotes(plain)
    decoding_schema(plain)  # refuses bounds between which nothing lies
    return plain


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as JSON would have it: all keys are strings, and no value is shared with the caller."""
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except RecursionError:
        raise SchemaError(f"/: the schema is nested deeper than {MAX_NESTING} levels, or contains itself") from None
    except UnicodeEncodeError:
        raise SchemaError("/: a string in the schema contains half of a surrogate pair") from None
    except (TypeError, ValueError) as error:
        what = "the schema contains a value that JSON does not have"
        raise SchemaError(f"/: {what} ({error}); quote dates in YAML") from None
    plain: dict[str, Any] = json.loads(text)
    if _depth(plain) > MAX_NESTING:
        raise SchemaError(f"/: the schema is nested deeper than {MAX_NESTING} levels, which no grammar supports")
    return plain


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        level, depth = inner, depth + 1
    return depth


def _check_dialect(schema: Node) -> None:
    named = schema.get("$schema")
    if named is None:
        return
    known = (
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft3Validator)
        if isinstance(named, str)
        else jsonschema.Draft3Validator
    )
    if known is jsonschema.Draft3Validator:
        raise SchemaError(
            f"/$schema: {named!r} is not a supported dialect; name one from draft-04 to "
            "https://json-schema.org/draft/2020-12/schema, or remove it"
        )


def _check_keywords(schema: Node) -> None:
    """JSON Schema allows misspelt keywords, but they restrict nothing, which is never intended."""
    for place, node in walk(schema):
        for key in node:
            meant = _misspelt(key)
            if meant is not None:
                raise SchemaError(f"{pointer((*place, key))}: {key!r} is not a keyword of JSON Schema; write {meant!r}")


@lru_cache(maxsize=10_000)
def _misspelt(key: str) -> str | None:
    """The keyword that was meant; None for a keyword, and for a word that is far from every keyword.

    One typo in a short word, two in a long one: ``form``, ``constraints`` and ``_format`` are words in their own right.
    """
    if key.startswith(("x-", "x_")):
        return QUOTE if key != QUOTE and _slips(key, QUOTE) <= 2 else None
    plain = key.replace("_", "").replace("-", "").lower()
    if key in KEYWORDS or len(key) < 3 or not plain.lstrip("$").isalpha() or key.startswith("_"):
        return None
    if plain in {word.lower() for word in QUIET}:
        return None
    for word in sorted(KEYWORDS - QUIET):
        if plain == word.lower():
            return word
    for word in difflib.get_close_matches(key, KEYWORDS - QUIET, n=3, cutoff=0.7):
        if _slips(key, word) <= (1 if len(word) <= 6 else 2):
            return word
    return None


def _slips(one: str, other: str) -> int:
    """Letters omitted, added, changed, or swapped with the next (optimal string alignment distance)."""
    rows = [list(range(len(other) + 1))]
    for i, char in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (char != wanted))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == wanted:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def _check_node(root: Node, node: Node, path: tuple[str | int, ...]) -> None:
    here = pointer(path)
    if "$ref" in node:
        _check_ref(root, node, path)
    for keyword in ("$dynamicRef", "$recursiveRef"):
        if keyword in node:
            raise SchemaError(f"{here}: {keyword} is not supported; write a plain $ref to a schema under $defs")
    if path and any(not str(node.get(key, "#")).startswith("#") for key in ("$id", "id")) and _has_ref(node):
        raise SchemaError(f"{here}: an $id inside the schema changes what the $refs below it mean; remove it")
    for keyword, pattern in _patterns(node):
        problem = pattern_problem(pattern)
        if problem is not None:
            raise SchemaError(f"{here}: {keyword} {pattern!r:.200} is not a regular expression: {problem}")
    required = node.get("required")
    if node.get("additionalProperties") is False and isinstance(required, list):
        known = node.get("properties", {})
        for name in required:
            if name not in known and not _matches_one(node, name, here):
                near = difflib.get_close_matches(name, known, n=1)
                raise SchemaError(
                    f"{here}: {name!r} is required, but additionalProperties is false and properties has no {name!r}, "
                    "so no answer can be valid"
                    + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'none'}")
                )
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        bound = node.get(key)
        if isinstance(bound, float) and not math.isfinite(bound):
            raise SchemaError(f"{here}: {key} is infinite; remove it")


def _matches_one(node: Node, name: str, here: str) -> bool:
    try:
        return any(found(pattern, name) for pattern in node.get("patternProperties", {}))
    except TooMuchWork as problem:
        raise SchemaError(f"{here}: {problem}") from None


def _check_ref(root: Node, node: Node, path: tuple[str | int, ...]) -> None:
    ref = node["$ref"]
    if not isinstance(ref, str):
        raise SchemaError(f"{pointer(path)}: $ref is a string such as #/$defs/NAME, not {ref!r:.80}")
    try:
        resolve(root, ref)
    except SchemaError as error:
        raise SchemaError(f"{pointer(path)}: {error}") from None


def _has_ref(node: Node) -> bool:
    return any("$ref" in inner for _, inner in walk(node))


def _patterns(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(node.get("pattern"), str):
        yield "pattern", node["pattern"]
    for pattern in node.get("patternProperties", {}):
        yield "patternProperties", pattern


def _check_cycles(root: Node) -> None:
    """A ``$ref`` that leads back to itself without an object or a list in between describes nothing."""

    def visit(node: Any, trail: tuple[int, ...], path: tuple[str | int, ...]) -> None:
        if not isinstance(node, Mapping) or id(node) in done:
            return
        if id(node) in trail:
            raise SchemaError(f"{pointer(path)}: its $ref leads back to itself, so it describes nothing")
        trail = (*trail, id(node))
        if "$ref" in node:
            visit(resolve(root, node["$ref"])[0], trail, path)
        if "$ref" not in node or not refs_stand_alone(root):
            for key in ("allOf", "anyOf", "oneOf"):
                for branch in node.get(key, ()):
                    visit(branch, trail, path)
        done.add(id(node))

    done: set[int] = set()
    for path, node in walk(root):
        visit(node, (), path)


def _check_unevaluated(root: Node) -> None:
    """jsonschema searches these patterns without headrace's time limit."""
    nodes = list(reachable(root))
    place = next((path for path, node in nodes if "unevaluatedProperties" in node), None)
    if place is not None and any("patternProperties" in node for _, node in nodes):
        raise SchemaError(
            f"{pointer(place)}: unevaluatedProperties cannot be checked in a schema with patternProperties; write "
            "additionalProperties"
        )


def _check_extent(root: Node) -> None:
    """Refuse schemas that take forever to read as a whole."""
    finite = heights(root)
    endless = next((path for path, node in reachable(root) if id(node) not in finite), None)
    if endless is not None:
        raise SchemaError(
            f"{pointer(endless)}: every value of it must contain another such value, without end; leave a property out "
            "of required, or let it be null"
        )
    for places, (depth, _) in enumerate(unfold(root), 1):
        if depth > MAX_NESTING:
            raise SchemaError(
                f"/: through its $refs the schema is nested deeper than {MAX_NESTING} levels, which no grammar supports"
            )
        if places > MAX_PLACES:
            raise SchemaError(
                f"/: through its $refs the schema has more than {MAX_PLACES:,} places for a value; ask for fewer fields"
            )


def _wrong(message: str) -> str:
    if "is not valid under any of the given schemas" in message or "is not of type 'object', 'boolean'" in message:
        return f"{message.split(' is not ', maxsplit=1)[0][:80]} is not allowed here by JSON Schema"
    return message if len(message) <= 300 else message[:297] + "..."
