"""How many tokens an answer of a schema may take: the default of ``max_tokens``."""

from __future__ import annotations

import math
from typing import Any

from headrace.operators.schema.bounds import DEFAULT_MAX_ITEMS, DEFAULT_MAX_LENGTH, KEY_LENGTH
from headrace.operators.schema.nodes import Node, compact, fields_of, flatten, is_record
from headrace.operators.schema.quotes import CHARACTERS_PER_WORD, bounds_of

CHARACTERS_PER_TOKEN = 3
"""English has about 4; other languages, numbers and JSON's quotes bring it down."""

MIN_ANSWER_TOKENS, MAX_ANSWER_TOKENS = 32, 1024


def max_answer_tokens(schema: Node, root: Node | None = None) -> int:
    """An upper estimate of the tokens of one answer, from the schema's bounds or the default ones.

    Between :data:`MIN_ANSWER_TOKENS` and :data:`MAX_ANSWER_TOKENS`: a schema that allows more is cut there, unless the
    step sets ``max_tokens``. ``root`` is the schema that references point into, if it is another one.
    """
    characters = _characters(schema if root is None else root, schema, frozenset())
    return min(max(math.ceil(characters / CHARACTERS_PER_TOKEN), MIN_ANSWER_TOKENS), MAX_ANSWER_TOKENS)


_ENOUGH = MAX_ANSWER_TOKENS * CHARACTERS_PER_TOKEN
_NUMBER_LENGTH = 20
_FORMAT_LENGTH = {"date": 12, "date-time": 34, "time": 20, "uuid": 38, "ipv4": 17, "ipv6": 41, "duration": 24}


def _characters(root: Node, schema: Any, above: frozenset[int]) -> int:
    flat = flatten(root, schema)
    if flat.ids & above:
        return _ENOUGH
    node, inside = flat.node, above | flat.ids
    if "enum" in node or "const" in node:
        return max(len(compact(v)) for v in (node["enum"] if "enum" in node else [node["const"]]))
    for key in ("anyOf", "oneOf"):
        if key in node:
            return max(_characters(root, branch, inside) for branch in node[key])
    return max((_of_type(root, kind, node, inside) for kind in flat.types), default=DEFAULT_MAX_LENGTH)


def _of_type(root: Node, kind: str, node: Node, inside: frozenset[int]) -> int:
    match kind:
        case "string" if (quote := bounds_of(node)) is not None:
            return min(quote.most * CHARACTERS_PER_WORD + 2, _ENOUGH)
        case "string":
            most = node.get("maxLength", max(DEFAULT_MAX_LENGTH, node.get("minLength", 0)))
            return min(int(_FORMAT_LENGTH.get(str(node.get("format")), most + 2)), _ENOUGH)
        case "integer" | "number":
            return _NUMBER_LENGTH
        case "array":
            items = node.get("prefixItems", node.get("items"))
            if isinstance(items, list):
                return min(2 + sum(_characters(root, item, inside) + 1 for item in items), _ENOUGH)
            most = node.get("maxItems", max(DEFAULT_MAX_ITEMS, node.get("minItems", 0)))
            return int(min(2 + most * (_characters(root, items, inside) + 1), _ENOUGH))
        case "object":
            total = 2
            for name, item in fields_of(node).items():
                total += len(compact(name)) + 2 + _characters(root, item, inside)
                if total >= _ENOUGH:
                    return _ENOUGH
            if not is_record(node):
                others = node.get("additionalProperties", next(iter(node.get("patternProperties", {}).values()), {}))
                most = node.get("maxProperties", max(DEFAULT_MAX_ITEMS, node.get("minProperties", 0)))
                if others is not False:
                    total += most * (KEY_LENGTH // 4 + 4 + _characters(root, others, inside))
            return int(min(total, _ENOUGH))
    return 6
