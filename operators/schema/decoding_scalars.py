"""Scalars of a decoding schema: what xgrammar supports of a string or a number, with bounds added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headrace.operators.schema.nodes import Node, SchemaError, SchemaPath, pointer
from headrace.operators.schema.patterns import grammar_pattern
from headrace.operators.schema.quotes import QUOTE, bounds_of

DEFAULT_MAX_LENGTH = 120
"""Characters of a string without a bound: a sentence, the usual field of an extraction. xgrammar 0.2.8 compiles a bound
up to 128 in 1.6 s of one core and any longer one in 2.7 s. Under a bound of either kind it writes no escapes, so such a
string contains no quote, backslash or newline."""

MAX_LEAST = 10_000
"""The highest minimum of items, properties or characters that a schema may set: no answer holds more."""

DEFAULT_MAX_NUMBER = 1e15
"""With both bounds xgrammar writes plain decimals of at most six places; without, ``1.3333...`` never ends. This is the
largest power of ten that a double, and its neighbours, hold exactly."""

DECIMALS = 6
"""Decimal places that xgrammar writes under a bound."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

LEAST_INTEGER = -(10**18)
"""llguidance 1.7 cannot write the regular expression of a range that begins at the least integer of 64 bits."""

GRAMMAR_FORMATS = frozenset(
    {
        "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer",
        "relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid",
    }
)  # fmt: skip
"""``STRING_SUPPORTED_FORMATS`` of vLLM 0.32's xgrammar backend."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """The decoding schema of a string or a number.

    Attributes:
        dropped: keywords that only the final check enforces.
        bounded: whether it has a bound that the user did not set.
    """

    schema: dict[str, Any]
    dropped: tuple[str, ...] = ()
    bounded: bool = False


def string_scalar(node: Node, path: SchemaPath) -> Scalar:
    """A string with one of format, pattern and length: vLLM refuses two together, and xgrammar would ignore one."""
    if bounds_of(node) is not None:
        _check_lengths(node, path)
        return Scalar(
            {"type": "string", **{key: node[key] for key in (QUOTE, "minLength", "maxLength") if key in node}}
        )
    pattern = grammar_pattern(node["pattern"]) if "pattern" in node else None
    bounded = False
    if node.get("format") in GRAMMAR_FORMATS:
        kept: dict[str, Any] = {"type": "string", "format": node["format"]}
    elif pattern is not None:
        kept = {"type": "string", "pattern": pattern}
    else:
        _check_lengths(node, path)
        kept = string_of(node)
        bounded = "maxLength" not in node
    others = ["format", "pattern"]
    if "format" in kept or "pattern" in kept:
        others += ["minLength", "maxLength"]
    return Scalar(kept, tuple(keyword for keyword in others if keyword in node and keyword not in kept), bounded)


def _check_lengths(node: Node, path: SchemaPath) -> None:
    if least_of(node, "minLength", path) > node.get("maxLength", math.inf):
        raise SchemaError(f"{pointer(path)}: minLength {node['minLength']} is above maxLength {node['maxLength']}")


def integer_scalar(node: Node, path: SchemaPath) -> Scalar:
    """An integer of 64 bits."""
    low, high, open_low, open_high = _range(node)
    least = INT64_MIN if low == -math.inf else math.floor(low) + 1 if open_low else math.ceil(low)
    most = INT64_MAX if high == math.inf else math.ceil(high) - 1 if open_high else math.floor(high)
    least, most = max(least, INT64_MIN), min(most, INT64_MAX)
    if least > most:
        raise SchemaError(f"{pointer(path)}: there is no 64-bit integer between minimum and maximum")
    if least < LEAST_INTEGER <= most:
        least = LEAST_INTEGER
    return Scalar({"type": "integer", "minimum": least, "maximum": most})


def number_scalar(node: Node, path: SchemaPath) -> Scalar:
    """A number, within its bounds if xgrammar can write those."""
    low, high, open_low, open_high = _range(node)
    if low > high:
        raise SchemaError(f"{pointer(path)}: minimum {low} is above maximum {high}")
    if low == high and (open_low or open_high):
        raise SchemaError(f"{pointer(path)}: there is no number between minimum and maximum, which are both {low}")
    given = [bound for bound in (low, high) if math.isfinite(bound)]
    if any(abs(bound) > DEFAULT_MAX_NUMBER or round(bound, DECIMALS) != bound for bound in given):
        # The grammar of such a bound may hold no number at all, because it writes six places at most.
        keywords = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        return Scalar({"type": "number"}, tuple(keyword for keyword in keywords if keyword in node))
    return Scalar(
        {
            "type": "number",
            "exclusiveMinimum" if open_low else "minimum": max(low, -DEFAULT_MAX_NUMBER),
            "exclusiveMaximum" if open_high else "maximum": min(high, DEFAULT_MAX_NUMBER),
        }
    )


def string_of(node: Node) -> dict[str, Any]:
    """A string within the lengths of ``node``, or the default ones."""
    least = int(node.get("minLength", 0))
    most = int(node.get("maxLength", max(DEFAULT_MAX_LENGTH, least)))
    bounds = {"minLength": least, "maxLength": most} if least else {"maxLength": most}
    return {"type": "string", **bounds}


def least_of(node: Node, keyword: str, path: SchemaPath) -> int:
    """The value of ``minLength``, ``minItems`` or ``minProperties``.

    Raises:
        SchemaError: no answer could hold that many.
    """
    least = int(node.get(keyword, 0))
    if least > MAX_LEAST:
        raise SchemaError(f"{pointer(path)}: {keyword} {least} is more than any answer holds (at most {MAX_LEAST:,})")
    return least


def _range(node: Node) -> tuple[float, float, bool, bool]:
    """Lower and upper bound, and whether each is excluded; draft 4 writes that as a boolean."""
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    above, below = node.get("exclusiveMinimum", False), node.get("exclusiveMaximum", False)
    open_low, open_high = above is True, below is True
    if not isinstance(above, bool) and above >= low:
        low, open_low = above, True
    if not isinstance(below, bool) and below <= high:
        high, open_high = below, True
    return low, high, open_low, open_high
