"""Reading an answer: strict JSON, then every rule of the schema, whatever the grammar could hold of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from jsonschema import ValidationError
from jsonschema.exceptions import best_match

from headrace.operators.schema.bounded import BoundedValidator
from headrace.operators.schema.nodes import compact

MAX_ANSWER_DEPTH = 100
"""Levels of lists and objects in an answer: what reads it after this walks down level by level, within Python's own
limit."""

SHOWN = 80
"""How much of a wrong value a message quotes: enough to recognise it, short enough to go back to the model."""

_TOO_DEEP = f"the JSON is nested too deep (at most {MAX_ANSWER_DEPTH} levels)"

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """Parse one JSON value and nothing else.

    Stricter than :func:`json.loads` where that would let through what a table cannot hold (NaN, Infinity, 1e999, half
    of a surrogate pair, nesting without end) or what hides an answer (a key twice).

    Raises:
        ValueError: the text is not such a value; one sentence that says why.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_real
    )
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise ValueError(f"there is more text after the JSON value: {_shown(text[error.pos :])}") from None
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_ANSWER_DEPTH and _depth(value) > MAX_ANSWER_DEPTH:
        raise ValueError(_TOO_DEEP)
    if (_SURROGATE.search(text) or "\\u" in text) and (problem := half_character(value)):
        raise ValueError(problem)
    return value


def half_character(value: Any) -> str | None:
    """What is wrong with a string anywhere in ``value`` that cannot be written; None if all can."""
    half = next((string for string in _strings(value) if _SURROGATE.search(string)), None)
    return half and f"the string {_shown(half)} holds half of a surrogate pair, which is no character"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"the key {_shown(twice)} is there twice")
    return result


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own limit, 4,300 digits
        raise ValueError(f"a number has more digits than can be read: {digits[:20]}...") from None


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is beyond what a 64-bit float can hold")
    return number


def _depth(value: Any) -> int:
    """Levels of lists and objects; 0 for anything else."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (list, dict))]:
        level = [inner for item in level for inner in (item if isinstance(item, list) else item.values())]
        depth += 1
    return depth


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _strings(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, str) and _SURROGATE.search(value) else repr(value)
    if not isinstance(value, str):
        text = compact(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


@dataclass(frozen=True, slots=True)
class Validator:
    """Checks values against a schema of any draft, formats included."""

    _validator: BoundedValidator

    @classmethod
    def compile(cls, schema: Mapping[str, Any]) -> Validator:
        """Prepare a schema that :func:`~headrace.operators.schema.schemas.check_schema` let through."""
        return cls(BoundedValidator.of(schema))

    def __reduce__(self) -> tuple[Any, ...]:
        # What jsonschema builds cannot be pickled, and a step travels to the worker that runs it.
        return Validator.compile, (self._validator.schema,)

    def problem(self, value: Any, where: str = "") -> str | None:
        """What is wrong with a value, in one sentence for the model and for people; None if it is valid.

        ``where`` is what the value is called, the first part of the place in the sentence.

        Raises:
            TooMuchWork: that cannot be told within bounds.
        """
        error = best_match(self._validator.errors(value))
        return None if error is None else _sentence(error, where)


def _sentence(error: ValidationError, place: str) -> str:
    for part in error.absolute_path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    what = _what(error)
    return f"{place}: {what}" if place else what


def _what(error: ValidationError) -> str:
    value: Any = error.instance
    rule: Any = error.validator_value
    shown = _shown(value)
    match error.validator:
        case "maxLength":
            return f"{shown} is too long (at most {rule} characters)"
        case "minLength":
            return f"{shown} is too short (at least {rule} characters)"
        case "maxItems":
            return f"the list has {len(value)} items (at most {rule})"
        case "minItems":
            return f"the list has {len(value)} items (at least {rule})"
        case "enum":
            return f"{shown} is not one of {', '.join(_shown(option) for option in rule[:20])}"
        case "const":
            return f"{shown} is not {_shown(rule)}"
        case "type":
            names = rule if isinstance(rule, list) else [rule]
            return f"{shown} is not of type {' or '.join(names)}"
        case "format":
            return f"{shown} is not a valid {rule}"
        case "pattern":
            return f"{shown} does not match {rule}"
        case "required":
            missing = [name for name in rule if name not in value] if isinstance(rule, list) else []
            return f"{', '.join(map(repr, missing)) or error.message} is missing"
        case "additionalProperties" if rule is False and isinstance(error.schema, Mapping):
            extra = [name for name in value if name not in error.schema.get("properties", {})]
            known = ", ".join(error.schema.get("properties", {})) or "none"
            return f"{', '.join(map(_shown, extra))} must not be there (the properties are {known})"
        case "minimum" | "exclusiveMinimum" if not isinstance(rule, bool):
            return f"{shown} is too small ({'at least' if error.validator == 'minimum' else 'more than'} {rule})"
        case "maximum" | "exclusiveMaximum" if not isinstance(rule, bool):
            return f"{shown} is too big ({'at most' if error.validator == 'maximum' else 'less than'} {rule})"
        case "multipleOf":
            return f"{shown} is not a multiple of {rule}"
        case "uniqueItems":
            return f"the list {shown} holds an item twice"
        case "anyOf":
            return f"{shown} fits none of the forms that the schema allows"
        case "oneOf":
            return f"{shown} does not fit exactly one of the forms that the schema allows"
        case "not":
            return f"{shown} is what the schema forbids"
    return error.message if len(error.message) <= 3 * SHOWN else error.message[: 3 * SHOWN - 3] + "..."
