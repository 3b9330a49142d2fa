"""A schema in words, for the prompt: a small model follows a list of fields, but is confused by JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.operators.schema.nodes import MEANS, Node, SchemaError, compact, fields_of, flatten, is_record
from headrace.operators.schema.quotes import bounds_of
from headrace.operators.schema.recursion import is_recursive

DESCRIPTION_LIMIT = 4000
"""Characters, about 1,000 tokens. A longer header costs every layout more than its last details are worth."""

_DETAIL = ((8, 300), (8, 80), (3, 80), (2, 40), (1, 40), (1, 0))
"""Depth of nesting and length of each description: the first pair that fits the limit is used."""

_WHOLE = ((64, 300), (64, 80), (64, 0))
"""The same if every line is needed; 64 is as deep as a schema may be."""

LINE_FIELDS = 12
"""Fields that a line may name; more are easier to read as a list."""

_SAID = ("const", "description", "enum", "format", "pattern")
"""Keywords of a text that the prompt has to say."""

_NOISE = ("$schema", "$id", "id", "$comment", "title", "examples", "default")


def describe(schema: Node, root: Node | None = None, *, whole: bool = False) -> str:
    """One line for each property, nested ones indented; compact JSON Schema if the schema is recursive.

    Bounded by :data:`DESCRIPTION_LIMIT`: a big schema loses long descriptions first, then depth, then its last lines;
    with ``whole`` only descriptions. ``root`` is the schema that references point into, if it is another one.

    Raises:
        SchemaError: it is too big to be described as a ``whole``.
    """
    root = schema if root is None else root
    if is_recursive(root):
        text = compact(_quiet(schema))
        if len(text) <= DESCRIPTION_LIMIT:
            return text
    text = ""
    for depth, words in _WHOLE if whole else _DETAIL:
        text = "\n".join(_lines(root, schema, "", depth, words, frozenset())) or _form(root, schema)
        if len(text) <= DESCRIPTION_LIMIT:
            return text
    if whole:
        raise SchemaError(f"/: a line for each property takes {len(text)} characters, at most {DESCRIPTION_LIMIT}")
    kept = text[: DESCRIPTION_LIMIT - 40].rsplit("\n", 1)[0]
    return f"{kept}\n- and {text.count(chr(10)) - kept.count(chr(10))} more"


def in_a_line(schema: Node, root: Node | None = None) -> str | None:
    """The names of the fields of a flat record of texts and lists of texts; None if there is more to say of a field.

    Types and bounds are left out, for an engine that decodes under them anyway: they lead a small model astray. Beside
    a description they keep it from copying the description, so a record with descriptions is not put in a line.
    """
    root = schema if root is None else root
    node = flatten(root, schema).node
    fields = fields_of(node)
    if not 0 < len(fields) <= LINE_FIELDS or MEANS in node or not is_record(node):
        return None
    return ", ".join(fields) if all(_is_text(root, item) for item in fields.values()) else None


def _is_text(root: Node, schema: Any) -> bool:
    """Whether a value is text, or a list of texts, of which there is nothing to say."""
    flat = flatten(root, schema)
    if any(key in flat.node for key in _SAID):
        return False
    if flat.types == ("array",) and isinstance(flat.node.get("items"), Mapping):
        return flatten(root, flat.node["items"]).types == ("string",) and _is_text(root, flat.node["items"])
    return flat.types == ("string",)


def _quiet(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _quiet(item) for key, item in value.items() if key not in _NOISE or not isinstance(item, str)}
    return [_quiet(item) for item in value] if isinstance(value, list) else value


def _lines(root: Node, schema: Any, indent: str, depth: int, words: int, above: frozenset[int]) -> Iterator[str]:
    """The properties of an object, or of the objects that a list holds."""
    flat = flatten(root, schema)
    if depth == 0 or flat.ids & above:
        return
    node, inside = flat.node, above | flat.ids
    if flat.types == ("array",) and isinstance(node.get("items"), Mapping):
        yield from _lines(root, node["items"], indent, depth, words, inside)
        return
    for name, item in fields_of(node).items():
        field = flatten(root, item)
        label = f"{name} = {node[MEANS][name]}" if MEANS in node else name
        optional = "" if name in node.get("required", ()) else ", optional"
        about = " ".join(str(field.node.get("description", "")).split())
        if len(about) > words:
            about = about[: words - 3].rstrip() + "..." if words else ""
        yield f"{indent}- {label} ({_form(root, item)}{optional})" + (f": {about}" if about else "")
        yield from _lines(root, item, indent + "  ", depth - 1, words, inside)


def _form(root: Node, schema: Any) -> str:
    """The type of a value with its bounds, in a few words."""
    flat = flatten(root, schema)
    node = flat.node
    null = " or null" if flat.nullable else ""
    if "enum" in node or "const" in node:
        return _options(node) + null
    for key in ("anyOf", "oneOf"):
        if key in node:
            return " or ".join(dict.fromkeys(_kind(root, branch) for branch in node[key])) + null
    return _kind(root, schema) + null


def _kind(root: Node, schema: Any) -> str:
    flat = flatten(root, schema)
    node = flat.node
    if "enum" in node or "const" in node:
        return _options(node)
    match flat.types:
        case ("string",) if bounds_of(node) is not None:
            return "phrase copied from the text"
        case ("string",):
            form = {"date": "date, YYYY-MM-DD", "date-time": "date and time, ISO 8601"}.get(
                str(node.get("format")), f"string, {node['format']}" if "format" in node else "string"
            )
            if "pattern" in node:
                form += f" that matches {node['pattern']}"
            return form + _bounds(node, "minLength", "maxLength", "characters")
        case ("integer" | "number",):
            return flat.types[0] + _bounds(node, "minimum", "maximum", "")
        case ("array",):
            items = node.get("items")
            inner = f" of {_several(root, items)}" if isinstance(items, Mapping) and not _loops(root, items) else ""
            return "list" + inner + _bounds(node, "minItems", "maxItems", "items")
        case ("object",):
            return "object" if is_record(node) or "additionalProperties" not in node else "object, any keys"
        case ():
            return "any value"
    return " or ".join(flat.types)


def _several(root: Node, schema: Any) -> str:
    quoted = bounds_of(flatten(root, schema).node) is not None
    return "phrases copied from the text" if quoted else _kind(root, schema)


def _options(node: Node) -> str:
    """The values of an ``enum`` or ``const``; all of them if they are letters that mean nothing by themselves."""
    if MEANS in node:
        return " | ".join(f"{compact(code)} = {compact(value)}" for code, value in node[MEANS].items())
    options = node["enum"] if "enum" in node else [node["const"]]
    shown = " | ".join(compact(option) for option in options[:20])
    return shown + (" | ..." if len(options) > 20 else "")


def _loops(root: Node, schema: Any) -> bool:
    """Whether lists of lists lead back to themselves, which no words can spell out."""
    seen: set[int] = set()
    while isinstance(schema, Mapping):
        flat = flatten(root, schema)
        if flat.ids & seen:
            return True
        seen |= flat.ids
        schema = flat.node.get("items") if flat.types == ("array",) else None
    return False


def _bounds(node: Node, low: str, high: str, unit: str) -> str:
    least, most = node.get(low), node.get(high)
    unit = f" {unit}" if unit else ""
    if least and most is not None:
        return f", {least} to {most}{unit}" if least != most else f", {least}{unit}"
    if most is not None:
        return f", at most {most}{unit}"
    if least or (least is not None and not unit):
        return f", at least {least}{unit}"
    return ""
