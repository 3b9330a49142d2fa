"""Reading an answer: strict JSON, then every rule of the schema, whether or not the grammar enforced it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from headrace.operators.schema.bounded import BoundedValidator
from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import compact
from headrace.operators.schema.not_accepted import NotAccepted

if TYPE_CHECKING:
    import jsonschema
else:
    jsonschema = LazyModule("jsonschema")

MAX_ANSWER_DEPTH = 100
"""Levels of lists and objects in an answer: the code that reads it afterwards recurses level by level, within Python's
own limit."""

SHOWN = 80
"""How much of a wrong value a message quotes: enough to recognise it, short enough to send back to the model."""

_TOO_DEEP = "the JSON is nested too deep"

_HALF_CHARACTER = "half of a surrogate pair"

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """Parse one JSON value and nothing else.

    Stricter than :func:`json.loads`: refuses what a table cannot hold (NaN, Infinity, 1e999, half of a surrogate pair,
    endless nesting) and what hides an answer (a duplicate key).

    Raises:
        NotAccepted: the text is not such a value; one sentence says why.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_real
    )
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            rest = _shown(text[error.pos :])
            raise NotAccepted(f"there is more text after the JSON value: {rest}", "more text after it") from None
        raise NotAccepted(f"{error.msg} at character {error.pos + 1}", "it cannot be parsed") from None
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > MAX_ANSWER_DEPTH and _depth(value) > MAX_ANSWER_DEPTH:
        raise _too_deep()
    if _SURROGATE.search(text) or "\\u" in text:
        check_characters(value)
    return value


def _too_deep() -> NotAccepted:
    return NotAccepted(f"{_TOO_DEEP} (at most {MAX_ANSWER_DEPTH} levels)", _TOO_DEEP)


def check_characters(value: Any) -> None:
    """Check that every string in ``value`` can be written.

    Raises:
        NotAccepted: one cannot.
    """
    half = next((string for string in _strings(value) if _SURROGATE.search(string)), None)
    if half is not None:
        what = f"the string {_shown(half)} contains {_HALF_CHARACTER}, which is not a character"
        raise NotAccepted(what, _HALF_CHARACTER)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise NotAccepted(f"duplicate key {_shown(twice)}", "duplicate key")
    return result


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own limit, 4,300 digits
        rule = "a number has more digits than can be read"
        raise NotAccepted(f"{rule}: {digits[:20]}...", rule) from None


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        rule = "is beyond what a 64-bit float can hold"
        raise NotAccepted(f"the number {digits[:40]} {rule}", rule)
    return number


def _depth(value: Any) -> int:
    """Levels of lists and objects; 0 for anything else."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (list, dict))]:
        level = [inner for item in level for inner in (item if isinstance(item, list) else item.values())]
        depth += 1
    return depth


def _refuse_constant(name: str) -> NoReturn:
    raise NotAccepted(f"{name} is not a JSON value", "a number that is not a JSON value")


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
    """Checks values against a schema of any draft, including formats."""

    _validator: BoundedValidator

    @classmethod
    def compile(cls, schema: Mapping[str, Any]) -> Validator:
        """Prepare a schema that :func:`~headrace.operators.schema.schemas.check_schema` accepted."""
        return cls(BoundedValidator.of(schema))

    def __reduce__(self) -> tuple[Any, ...]:
        # What jsonschema builds cannot be pickled, and a step travels to the worker that runs it.
        return Validator.compile, (self._validator.schema,)

    def check(self, value: Any, where: str = "") -> None:
        """Check that a value is valid.

        ``where`` is the value's name, the first part of the place in the sentence.

        Raises:
            NotAccepted: it is not valid; one sentence for the model and for people.
            TooMuchWork: this cannot be determined within the limits.
        """
        error = jsonschema.exceptions.best_match(self._validator.errors(value))
        if error is not None:
            what, rule = _what(error)
            place = _place(error, where)
            raise NotAccepted(f"{place}: {what}" if place else what, rule)

    def problem(self, value: Any, where: str = "") -> str | None:
        """What is wrong with a value, worded as in :meth:`check`; None if it is valid.

        Raises:
            TooMuchWork: this cannot be determined within the limits.
        """
        try:
            self.check(value, where)
        except NotAccepted as problem:
            return str(problem)
        return None


def _place(error: jsonschema.ValidationError, place: str) -> str:
    for part in error.absolute_path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place


def _what(error: jsonschema.ValidationError) -> tuple[str, str]:  # noqa: PLR0911, PLR0912 - one case for each keyword
    """What is wrong, and the broken rule without anything of the value."""
    value: Any = error.instance
    rule: Any = error.validator_value
    shown = _shown(value)

    def because(broken: str, more: str = "") -> tuple[str, str]:
        return f"{shown} {broken}{more}", broken

    match error.validator:
        case "maxLength":
            return because("is too long", f" (at most {rule} characters)")
        case "minLength":
            return because("is too short", f" (at least {rule} characters)")
        case "maxItems":
            return f"the list has {len(value)} items (at most {rule})", "the list has too many items"
        case "minItems":
            return f"the list has {len(value)} items (at least {rule})", "the list has too few items"
        case "enum":
            return because("is not one of", f" {', '.join(_shown(option) for option in rule[:20])}")
        case "const":
            return f"{shown} is not {_shown(rule)}", "is not the only value that the schema allows"
        case "type":
            names = rule if isinstance(rule, list) else [rule]
            return because("is not of type", f" {' or '.join(names)}")
        case "format":
            return because("is not a valid", f" {rule}")
        case "pattern":
            return because("does not match", f" {rule}")
        case "required":
            missing = [name for name in rule if name not in value] if isinstance(rule, list) else []
            return f"{', '.join(map(repr, missing)) or error.message} is missing", "is missing"
        case "additionalProperties" if rule is False and isinstance(error.schema, Mapping):
            extra = [name for name in value if name not in error.schema.get("properties", {})]
            known = ", ".join(error.schema.get("properties", {})) or "none"
            what = f"{', '.join(map(_shown, extra))} must not be there (the properties are {known})"
            return what, "must not be there"
        case "minimum" | "exclusiveMinimum" if not isinstance(rule, bool):
            least = "at least" if error.validator == "minimum" else "more than"
            return because("is too small", f" ({least} {rule})")
        case "maximum" | "exclusiveMaximum" if not isinstance(rule, bool):
            most = "at most" if error.validator == "maximum" else "less than"
            return because("is too big", f" ({most} {rule})")
        case "multipleOf":
            return because("is not a multiple of", f" {rule}")
        case "uniqueItems":
            return f"the list {shown} holds an item twice", "holds an item twice"
        case "anyOf":
            return because("fits none of the forms that the schema allows")
        case "oneOf":
            return because("does not fit exactly one of the forms that the schema allows")
        case "not":
            return because("is what the schema forbids")
    message = error.message if len(error.message) <= 3 * SHOWN else error.message[: 3 * SHOWN - 3] + "..."
    return message, f"breaks the schema's `{error.validator}`"
