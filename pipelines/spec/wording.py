"""What pydantic finds wrong with a pipeline, as places and clauses without pydantic's own words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from headrace.operators.base import Example
from headrace.operators.registry import all_operators
from headrace.operators.wording import Loc, Problem, given_text, in_words, without_doubles
from headrace.pipelines.spec.definition import MODEL_TAGS, Definition
from headrace.pipelines.spec.resources import Model, NamedModel, Resources
from headrace.pipelines.spec.steps import OPERATORS


def problems_of(error: ValidationError) -> list[Problem]:
    """What is wrong, as places and clauses without pydantic's own words."""
    problems: list[Problem] = []
    found = error.errors(include_url=False)
    for details in found:
        if details["type"] == "too_short" and any(_below(details["loc"], other["loc"]) for other in found):
            continue  # pydantic does not count items that are wrong
        loc: Loc = tuple(part for part in details["loc"] if part not in MODEL_TAGS)
        if details["type"] == "pipeline":
            problems += details.get("ctx", {})["problems"]
        elif details["type"] in ("union_tag_not_found", "union_tag_invalid"):
            problems.append((loc, _no_step(details["input"])))
        else:
            problems.append(in_words(details, loc, keys_at, in_step=loc[:1] == ("steps",)))
    return without_doubles(problems)


def _below(loc: Loc, other: Loc) -> bool:
    return len(other) > len(loc) and other[: len(loc)] == loc


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
    return f"a step is a mapping with one key, its operator ({kinds}), not {given_text(given)}"


def keys_at(loc: Loc) -> list[str]:
    """The keys that a mapping at ``loc`` may have."""
    model: type[BaseModel] = Definition
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
