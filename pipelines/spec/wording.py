"""What pydantic finds wrong with a pipeline, as places and clauses without pydantic's own words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headrace.operators.base import Example
from headrace.operators.registry import all_operators
from headrace.pipelines.spec.definition import MODEL_TAGS
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.places import Loc
from headrace.pipelines.spec.resources import Model, NamedModel, Resources
from headrace.pipelines.spec.steps import OPERATORS


def problems_of(error: ValidationError) -> list[tuple[Loc, str]]:
    """What is wrong, as places and clauses without pydantic's own words."""
    problems: list[tuple[Loc, str]] = []
    found = error.errors(include_url=False)
    for details in found:
        if details["type"] == "too_short" and any(_below(details["loc"], other["loc"]) for other in found):
            continue  # pydantic does not count items that are wrong
        if details["type"] == "pipeline":
            problems += details.get("ctx", {})["problems"]
        else:
            problems.append(_in_words(details))
    # A misspelt key is one mistake, not an unknown key and a missing one.
    meant = {
        (loc, match[1]) for loc, text in problems if (match := re.match(r'unknown key .* did you mean "(.*?)"', text))
    }
    missing = re.compile(r'key "(.*)" is missing$')
    return [
        (loc, text)
        for loc, text in dict.fromkeys(problems)
        if not ((match := missing.match(text)) and (loc, match[1]) in meant)
    ]


def _below(loc: Loc, other: Loc) -> bool:
    return len(other) > len(loc) and other[: len(loc)] == loc


def _in_words(details: ErrorDetails) -> tuple[Loc, str]:
    loc: Loc = tuple(part for part in details["loc"] if part not in MODEL_TAGS)
    kind, given, ctx = details["type"], details["input"], details.get("ctx", {})
    if kind in ("extra_forbidden", "missing"):
        around, key = loc[:-1], str(loc[-1])
        if kind == "missing":
            return around, f'key "{key}" is missing'
        keys = keys_at(around)
        near = difflib.get_close_matches(key, keys, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return around, f'unknown key "{key}"{suggestion} (keys: {", ".join(keys)})'
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return loc, _no_step(given)
    if kind == "string_pattern_mismatch":
        if loc[-1] != "name":
            return loc, f"must match the regular expression {ctx['pattern']}, not {_given(given)}"
        allowed = "letters, digits and _" if loc[:1] == ("steps",) else "letters, digits, - and _"
        begins = "a letter" if loc[:1] == ("steps",) else "a letter or a digit"
        return loc, f"must consist of {allowed} and begin with {begins}, not {_given(given)}"
    return loc, _WORDS.get(kind, _other)(details["msg"], ctx) + _but(kind, given)


def _no_step(given: object) -> str:
    kinds = ", ".join(OPERATORS)
    if isinstance(given, Mapping) and len(given) == 1:
        (kind,) = given
        if (failure := all_operators().failure(str(kind))) is not None:
            return failure
        near = difflib.get_close_matches(str(kind).lower(), OPERATORS, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        return f'unknown operator "{kind}"{suggestion} (operators: {kinds})'
    if isinstance(given, Mapping) and set(given) & set(OPERATORS):
        named = next(key for key in given if key in OPERATORS)
        return (
            f"a step is a mapping with one key, its operator, but this one has {', '.join(map(str, given))}:"
            f' indent the other keys below "{named}"'
        )
    return f"a step is a mapping with one key, its operator ({kinds}), not {_given(given)}"


def _given(value: object) -> str:
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
    return f", not {_given(given)}{_quotes(given) if kind == 'string_type' else ''}"


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


def keys_at(loc: Loc) -> list[str]:
    """The keys that a mapping at ``loc`` may have."""
    model: type[BaseModel] = Pipeline
    match loc:
        case ("resources", *_):
            model = Resources
        case ("models", str(), "resources", *_):
            model = Resources
        case ("models", str(), *_):
            model = NamedModel
        case ("model", *_):
            model = Model
        case ("steps", int(), str(kind), "examples", int()):
            model = Example
        case ("steps", int(), str(kind), *_):
            model = OPERATORS[kind]
        case ("steps", int()):
            return list(OPERATORS)
    return [field.alias or name for name, field in model.model_fields.items()]
