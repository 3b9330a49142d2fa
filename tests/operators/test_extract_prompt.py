"""How an extraction asks: fields in a line where their names say all, a list with types and bounds elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.operators import Extract
from headrace.operators.capabilities import Capabilities

TEXT: dict[str, Any] = {"type": "string", "maxLength": 40}
QUOTED: dict[str, Any] = {"type": ["string", "null"], "x-quote": True}
LISTED = "Fill in these fields, as JSON:\n"


def asked(properties: dict[str, Any], capabilities: Capabilities | None = None, **keys: Any) -> str:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    step = Extract(name="facts", schema=schema, **keys)
    (question,) = (step if capabilities is None else step.for_engine(capabilities)).questions()
    return question.instruction


def test_texts_without_descriptions_are_named_in_a_line() -> None:
    assert asked({"city": TEXT, "names": {"type": "array", "items": TEXT}}) == (
        "Read the text and extract facts in words from the text. Fill in these fields, as JSON: city, names."
    )


def test_texts_that_are_all_quoted_are_asked_to_be_copied() -> None:
    assert asked({"city": QUOTED, "names": {"type": "array", "items": QUOTED}}) == (
        "Copy from the text, as JSON: city, names."
    )
    assert asked({"city": TEXT}, quote=True, instruction="Where is it?") == (
        "Where is it? Copy from the text, as JSON: city."
    )


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "description": "a city"},
        {"type": "integer"},
        {"enum": ["big", "small"]},
        {"type": "string", "format": "date"},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object", "properties": {"a": TEXT}},
        {},
    ],
    ids=str,
)
def test_a_field_that_its_name_does_not_say_makes_a_list(field: dict[str, Any]) -> None:
    assert LISTED + "- city (string, at most 40 characters)\n- more (" in asked({"city": TEXT, "more": field})


def test_many_fields_make_a_list() -> None:
    assert LISTED not in asked({f"field_{i}": TEXT for i in range(12)})
    assert LISTED in asked({f"field_{i}": TEXT for i in range(13)})


@pytest.mark.parametrize(
    ("field", "constraints"), [(TEXT, {"choice"}), (QUOTED, {"choice", "json"})], ids=["no JSON", "no quotes"]
)
def test_an_engine_that_does_not_decode_under_the_schema_is_told_types_and_bounds(
    field: dict[str, Any], constraints: set[Any]
) -> None:
    engine = Capabilities(constraints=frozenset(constraints))
    assert asked({"city": field}, engine).startswith(
        "Read the text and extract facts in words from the text.\n" + LISTED
    )
    step = Extract(name="facts", schema={"type": "object", "properties": {"city": field}})
    enough = Capabilities(constraints=frozenset({"json", "quotes"}))
    assert step.for_engine(engine).for_engine(enough).questions() == step.questions()
