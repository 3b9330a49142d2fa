"""Quotes in a schema: strings with ``x-quote``, whose values are copied from the document word for word.

``"x-quote": true`` makes a string a quote. ``"x-quote": {"words": [2, 12], "within": "sentence"}`` also bounds its
words and keeps it within a sentence. Everything else a quote needs follows from the schema: what the engine may write
(:mod:`~headrace.operators.schema.quote_grammar`), and where each quote of an answer stands in the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import WithJsonSchema

from headrace.operators.schema.document_words import Bounds, DocumentWords, count_words, crosses_sentences, fold
from headrace.operators.schema.nodes import (
    Node,
    SchemaError,
    SchemaPath,
    fields_of,
    flatten,
    pointer,
    resolve,
    subschemas,
    types,
)
from headrace.operators.schema.not_accepted import NotAccepted
from headrace.operators.schema.recursion import is_recursive, reachable

QUOTE = "x-quote"
"""The keyword."""

Quote = Annotated[str, WithJsonSchema({"type": "string", QUOTE: True})]
"""A string that is quoted from the document, as the type of a field of a pydantic model."""

DEFAULT_WORDS = (1, 25)
"""Words of a quote without bounds: a long sentence."""

MOST_WORDS = 200
"""Most words that a quote may be allowed to have."""

SENTENCE = "sentence"
"""The value of ``within``: the quote does not go on after the end of a sentence."""

_KEYS = {"words", "within"}

CHARACTERS_PER_WORD = 8
"""Characters of a word, for estimates; an English word has 5 letters."""

_CLOSED = ("enum", "const", "format", "pattern")
"""Keywords that say what a string is; a quote is what the document says."""

_UNPLACED = (
    "additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "contentSchema", "dependencies",
    "dependentSchemas", "else", "if", "not", "oneOf", "patternProperties", "prefixItems", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
"""Keywords below which a value has no fixed place. ``anyOf``, ``oneOf`` and ``allOf`` with one shape have one."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """Where the quotes of a value are: the value itself (``bounds``), in named fields, or in each item of a list.

    ``least`` is how many items the list must have.
    """

    bounds: Bounds | None = None
    fields: Mapping[str, Quotes] = field(default_factory=dict)
    items: Quotes | None = None
    least: int = 0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.bounds or self.fields or self.items)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a quote stands: offsets of characters in the document, the end exclusive.

    ``path`` is the field's place in the answer, as in ``parts[0].name``; empty for the answer itself.
    """

    path: str
    start: int
    end: int


def bounds_of(node: Node) -> Bounds | None:
    """The bounds of a string that is a quote; None if it is none."""
    wanted = node.get(QUOTE)
    if not wanted:
        return None
    least, most = wanted.get("words", DEFAULT_WORDS) if isinstance(wanted, Mapping) else DEFAULT_WORDS
    characters = node.get("maxLength")
    return Bounds(
        least,
        most,
        int(node.get("minLength", 0)),
        None if characters is None else int(characters),
        in_sentence=isinstance(wanted, Mapping) and "within" in wanted,
    )


def quotes_of(schema: Node) -> Quotes:
    """The quotes of a checked schema."""
    return Quotes() if is_recursive(schema) else _quotes(schema, schema)


def _quotes(root: Node, schema: Any) -> Quotes:
    flat = flatten(root, schema)
    node = flat.node
    match flat.types:
        case ("string",):
            return Quotes(bounds_of(node))
        case ("array",) if isinstance(node.get("items"), Mapping):
            items = _quotes(root, node["items"])
            return Quotes(items=items, least=int(node.get("minItems", 0))) if items else Quotes()
        case ("object",):
            found = {name: _quotes(root, item) for name, item in fields_of(node).items()}
            return Quotes(fields={name: quotes for name, quotes in found.items() if quotes})
    return Quotes()


def check_quotes(schema: Node) -> None:
    """Refuse quotes that no answer could have, or that have no fixed place in an answer.

    Raises:
        SchemaError: the first one, the JSON pointer to it, and what to do.
    """
    nodes = list(reachable(schema))
    marked = [(path, node) for path, node in nodes if QUOTE in node]
    for path, node in marked:
        _check_keyword(node[QUOTE], (*path, QUOTE))
        if node[QUOTE]:
            _check_string(schema, node, path)
    if not any(node[QUOTE] for _, node in marked):
        return
    if is_recursive(schema):
        raise SchemaError(
            f"{pointer(next(path for path, node in marked if node[QUOTE]))}: {QUOTE} is not possible in a schema that "
            "contains itself; write the levels out, or ask for the quotes in a step of their own"
        )
    for path, node in nodes:
        for key in _UNPLACED:
            inner = node.get(key)
            if inner is None or (key in ("anyOf", "oneOf", "allOf") and not flatten(schema, node).opaque):
                continue
            if any(_holds_quote(schema, item) for item in _schemas_in(inner)):
                raise SchemaError(
                    f"{pointer((*path, key))}: {QUOTE} is not possible below {key}, where a value has no fixed place; "
                    "give the quote a property of its own"
                )


def _check_keyword(value: Any, path: SchemaPath) -> None:
    form = f"{QUOTE} is true, false, or a mapping with words: [LEAST, MOST], within: sentence, or both"
    if isinstance(value, bool):
        return
    if not isinstance(value, Mapping):
        raise SchemaError(f"{pointer(path)}: {form}, not {value!r:.80}")
    if not value or not value.keys() <= _KEYS:
        raise SchemaError(f"{pointer(path)}: {form}; its keys are {', '.join(map(repr, value)) or 'none'}")
    if value.get("within", SENTENCE) != SENTENCE:
        raise SchemaError(f"{pointer((*path, 'within'))}: within is {SENTENCE!r}, not {value['within']!r:.80}")
    words = value.get("words", list(DEFAULT_WORDS))
    whole = isinstance(words, list) and len(words) == 2 and all(type(each) is int for each in words)
    if not whole:
        raise SchemaError(f"{pointer((*path, 'words'))}: words is a list of two whole numbers, not {words!r:.80}")
    least, most = words
    if not 1 <= least <= most <= MOST_WORDS:
        raise SchemaError(
            f"{pointer((*path, 'words'))}: no quote has {least} to {most} words; the first number is at least 1, the "
            f"second at least as much, and at most {MOST_WORDS}"
        )


def _check_string(root: Node, node: Node, path: SchemaPath) -> None:
    flat = flatten(root, node)
    if flat.opaque or flat.types != ("string",):
        kinds = " or ".join(flat.types) or "any value"
        raise SchemaError(f"{pointer(path)}: only a string can be quoted, and this is {kinds}; add type: string")
    beside = next((key for key in _CLOSED if key in flat.node), None)
    if beside is not None:
        raise SchemaError(
            f"{pointer(path)}: {QUOTE} and {beside} exclude each other: a quote is what the text says; remove one"
        )


def _schemas_in(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, Mapping):
        yield value
        yield from value.values()


def _holds_quote(root: Node, schema: Any) -> bool:
    pending, seen = [schema], set[int]()
    while pending:
        item = pending.pop()
        if not isinstance(item, Mapping) or id(item) in seen:
            continue
        seen.add(id(item))
        if item.get(QUOTE):
            return True
        pending.extend(inner for _, inner in subschemas(item))
        if isinstance(item.get("$ref"), str):
            pending.append(resolve(root, item["$ref"])[0])
    return False


def quote_all(schema: Any) -> Any:
    """The schema with its strings as quotes, except those that ``enum``, ``const``, format or pattern describe."""
    return _quote_all(schema) if isinstance(schema, Mapping) else schema


def _quote_all(node: Node) -> dict[str, Any]:
    result: dict[str, Any] = dict(node)
    kinds = set(types(node)) - {"null"}
    if kinds == {"string"} and QUOTE not in node and not any(key in node for key in _CLOSED):
        result[QUOTE] = True
    for key in ("properties", "$defs", "definitions"):
        if isinstance(node.get(key), Mapping):
            result[key] = {name: quote_all(item) for name, item in node[key].items()}
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(node.get(key), list):
            result[key] = [quote_all(item) for item in node[key]]
    if isinstance(node.get("items"), Mapping):
        result["items"] = _quote_all(node["items"])
    return result


def without_quotes(schema: Any) -> Any:
    """The schema without the keyword, for engines that do not know it."""
    if isinstance(schema, Mapping):
        return {key: without_quotes(item) for key, item in schema.items() if key != QUOTE or not _is_keyword(item)}
    return [without_quotes(item) for item in schema] if isinstance(schema, list) else schema


def _is_keyword(value: Any) -> bool:
    """Whether this is the keyword's value, and not the schema of a property with its name."""
    return isinstance(value, bool) or (isinstance(value, Mapping) and len(value) > 0 and value.keys() <= _KEYS)


def place_quotes(value: Any, quotes: Quotes, document: DocumentWords) -> tuple[Any, list[Span]]:
    """An answer with its quotes as the document writes them, and where each stands.

    The place is the first one. Items of a list stand one after another if they can; one that only repeats another is
    left out, unless the list would be too short then.

    Raises:
        NotAccepted: a quote is not in the document, or has too few or too many words.
    """
    spans: list[Span] = []
    return _placed(value, quotes, document, "", spans, 0), spans


def _placed(value: Any, quotes: Quotes, document: DocumentWords, path: str, spans: list[Span], after: int) -> Any:
    if quotes.bounds is not None and isinstance(value, str):
        span = _span(value, quotes.bounds, document, path, after)
        spans.append(span)
        return document.text[span.start : span.end]
    if quotes.items is not None and isinstance(value, list):
        return _placed_items(value, quotes, quotes.items, document, path, spans, after)
    if quotes.fields and isinstance(value, Mapping):
        names = {name: f"{path}.{name}" if path else name for name in value}
        return {
            name: _placed(item, quotes.fields[name], document, names[name], spans, after)
            if name in quotes.fields
            else item
            for name, item in value.items()
        }
    return value


def _placed_items(
    value: list[Any], quotes: Quotes, item: Quotes, document: DocumentWords, path: str, spans: list[Span], after: int
) -> list[Any]:
    found: list[Any] = []
    there = set[tuple[int, int]]()
    for left, each in zip(range(len(value), 0, -1), value, strict=True):
        own: list[Span] = []
        placed = _placed(each, item, document, f"{path}[{len(found)}]", own, after)
        places = {(span.start, span.end) for span in own}
        if item.bounds is not None and places & there and len(found) + left > quotes.least:
            continue
        found.append(placed)
        spans += own
        there |= places
        after = max([after, *(span.end for span in own)])
    return found


def _span(value: str, bounds: Bounds, document: DocumentWords, path: str, after: int) -> Span:
    where = f"{path}: " if path else ""
    shown = value if len(value) <= 80 else value[:77] + "..."
    found = document.find(value, after) or document.find(value)
    if found is None:
        rule = "is not in the text"
        raise NotAccepted(f"{where}{shown!r} {rule}; copy words that stand there, side by side", rule)
    words = count_words(fold(value)) or 0
    if not bounds.least <= words <= bounds.most:
        rule = "has too few words" if words < bounds.least else "has too many words"
        raise NotAccepted(f"{where}{shown!r} {rule} ({words}, not {bounds.least} to {bounds.most})", rule)
    if bounds.in_sentence and crosses_sentences(value):
        rule = "goes on after the end of a sentence"
        raise NotAccepted(f"{where}{shown!r} {rule}", rule)
    return Span(path, *found)
