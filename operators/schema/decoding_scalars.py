"""Scalars of a decoding schema: what llguidance supports of a string or a number, with bounds added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headrace.operators.schema.bounds import DECIMALS, DEFAULT_MAX_LENGTH, DEFAULT_MAX_NUMBER, MAX_LEAST
from headrace.operators.schema.nodes import Node, SchemaError, SchemaPath, pointer
from headrace.operators.schema.patterns import bounded, decodes
from headrace.operators.schema.quotes import QUOTE, bounds_of

INT_MIN, INT_MAX = -(2**63) + 1024, 2**63 - 1
"""Integers of 64 bits. llguidance reads a bound as a double and fails at the lowest one."""

MAX_STEP = 2**32
"""``multipleOf`` in units of its last decimal place must be below this."""

GRAMMAR_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
)
"""Formats that llguidance 1.7 knows; it refuses others."""


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
    """A string with its format, pattern and lengths."""
    least = least_of(node, "minLength", path)
    if least > node.get("maxLength", math.inf):
        raise SchemaError(f"{pointer(path)}: minLength {node['minLength']} is above maxLength {node['maxLength']}")
    if bounds_of(node) is not None:
        lengths = {key: node[key] for key in (QUOTE, "minLength", "maxLength") if key in node}
        return Scalar({"type": "string", **lengths})
    if node.get("format") in GRAMMAR_FORMATS:
        lengths = {key: node[key] for key in ("minLength", "maxLength") if key in node}
        kept: dict[str, Any] = {"type": "string", "format": node["format"], **lengths}
    elif "pattern" in node and decodes(node["pattern"]):
        # Not with a length: llguidance refuses both where it takes too long to see whether any text fits.
        kept = {"type": "string", "pattern": bounded(node["pattern"], DEFAULT_MAX_LENGTH)}
    else:
        kept = string_of(node)
    dropped = [key for key in ("format", "pattern", "minLength", "maxLength") if key in node and key not in kept]
    return Scalar(kept, tuple(dropped), "maxLength" in kept and "maxLength" not in node)


def string_of(node: Node) -> dict[str, Any]:
    """A string within the lengths of ``node``, or the default ones."""
    least = int(node.get("minLength", 0))
    most = int(node.get("maxLength", max(DEFAULT_MAX_LENGTH, least)))
    bounds = {"minLength": least, "maxLength": most} if least else {"maxLength": most}
    return {"type": "string", **bounds}


def integer_scalar(node: Node, path: SchemaPath) -> Scalar:
    """An integer of 64 bits."""
    low, high, open_low, open_high = _range(node)
    least = INT_MIN if low == -math.inf else math.floor(low) + 1 if open_low else math.ceil(low)
    most = INT_MAX if high == math.inf else math.ceil(high) - 1 if open_high else math.floor(high)
    least, most = max(least, INT_MIN), min(most, INT_MAX)
    if least > most:
        raise SchemaError(f"{pointer(path)}: there is no 64-bit integer between minimum and maximum")
    return _in_steps({"type": "integer", "minimum": least, "maximum": most}, node, None)


def number_scalar(node: Node, path: SchemaPath) -> Scalar:
    """A number within its bounds, or the default ones; from 0 on with a limited number of decimal places."""
    low, high, open_low, open_high = _range(node)
    if low > high:
        raise SchemaError(f"{pointer(path)}: minimum {low} is above maximum {high}")
    if low == high and (open_low or open_high):
        raise SchemaError(f"{pointer(path)}: there is no number between minimum and maximum, which are both {low}")
    given = [bound for bound in (low, high) if math.isfinite(bound)]
    if any(abs(bound) > DEFAULT_MAX_NUMBER or round(bound, DECIMALS) != bound for bound in given):
        # There may be no number of so few decimal places between such bounds.
        keywords = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
        return Scalar({"type": "number"}, tuple(keyword for keyword in keywords if keyword in node))
    within = {
        "type": "number",
        "exclusiveMinimum" if open_low else "minimum": max(low, -DEFAULT_MAX_NUMBER),
        "exclusiveMaximum" if open_high else "maximum": min(high, DEFAULT_MAX_NUMBER),
    }
    return _in_steps(within, node, 10**-DECIMALS)


def _in_steps(within: dict[str, Any], node: Node, default: float | None) -> Scalar:
    """A number that is a multiple: llguidance supports that from 0 on, and so a negative one is decoded without."""
    step = node["multipleOf"] if "multipleOf" in node and _is_decodable(node["multipleOf"]) else default
    low: float = within["minimum"] if "minimum" in within else within["exclusiveMinimum"]
    high: float = within["maximum"] if "maximum" in within else within["exclusiveMaximum"]
    dropped = ("multipleOf",) if "multipleOf" in node and (step is default or low < 0) else ()
    if step is None or high < 0 or (high == 0 and "exclusiveMaximum" in within):
        return Scalar(within, dropped)
    if low >= 0:
        return Scalar({**within, "multipleOf": step}, dropped)
    upper = {key: value for key, value in within.items() if key not in ("minimum", "exclusiveMinimum")}
    lower = {key: value for key, value in within.items() if key not in ("maximum", "exclusiveMaximum")}
    below = {"maximum": -1} if within["type"] == "integer" else {"exclusiveMaximum": 0}
    return Scalar({"anyOf": [{**upper, "minimum": 0, "multipleOf": step}, {**lower, **below}]}, dropped)


def _is_decodable(step: float) -> bool:
    """Whether llguidance takes it, which counts in units of the last decimal place of the double."""
    units: float = step
    while units < MAX_STEP and units != math.floor(units):
        units *= 10
    return units < MAX_STEP


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
