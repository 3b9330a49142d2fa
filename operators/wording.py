"""What pydantic finds wrong with a step or a pipeline, as places and clauses without pydantic's own words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]
"""A place: ``("examples", 0, "answer")`` in a step, ``("steps", 1, "extract", "schema")`` in a pipeline."""

Problem = tuple[Loc, str]
"""A place, and a clause on what is wrong there."""


def in_words(details: ErrorDetails, loc: Loc, keys: Callable[[Loc], Sequence[str]], *, in_step: bool) -> Problem:
    """One finding of pydantic.

    Args:
        loc: its place.
        keys: the keys that a mapping at a place may have.
        in_step: whether names there are names of steps.
    """
    kind, given, ctx = details["type"], details["input"], details.get("ctx", {})
    if kind in ("extra_forbidden", "missing"):
        around, key = loc[:-1], str(loc[-1])
        if kind == "missing":
            return around, f'key "{key}" is missing'
        known = keys(around)
        near = difflib.get_close_matches(key, known, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return around, f'unknown key "{key}"{suggestion} (keys: {", ".join(known)})'
    if kind == "string_pattern_mismatch":
        if loc[-1] != "name":
            return loc, f"must match the regular expression {ctx['pattern']}, not {given_text(given)}"
        allowed = "letters, digits and _" if in_step else "letters, digits, - and _"
        begins = "a letter" if in_step else "a letter or a digit"
        return loc, f"must consist of {allowed} and begin with {begins}, not {given_text(given)}"
    return loc, _WORDS.get(kind, _other)(details["msg"], ctx) + _but(kind, given)


def without_doubles(problems: Sequence[Problem]) -> list[Problem]:
    """The problems once each. A misspelt key is one mistake, not an unknown key and a missing one."""
    unknown = re.compile(r'unknown key .* did you mean "(.*?)"')
    meant = {(loc, match[1]) for loc, text in problems if (match := unknown.match(text))}
    missing = re.compile(r'key "(.*)" is missing$')
    return [
        (loc, text)
        for loc, text in dict.fromkeys(problems)
        if not ((match := missing.match(text)) and (loc, match[1]) in meant)
    ]


def loc_text(loc: Loc) -> str:
    """``steps[1].extract.schema`` for ``("steps", 1, "extract", "schema")``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def given_text(value: object) -> str:
    """What was given instead, in a few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a mapping ({', '.join(map(str, list(value)[:5]))})" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _but(kind: str, given: object) -> str:
    if kind in ("value_error", "custom", "too_short", "too_long", "string_too_short", "string_too_long"):
        return ""
    return f", not {given_text(given)}{_quotes(given) if kind == 'string_type' else ''}"


def _quotes(given: object) -> str:
    """What was probably meant by a value that should be text."""
    if isinstance(given, int | float):
        return "; put it in quotes"
    if isinstance(given, Mapping) and len(given) == 1 and next(iter(given.values())) is None:
        return f'; a template is written "{{{{ {next(iter(given))} }}}}"'
    return ""


def _other(message: str, ctx: Mapping[str, Any]) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be (?:a valid )?", "must be ", message)


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


_WORDS: Mapping[str, Any] = {
    "string_type": lambda m, c: "must be text",
    "int_type": lambda m, c: "must be a whole number",
    "int_parsing": lambda m, c: "must be a whole number",
    "int_from_float": lambda m, c: "must be a whole number",
    "float_type": lambda m, c: "must be a number",
    "float_parsing": lambda m, c: "must be a number",
    "finite_number": lambda m, c: "must be a finite number",
    "bool_type": lambda m, c: "must be true or false",
    "bool_parsing": lambda m, c: "must be true or false",
    "greater_than_equal": lambda m, c: f"must be {_number(c['ge'])} or more",
    "less_than_equal": lambda m, c: f"must be {_number(c['le'])} or less",
    "greater_than": lambda m, c: f"must be more than {_number(c['gt'])}",
    "less_than": lambda m, c: f"must be less than {_number(c['lt'])}",
    "literal_error": lambda m, c: f"must be {c['expected']}".replace("'", '"'),
    "list_type": lambda m, c: "must be a list",
    "tuple_type": lambda m, c: "must be a list",
    "dict_type": lambda m, c: "must be a mapping",
    "mapping_type": lambda m, c: "must be a mapping",
    "model_type": lambda m, c: "must be a mapping",
    "model_attributes_type": lambda m, c: "must be a mapping",
    "string_too_short": lambda m, c: "must not be empty",
    "string_too_long": lambda m, c: f"must have at most {c['max_length']} characters",
    "too_short": lambda m, c: f"needs at least {c['min_length']}, but has {c['actual_length']}",
    "too_long": lambda m, c: f"takes at most {c['max_length']}, but has {c['actual_length']}",
}
