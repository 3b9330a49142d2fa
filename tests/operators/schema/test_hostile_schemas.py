"""Schemas and answers made to stall: refused at check time, or a bad answer in bounded time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.operators.error_classes import ErrorClass
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion
from headrace.operators.schema import bounded
from headrace.operators.schema.schemas import SchemaError, Validator, check_schema, parse_json
from headrace.operators.structured import Structure
from headrace.pipelines.inference.results import MAX_RAW, MAX_REASON, DeadLetter


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    begun = time.process_time()
    yield
    assert time.process_time() - begun < 10


EVIL = r"^(?:a|a?a|[a-z])*$"


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def doubling(levels: int) -> dict[str, Any]:
    """2 ** levels places, out of a page of definitions."""
    defs: dict[str, Any] = {f"d{i}": record(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"})
                            for i in range(levels)}  # fmt: skip
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "string"}}}


def beside(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {**record(a=schema), "anyOf": [{"required": ["a"], "properties": {f"p{i}": {}}} for i in range(9)]}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (doubling(40), "/: through its $refs the schema has more than 5,000 places"),
        ({"$ref": "#/$defs/d0", "$defs": {f"d{i}": record(a={"$ref": f"#/$defs/d{min(i + 1, 99)}"})
                                            for i in range(99)} | {"d99": {"type": "string"}}},
         "nested deeper than 64 levels"),
        (record(**{f"p{i}": {} for i in range(10_001)}), "/: the schema contains 10,002 schemas, at most 10,000"),
        ({**record(a={"$ref": "#"})}, "/: every value of it must contain another such value, without end"),
        (record(a={"type": "array", "minItems": 1, "items": {"$ref": "#/properties/a"}}),
         "every value of it must contain another"),
        (record(a={"type": "array", "minItems": 10**9}), "/properties/a: minItems 1000000000 is more than any answer"),
        (record(a={"type": "string", "minLength": 10**9}), "/properties/a: minLength 1000000000 is more than"),
        ({"type": "object", "minProperties": 10**9}, "/: minProperties 1000000000 is more than"),
        (record(a={"type": "string", "pattern": EVIL, "enum": ["a" * 60 + "B"]}), "takes more than 1 s"),
        ({**record(), "required": ["a" * 60 + "B"], "additionalProperties": False,
          "patternProperties": {EVIL: {}}}, "takes more than 1 s"),
        ({**record(a={"$ref": "#/x-mine"}), "x-mine": {"not": {"$ref": "https://e.org/x.json"}}},
         "/x-mine/not: $ref 'https://e.org/x.json' is remote"),
        (record(a={"patternProperties": {EVIL: {}}, "unevaluatedProperties": False}),
         "/properties/a: unevaluatedProperties cannot be checked"),
        (beside(8), "places; ask for fewer fields"),
    ],
)  # fmt: skip
def test_a_schema_that_would_stall_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as refusal:
        check_schema(schema)
    assert message in str(refusal.value)


def test_what_recurs_and_has_an_end_is_accepted() -> None:
    check_schema(record(v={}, kids={"type": "array", "items": {"$ref": "#"}}))
    check_schema({"anyOf": [{"type": "null"}, record(next={"$ref": "#"})]})
    check_schema(record(a={"type": "string", "pattern": r"^\p{Lu}"}))


def read(schema: dict[str, Any], text: str) -> Answer | Rejection:
    return Structure.of("it", check_schema(schema)).read(Completion(text, "stop"))


TREE = {"$ref": "#/$defs/t", "$defs": {"t": {"anyOf": [
    {"type": "integer"},
    {"type": "array", "items": {"$ref": "#/$defs/t"}},
    {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/t"}},
]}}}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        ({"type": "string", "pattern": EVIL}, json.dumps("a" * 5000 + "B"), "takes more than 1 s"),
        ({"type": "object", "additionalProperties": False, "patternProperties": {EVIL: {}}},
         json.dumps({"a" * 60 + "B": 1}), "takes more than 1 s"),
        (TREE, "[" * 60 + '"x"' + "]" * 60, "references of the schema have to be followed"),
        ({}, "[" * 101 + "]" * 101, "nested too deep"),
        ({}, "[" * 100_000, "nested too deep"),
        ({"type": "number", "multipleOf": 0.01}, "1e999", "beyond what a 64-bit float can hold"),
        ({"type": "number", "multipleOf": 0.01}, "9" * 4000, "beyond what a 64-bit float can hold"),
        ({"type": "integer"}, "9" * 4000, "does not fit into 64 bits"),
        ({"type": "integer"}, "9" * 9000, "more digits than can be read"),
        ({"type": "array", "uniqueItems": True}, json.dumps([{"a": i % 9999} for i in range(10_000)]), "item twice"),
    ],
    ids=map(str, range(10)),
)  # fmt: skip
def test_a_hostile_answer_is_a_bad_one(schema: dict[str, Any], text: str, reason: str) -> None:
    outcome = read(schema, text)
    assert isinstance(outcome, Rejection)
    assert reason in outcome.reason
    assert len(outcome.reason) < 500


def test_an_enormous_valid_answer_is_read() -> None:
    many = [{"a": i} for i in range(20_000)]
    assert isinstance(read({"type": "array", "uniqueItems": True}, json.dumps(many)), Answer)
    assert isinstance(read({}, "[" * 99 + "]" * 99), Answer)
    assert read({"type": "string"}, '"a\\u0000b"') == Answer({"it": "a\0b"})


@pytest.mark.parametrize(("value", "factor"), [(19.99, 0.01), (0.07, 0.01), (1e300, 0.5), (10**300, 3.0), (7, 0.1)])
def test_multiples_are_counted_in_decimals(value: float, factor: float) -> None:
    valid = Validator.compile({"multipleOf": factor}).problem(value) is None
    assert valid == (value != 10**300)


@pytest.mark.parametrize(("items", "twice"), [([1, 1.0], True), ([1, True], False), ([0, False], False),
                                              ([[1], [1.0]], True), ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], True),
                                              (["1", 1], False), ([[], {}], False), ([None, None], True)])  # fmt: skip
def test_what_counts_as_an_item_twice(items: list[Any], twice: bool) -> None:
    assert (Validator.compile({"uniqueItems": True}).problem(items) is not None) == twice


def test_the_bounds_hold_below_a_reference_to_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonschema would go on with a validator class of its own there."""
    monkeypatch.setattr(bounded, "PATTERN_SECONDS", 0.05)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"s": {"type": "string", "pattern": EVIL}, "next": {"$ref": "#"}},
    }
    with pytest.raises(bounded.TooMuchWork):
        Validator.compile(schema).problem({"next": {"s": "a" * 60 + "B"}})


def test_parsing_keeps_what_json_says() -> None:
    assert parse_json("[1e308, -0.0, 1E400]".replace(", 1E400", "")) == [1e308, -0.0]


def test_a_dead_letter_is_bounded() -> None:
    letter = DeadLetter("s", ErrorClass.INVALID, "r" * 10**6, "x" * 10**6, 1)
    assert (len(letter.reason), len(letter.raw)) == (MAX_REASON, MAX_RAW)
    assert letter.raw.endswith("(cut, 1,000,000 characters)")
    assert DeadLetter("s", ErrorClass.INVALID, letter.reason, letter.raw, 1) == letter
