"""The grammar of an answer with quotes: the JSON of a decoding schema, where quotes are runs of the document's words.

It is written in llguidance's dialect of Lark. A schema is fixed and the document is not, so there is a grammar for each
document; it compiles in a few milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.operators.schema.document_words import Bounds, DocumentWords
from headrace.operators.schema.nodes import compact
from headrace.operators.schema.quotes import QUOTE, bounds_of

_COMPACT = {"whitespace_flexible": False}


def quote_grammar(schema: Mapping[str, Any], document: DocumentWords) -> str | None:
    """The grammar, as Lark; None if the document has no words for a quote that must be there.

    Args:
        schema: a decoding schema, in which quotes still have their ``x-quote``.
    """
    writer = _Writer(schema, document)
    start = writer.value(schema)
    if start is None:
        return None
    pieces = json.dumps({"substring_chunks": document.escaped()}, ensure_ascii=False)
    quoted = [f"PIECES: %regex {pieces}"] if writer.quotes else []
    return "\n".join([f"start: {start}", *writer.rules, *quoted])


@dataclass(slots=True)
class _Writer:
    """Writes a rule for each part that contains a quote; the rest stays JSON Schema."""

    root: Mapping[str, Any]
    document: DocumentWords
    rules: list[str] = field(default_factory=list)
    quotes: dict[Bounds, str | None] = field(default_factory=dict)
    _named: dict[str, str | None] = field(default_factory=dict)

    def value(self, node: Any) -> str | None:
        """What generates the values of a node; None if there are none."""
        if not isinstance(node, Mapping) or not self._has_quote(node):
            return f"%json {compact({'x-guidance': _COMPACT, **self._defs(), **_as_mapping(node)})}"
        if "$ref" in node:
            return self._ref(node["$ref"])
        if "anyOf" in node:
            branches = [found for branch in node["anyOf"] if (found := self.value(branch)) is not None]
            return self._rule(" | ".join(branches)) if branches else None
        if node["type"] == "array":
            return self._array(node)
        if node["type"] == "object":
            return self._object(node)
        return self._quote(node)

    def _defs(self) -> dict[str, Any]:
        return {"$defs": self.root["$defs"]} if "$defs" in self.root else {}

    def _has_quote(self, node: Any, seen: frozenset[str] = frozenset()) -> bool:
        if not isinstance(node, Mapping):
            return isinstance(node, list) and any(self._has_quote(item, seen) for item in node)
        if node.get("type") == "string":
            return bool(node.get(QUOTE))
        ref = node.get("$ref")
        if isinstance(ref, str):
            return ref not in seen and self._has_quote(self._target(ref), seen | {ref})
        held = [node.get("items"), *node.get("anyOf", ()), *node.get("properties", {}).values()]
        return any(self._has_quote(item, seen) for item in held)

    def _target(self, ref: str) -> Any:
        return self.root["$defs"][ref.rsplit("/", 1)[-1]]

    def _ref(self, ref: str) -> str | None:
        if ref not in self._named:
            self._named[ref] = self.value(self._target(ref))
        return self._named[ref]

    def _quote(self, node: Mapping[str, Any]) -> str | None:
        bounds = bounds_of(node)
        assert bounds is not None
        if bounds not in self.quotes:
            name = f"QUOTE_{len(self.quotes)}" if self.document.holds(bounds) else None
            self.quotes[bounds] = name
            if name is not None:
                self.rules.append(f"{name}: PIECES & {self.document.pattern(bounds)}")
        name = self.quotes[bounds]
        return None if name is None else self._rule(f'"\\"" {name} "\\""')

    def _array(self, node: Mapping[str, Any]) -> str | None:
        item, least, most = self.value(node["items"]), node.get("minItems", 0), node["maxItems"]
        if item is None or most == 0:
            return None if least else '"[]"'
        more = f' ("," {item}){{{max(least - 1, 0)},{most - 1}}}' if most > 1 else ""
        return self._rule(f'"[" {item}{more} "]"' + ("" if least else ' | "[]"'))

    def _object(self, node: Mapping[str, Any]) -> str | None:
        """The properties in their order; ``rest`` are those from here on, after a first one and before one."""
        required = node.get("required", ())
        first = more = '"}"'
        for name, item in reversed(node.get("properties", {}).items()):
            found = self.value(item)
            if found is None:
                if name in required:
                    return None
                continue
            key = compact(name) + ":"
            begun, goes_on = f"{_literal(key)} {found} {more}", f"{_literal(',' + key)} {found} {more}"
            if name not in required:
                begun, goes_on = f"{begun} | {first}", f"{goes_on} | {more}"
            first, more = self._rule(begun), self._rule(goes_on)
        return self._rule(f'"{{" {first}')

    def _rule(self, body: str) -> str:
        name = f"part_{len(self.rules)}"
        self.rules.append(f"{name}: {body}")
        return name


def _as_mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
