"""jsonschema's validators with limits: checking a model's answer must not take hours or kill the worker.

Differences from jsonschema itself: a pattern gets one second of processor time, references are followed a limited
number of times and never fetched, ``uniqueItems`` takes linear time, and ``multipleOf`` counts in decimals, where 19.99
is a multiple of 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import regex

from headrace.operators.schema.lazy_module import LazyModule
from headrace.operators.schema.nodes import Node, dialect

if TYPE_CHECKING:
    import jsonschema
    import referencing
    from jsonschema.protocols import Validator as JsonSchemaValidator
else:
    jsonschema, referencing = LazyModule("jsonschema"), LazyModule("referencing")

PATTERN_SECONDS = 1.0
"""Processor time for one search of a pattern; a pattern that does not backtrack endlessly takes microseconds."""

MAX_REFERENCES = 20_000
"""References followed for one value: a recursive schema with alternatives tries each of them at every level."""


class TooMuchWork(ValueError):
    """Whether a value is valid cannot be determined within the limits; one sentence says why."""


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def pattern_problem(pattern: str) -> str | None:
    """Why ``pattern`` is not a regular expression; None if it is one."""
    try:
        _compiled(pattern)
    except (regex.error, ArithmeticError, RecursionError, MemoryError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


def found(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches anywhere in ``text``.

    Raises:
        TooMuchWork: this cannot be determined within :data:`PATTERN_SECONDS`.
    """
    try:
        return _compiled(pattern).search(text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        what = f"the pattern {pattern:.80} takes more than {PATTERN_SECONDS:g} s on {text[:20]!r}"
        raise TooMuchWork(f"{what}; write it without a repetition inside a repetition") from None
    except MemoryError:
        raise TooMuchWork(f"the pattern {pattern:.80} needs more memory than there is on {text[:20]!r}") from None


@dataclass(frozen=True, slots=True)
class BoundedValidator:
    """Checks values against a checked schema, in the draft that it names, including formats."""

    schema: Node
    _validator: JsonSchemaValidator
    _left: list[int]

    @classmethod
    def of(cls, schema: Node) -> BoundedValidator:
        draft, left = dialect(schema), [MAX_REFERENCES]
        rules = {
            name: rule
            for name, rule in {
                "$ref": _counted(draft.VALIDATORS["$ref"], left),
                "additionalProperties": _additional_properties,
                "multipleOf": _multiple_of,
                "pattern": _pattern,
                "patternProperties": _pattern_properties,
                "uniqueItems": _unique_items,
            }.items()
            if name in draft.VALIDATORS
        }
        # With a $schema in it jsonschema would change back to its own class at a reference to the root.
        nameless = {key: value for key, value in schema.items() if key != "$schema"}
        extend: Any = jsonschema.validators.extend  # untyped
        return cls(
            schema,
            extend(draft, rules)(nameless, format_checker=draft.FORMAT_CHECKER, registry=referencing.Registry()),
            left,
        )

    def errors(self, value: Any) -> Iterator[jsonschema.ValidationError]:
        """What is wrong with a value.

        Raises:
            TooMuchWork: this cannot be determined within the limits, while the result is read.
        """
        self._left[0] = MAX_REFERENCES
        try:
            yield from self._validator.iter_errors(value)
        except RecursionError:
            raise TooMuchWork("the value is nested too deep to be checked") from None

    def allows(self, schema: Any, value: Any) -> bool:
        """Whether a value is valid under a part of the schema.

        Raises:
            TooMuchWork: this cannot be determined within the limits.
        """
        self._left[0] = MAX_REFERENCES
        try:
            return bool(self._validator.evolve(schema=schema).is_valid(value))
        except RecursionError:
            raise TooMuchWork("a value of the schema is nested too deep to be checked") from None


_Errors: TypeAlias = "Iterator[jsonschema.ValidationError]"
_Rule = Callable[[Any, Any, Any, Mapping[str, Any]], _Errors]


def _counted(rule: _Rule, left: list[int]) -> _Rule:
    def counted(validator: Any, ref: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
        left[0] -= 1
        if left[0] < 0:
            raise TooMuchWork(
                f"more than {MAX_REFERENCES:,} references of the schema have to be followed to check the value; give "
                "the alternatives of a recursive part a field that tells them apart"
            )
        yield from rule(validator, ref, instance, schema) or ()

    return counted


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
    if isinstance(instance, str) and not found(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
    for pattern, inner in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, others: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in named and not any(found(p, name) for p in patterns)]
    if isinstance(others, Mapping):
        for name in extra:
            yield from validator.descend(instance[name], others, path=name)
    elif not others and extra:
        yield jsonschema.ValidationError(f"{', '.join(map(repr, extra[:20]))} must not be there")


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
    if isinstance(instance, bool) or not isinstance(instance, (int, float)):
        return
    exact = math.isfinite(instance) if isinstance(instance, float) else True
    if not exact or (Fraction(repr(instance)) / Fraction(repr(factor))).denominator != 1:
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {factor}")


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Mapping[str, Any]) -> _Errors:
    if unique and isinstance(instance, list) and len({_identity(item) for item in instance}) < len(instance):
        yield jsonschema.ValidationError(f"{instance!r} has non-unique elements")


def _identity(value: Any) -> Any:
    """Equal for values that JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(map(_identity, value)))
    if isinstance(value, dict):
        return ("object", frozenset((name, _identity(item)) for name, item in value.items()))
    return value
