"""Made-up values that are valid for a JSON Schema."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from headrace.operators.schema.document_words import DocumentWords
from headrace.operators.schema.quotes import bounds_of
from headrace.operators.schema.recursion import heights

WORDS = "water wheel mill stone grain river channel weir sluice flour".split()  # noqa: SIM905

DEPTH, VALUES = 4, 500
"""Limits of a made-up value: beyond this many levels, or values, it is as small as possible."""


def instance(
    schema: Any, dice: random.Random, levels: Mapping[int, int] | None = None, document: DocumentWords | None = None
) -> Any:
    """A value that is valid for the common keywords of ``schema``.

    Args:
        levels: the schema's :func:`heights`.
        document: what is quoted where the schema asks for quotes.
    """
    levels = heights(schema) if levels is None and isinstance(schema, Mapping) else levels or {}
    return _Maker(schema, dice, levels, document).value(schema, 0)


@dataclass(slots=True)
class _Maker:
    root: Any
    dice: random.Random
    levels: Mapping[int, int]
    document: DocumentWords | None = None
    made: int = 0

    def value(self, schema: Any, depth: int) -> Any:
        if schema is True or not isinstance(schema, Mapping):
            return None
        self.made += 1
        small = depth > DEPTH or self.made > VALUES
        if "$ref" in schema:
            target = self.root
            for key in schema["$ref"].removeprefix("#").strip("/").split("/"):
                target = target[key.replace("~1", "/").replace("~0", "~")] if key else target
            return self.value(target, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.dice.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                branches = [branch for branch in schema[keyword] if self._possible(branch)]
                least = min(branches, key=lambda branch: self.levels.get(id(branch), -1))
                return self.value(least if small else branches[0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return self._typed(kind[0] if isinstance(kind, list) else kind, schema, depth, small)

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int, small: bool) -> Any:
        if kind == "object":
            names = schema.get("properties", {})
            wanted = set(schema.get("required", [])) if small else set(names)
            there = [name for name in names if name in wanted and self._possible(names[name])]
            return {name: self.value(names[name], depth + 1) for name in there}
        if kind == "array":
            small = small or not self._possible(schema.get("items"))
            count = max(schema.get("minItems", 0), 0 if small else min(schema.get("maxItems", 2), 2))
            return [self.value(schema.get("items", {"type": "string"}), depth + 1) for _ in range(count)]
        if kind == "boolean":
            return self.dice.random() < 0.5
        if kind in ("integer", "number"):
            low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return min(low + self.dice.randrange(10), schema.get("maximum", low + 10))
        if kind == "null":
            return None
        if (bounds := bounds_of(schema)) is not None and self.document is not None:
            return self.dice.choice(list(islice(self.document.shortest(bounds), VALUES)))
        known = {"date": "2026-11-21", "date-time": "2026-11-21T12:00:00Z", "email": "a@example.org"}
        if schema.get("format") in known:
            return known[schema["format"]]
        text = self.dice.choice(WORDS).ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]

    def _possible(self, schema: Any) -> bool:
        """Whether there is a value; there is none if the document has no words for a quote."""
        bounds = bounds_of(schema) if isinstance(schema, Mapping) else None
        return bounds is None or self.document is None or self.document.holds(bounds)
