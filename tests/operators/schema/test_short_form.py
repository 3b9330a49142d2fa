"""The short form: what the engine does not spell, how it is put back, and what the prompt says of it."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from headrace.cluster.engines.fake.made_up import instance
from headrace.operators import Extract, Generate
from headrace.operators.outcomes import Answer, Rejection
from headrace.operators.questions import Completion, Json, Question
from headrace.operators.schema.describe import DESCRIPTION_LIMIT
from headrace.operators.schema.schemas import SchemaError, check_schema, decoding_schema, describe
from headrace.operators.schema.short_form import Coded, Field, Form, ListForm, ObjectForm, ShortForm, short_form
from tests.support.schema_strategies import records, schemas, values

MOODS = ["very happy with it", "unhappy"]


def record(**properties: Any) -> dict[str, Any]:
    """An object that must have all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


REVIEW = check_schema(
    {
        **record(
            kind={"const": "review"},
            product={"type": "string", "maxLength": 40, "description": "what is reviewed"},
            mood={"enum": [*MOODS, None], "description": "of the customer"},
            buyer={"anyOf": [{"$ref": "#/$defs/buyer"}, {"type": "null"}]},
            parts={"type": "array", "maxItems": 3, "items": record(unit={"const": "cm"}, length={"type": "integer"})},
        ),
        "required": ["kind", "product", "mood", "parts"],
        "$defs": {"buyer": {"type": "object", "properties": {"country": {"enum": ["DE", "FR"]}}}},
    }
)
ANSWER = {
    "kind": "review",
    "product": "lamp",
    "mood": "unhappy",
    "buyer": {"country": "FR"},
    "parts": [{"unit": "cm", "length": 3}],
}


def decoded(schema: dict[str, Any], *, codes: bool = False) -> dict[str, Any]:
    """What the grammar gets."""
    schema = check_schema(schema)
    return decoding_schema(short_form(schema, codes=codes).schema, schema)[0]


def keys(schema: dict[str, Any], *, codes: bool = False) -> list[str]:
    return list(decoded(schema, codes=codes)["properties"])


def question(**step: Any) -> Question:
    (asked,) = Extract(name="facts", **step).questions()
    return asked


def read(text: str, **step: Any) -> Any:
    answer = Extract(name="facts", **step).read([Completion(text, "stop")], [])
    return answer.values["facts"] if isinstance(answer, Answer) else answer


# -- constants ---------------------------------------------------------------------------------------------------------


def test_a_required_constant_is_neither_asked_for_nor_decoded() -> None:
    asked = question(schema=record(kind={"const": "review"}, product={"type": "string"}))
    assert isinstance(asked.constraint, Json)
    assert list(json.loads(asked.constraint.schema)["properties"]) == ["product"]
    assert "kind" not in asked.instruction


def test_a_constant_is_there_again_when_the_answer_is_read() -> None:
    schema = record(kind={"const": "review"}, product={"type": "string"}, unit={"enum": ["cm"]})
    assert read('{"product":"lamp"}', schema=schema) == {"kind": "review", "product": "lamp", "unit": "cm"}


@pytest.mark.parametrize(
    "constant",
    [
        {"const": 1},
        {"const": None},
        {"const": {"a": [1]}},
        {"enum": ["x"]},
        {"enum": ["x", "x"]},
        {"type": "string", "enum": ["x", 1]},
        {"type": "string", "enum": ["x", None]},
        {"$ref": "#/$defs/constant"},
        {"allOf": [{"$ref": "#/$defs/constant"}], "description": "d"},
        {"allOf": [{"type": "string"}, {"const": "x"}]},
        record(a={"const": 1}, b=record(c={"const": 2})),
    ],
)
def test_a_constant_is_any_value_that_is_the_only_one(constant: dict[str, Any]) -> None:
    assert keys({**record(k=constant, free={}), "$defs": {"constant": {"const": "x"}}}) == ["free"]


@pytest.mark.parametrize(
    "other",
    [
        {"enum": ["x", "y"]},
        {"enum": ["x", None]},
        {"anyOf": [{"const": "x"}, {"type": "null"}]},
        {"oneOf": [record(t={"const": "a"}), record(t={"const": "b"})]},
        {**record(a={"const": 1}), "required": []},
    ],
)
def test_what_may_have_two_values_is_decoded(other: dict[str, Any]) -> None:
    assert keys(record(k=other)) == ["k"]


def test_an_optional_constant_is_decoded_for_its_presence_says_something() -> None:
    assert keys({**record(a={"const": 1}, b={"const": 2}), "required": ["b"]}) == ["a"]


def test_constants_of_branches_stay_for_they_tell_them_apart() -> None:
    branches = {"oneOf": [record(t={"const": "a"}), record(t={"const": "b"})]}
    assert (
        decoded(record(k=branches, c={"const": 1}))["properties"]["k"] == decoded(record(k=branches))["properties"]["k"]
    )


def test_an_object_with_free_keys_keeps_its_constants() -> None:
    assert keys({**record(k={"const": 1}), "additionalProperties": True}) == ["k"]


def test_constants_go_at_any_depth() -> None:
    schema = record(
        parts={"type": "array", "items": record(unit={"const": "cm"}, n={"type": "integer"})},
        box={"type": ["object", "null"], "properties": {"v": {"const": 1}, "w": {}}, "required": ["v"]},
    )
    assert read('{"parts":[{"n":1},{"n":2}],"box":{}}', schema=schema) == {
        "parts": [{"unit": "cm", "n": 1}, {"unit": "cm", "n": 2}],
        "box": {"v": 1, "w": None},
    }
    assert read('{"parts":[],"box":null}', schema=schema) == {"parts": [], "box": None}


def test_of_an_object_that_is_all_constants_an_empty_one_is_decoded() -> None:
    schema = record(k={"const": 1})
    assert decoded(schema) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert read("{}", schema=schema) == {"k": 1}
    assert decoded({"const": "x"}) == {"enum": ["x"]}


def test_the_numbers_of_properties_are_those_that_are_decoded() -> None:
    schema = {**record(k={"const": 1}, a={}, b={}), "required": ["k"], "minProperties": 2, "maxProperties": 2}
    assert {key: decoded(schema)[key] for key in ("minProperties", "maxProperties")} == {
        "minProperties": 1,
        "maxProperties": 1,
    }


def test_a_constant_that_an_answer_spells_all_the_same_is_checked() -> None:
    schema = record(k={"const": 1})
    assert read('{"k":1}', schema=schema) == {"k": 1}
    rejected = read('{"k":2}', schema=schema)
    assert isinstance(rejected, Rejection)
    assert (rejected.reason, rejected.raw) == ("k: 2 is not 1", '{"k":2}')


# -- letters -----------------------------------------------------------------------------------------------------------


def test_without_short_keys_names_and_values_are_spelled() -> None:
    assert keys(REVIEW) == ["product", "mood", "buyer", "parts"]
    assert decoded(REVIEW)["properties"]["mood"] == {"enum": [*MOODS, None]}


def test_short_keys_are_letters_and_the_prompt_says_what_they_stand_for() -> None:
    asked = question(schema=REVIEW, short_keys=True)
    assert asked.instruction.splitlines()[2:] == [
        "- a = product (string, at most 40 characters): what is reviewed",
        '- b = mood ("a" = "very happy with it" | "b" = "unhappy" or null): of the customer',
        "- c = buyer (object or null, optional)",
        '  - a = country ("DE" | "FR", optional)',
        "- d = parts (list of object, at most 3 items)",
        "  - a = length (integer)",
    ]
    assert isinstance(asked.constraint, Json)
    grammar = json.loads(asked.constraint.schema)
    assert list(grammar["properties"]) == ["a", "b", "c", "d"]
    assert grammar["required"] == ["a", "b", "d"]
    assert grammar["properties"]["b"] == {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}


def test_short_keys_are_names_again_when_the_answer_is_read() -> None:
    text = '{"a":"lamp","b":"b","c":{"a":"FR"},"d":[{"a":3}]}'
    assert read(text, schema=REVIEW, short_keys=True) == ANSWER
    assert read('{"a":"lamp","b":null,"d":[]}', schema=REVIEW, short_keys=True) == {
        **ANSWER, "mood": None, "buyer": None, "parts": []
    }  # fmt: skip


def test_examples_are_shown_as_the_engine_would_answer_them() -> None:
    examples = [{"document": "d", "answer": ANSWER}]
    (short,) = question(schema=REVIEW, short_keys=True, examples=examples).shots
    assert short.answer == '{"a":"lamp","b":"b","c":{"a":"FR"},"d":[{"a":3}]}'
    (long,) = question(schema=REVIEW, examples=examples).shots
    assert long.answer == '{"product":"lamp","mood":"unhappy","buyer":{"country":"FR"},"parts":[{"length":3}]}'


def test_an_example_with_a_property_that_has_no_letter_is_refused() -> None:
    examples = [{"document": "d", "answer": {"product": "lamp", "colour": "red"}}]
    with pytest.raises(ValueError, match=r"examples\[0\]\.answer: 'colour' is not a property of the schema"):
        Extract(name="facts", schema=record(product={}), short_keys=True, examples=examples)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":5,"b":"b","d":[]}', "product: 5 is not of type string"),
        ('{"a":"lamp","b":"b","d":[{"a":1},{"a":"x"}]}', "parts[1].length: 'x' is not of type integer"),
        ('{"a":"lamp","d":[]}', "'mood' is missing"),
        ('{"a":"lamp","b":"c","d":[]}', "mood: 'c' is not a known code (a = very happy with it, b = unhappy)"),
        ('{"a":"lamp","b":"unhappy","d":[]}',
         "mood: 'unhappy' is not a known code (a = very happy with it, b = unhappy)"),
        ('{"product":"lamp"}',
         "the key 'product' is not a known code (a = product, b = mood, c = buyer, d = parts)"),
        ('{"a":"lamp","b":"b","d":[{"length":1}]}', "parts[]: the key 'length' is not a known code (a = length)"),
        ('["a"]', '["a"] is not of type object'),
    ],
)  # fmt: skip
def test_a_rejection_names_the_property_and_keeps_the_answer_as_it_came(text: str, reason: str) -> None:
    rejection = read(text, schema=REVIEW, short_keys=True)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert rejection.raw == text


def test_names_and_values_that_are_letters_themselves_are_not_mixed_up() -> None:
    schema = record(b={"enum": ["b", "c", "aaaaaaaaaaaa"]}, a={"type": "string"}, longer={"type": "integer"})
    value = {"b": "c", "a": "b", "longer": 1}
    form = short_form(schema, codes=True)
    assert form.shorten(value) == {"a": "b", "b": "b", "c": 1}
    assert form.restore(form.shorten(value)) == value


@pytest.mark.parametrize(
    "schema",
    [
        record(x={}, y={}),
        {**record(product={}), "additionalProperties": {"type": "string"}},
        {"type": "object", "patternProperties": {"^k": record(product={})}},
        {"enum": ["good", "bad"]},
        {"enum": ["a long text", 1]},
        {"anyOf": [record(product={}), record(other={})]},
        {"type": "array", "items": [record(product={})], "$schema": "http://json-schema.org/draft-07/schema#"},
        {**record(kids={"type": "array", "items": {"$ref": "#"}}, kind={"const": "a long text"}), "required": ["kind"]},
        {"properties": {"one": {}, "two": {}}, "anyOf": [{"required": ["one"]}, {"required": ["two"]}]},
    ],
)  # fmt: skip
def test_what_letters_would_not_shorten_or_could_not_tell_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert short_form(schema, codes=True).schema is schema


def test_parts_beside_free_keys_and_branches_are_shortened() -> None:
    schema = {
        **record(buyer=record(name={"type": "null"}), other={"$ref": "#/$defs/either"}),
        "additionalProperties": {"$ref": "#/$defs/thing"},
        "$defs": {
            "either": {"anyOf": [{"$ref": "#/$defs/thing"}, {"type": "integer"}]},
            "thing": record(name={"type": "null"}),
        },
    }
    form = short_form(check_schema(schema), codes=True)
    value = {"buyer": {"name": None}, "other": {"name": None}, "a": {"name": None}}
    assert form.shorten(value) == {**value, "buyer": {"a": None}}
    assert form.restore(form.shorten(value)) == value


def test_a_reference_into_the_schema_itself_means_the_long_form() -> None:
    schema = record(
        buyer=record(name={"type": "null"}),
        other={"anyOf": [{"$ref": "#/properties/buyer"}, {"type": "integer"}]},
    )
    grammar = decoded(schema, codes=True)
    assert list(grammar["properties"]["a"]["properties"]) == ["a"]
    assert list(grammar["$defs"]["buyer"]["properties"]) == ["name"]


def test_a_reference_to_the_root_means_the_long_form() -> None:
    schema = {**record(name={}), "properties": {"name": {"patternProperties": {"^k": {"$ref": "#"}}}}}
    grammar = decoded(schema, codes=True)
    assert list(grammar["properties"]) == ["a"]
    (place,) = grammar["properties"]["a"]["patternProperties"].values()
    assert list(grammar["$defs"][place["$ref"].removeprefix("#/$defs/")]["properties"]) == ["name"]


def test_there_are_letters_for_any_number_of_properties() -> None:
    names = keys(record(**{f"field_{i}": {} for i in range(60)}), codes=True)
    assert [*names[:2], *names[25:28], names[-1]] == ["a", "b", "z", "aa", "ab", "bh"]


def test_every_value_of_a_coded_enum_is_in_the_prompt() -> None:
    texts = [f"the value number {i}" for i in range(40)]
    assert '"an" = "the value number 39"' in question(schema=record(v={"enum": texts}), short_keys=True).instruction


def test_short_keys_that_the_prompt_has_no_room_for_are_refused() -> None:
    big = record(**{f"field_number_{i}": {"description": "d" * 500} for i in range(300)})
    message = rf"short_keys: /: a line for each property takes \d+ characters, at most {DESCRIPTION_LIMIT}; remove"
    with pytest.raises(ValueError, match=message):
        Extract(name="facts", schema=big, short_keys=True)
    assert Extract(name="facts", schema=big).fields()


def test_a_deep_schema_is_described_down_to_its_last_key() -> None:
    schema: dict[str, Any] = record(innermost={"type": "null"})
    for _ in range(20):
        schema = record(inner=schema)
    assert "- a = innermost (null)" in question(schema=schema, short_keys=True).instruction


def test_a_recursive_schema_is_said_to_stay_long() -> None:
    schema = record(kids={"type": "array", "items": {"$ref": "#"}})
    note = "facts: the schema is recursive, so short_keys changes nothing"
    assert note in Extract(name="facts", schema=schema, short_keys=True).notes()
    assert note not in Extract(name="facts", schema=schema).notes()


def test_short_keys_of_free_text_are_refused() -> None:
    with pytest.raises(ValueError, match="short_keys is for answers in JSON: add a schema, or remove short_keys"):
        Generate(name="reply", prompt="Reply.", short_keys=True)


def test_generate_takes_short_keys_as_extract_does() -> None:
    examples = [{"document": "d", "answer": {"product": "lamp"}}]
    schema = record(product={"type": "string"})
    step = Generate(name="reply", prompt="Reply.", schema=schema, short_keys=True, examples=examples)
    (asked,) = step.questions()
    assert asked.instruction.endswith("- a = product (string)")
    assert asked.shots[0].answer == '{"a":"lamp"}'
    assert step.read([Completion('{"a":"lamp"}', "stop")], []) == Answer({"reply": {"product": "lamp"}})


def test_the_room_for_an_answer_is_that_of_what_is_decoded() -> None:
    schema = record(kind={"const": "c" * 300}, **{"n" * 60: {"enum": ["v" * 300, "w" * 300]}})
    long = {**schema, "required": []}
    rooms = [question(schema=s, short_keys=k).sampling.max_tokens for s, k in [(long, False), (schema, False)]]
    assert rooms == [452, 246]
    assert question(schema=schema, short_keys=True).sampling.max_tokens == 64


# -- for any schema ----------------------------------------------------------------------------------------------------


ANY = records() | records() | schemas()


@st.composite
def forms(draw: st.DrawFn) -> tuple[dict[str, Any], ShortForm]:
    try:
        schema = check_schema(draw(ANY))
    except SchemaError:
        assume(False)
    return schema, short_form(schema, codes=draw(st.sampled_from([True, True, False])))


def json_text(value: object) -> str:
    """So that 1, 1.0 and true are three values."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), forms())
def test_every_valid_value_comes_back(data: st.DataObject, form: tuple[dict[str, Any], ShortForm]) -> None:
    schema, short = form
    value = data.draw(values(schema))
    assume(Draft202012Validator(schema).is_valid(value))
    shortened = short.shorten(value)
    assert json_text(short.restore(shortened)) == json_text(value)
    if Draft202012Validator(decoding_schema(schema)[0]).is_valid(value):
        Draft202012Validator(decoding_schema(short.schema, schema)[0]).validate(shortened)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), forms())
@pytest.mark.slow
def test_what_the_grammar_writes_is_restored_to_what_the_long_grammar_would_write(
    data: st.DataObject, form: tuple[dict[str, Any], ShortForm]
) -> None:
    schema, short = form
    grammar = decoding_schema(short.schema, schema)[0]
    made = instance(grammar, random.Random(data.draw(st.integers(0, 99))))
    value = data.draw(st.just(made) | values(grammar))
    assume(Draft202012Validator(grammar).is_valid(value))
    Draft202012Validator(decoding_schema(schema)[0]).validate(short.restore(value))


def letters(form: Form) -> Iterator[str]:
    match form:
        case Coded(values=texts):
            yield from (f'"{code}" = {json.dumps(text, ensure_ascii=False)}' for code, text in texts.items())
        case ListForm(item=item):
            yield from letters(item)
        case ObjectForm(fields=fields, coded=coded):
            for name, field in fields.items():
                if isinstance(field, Field):
                    yield from letters(field.form)
                    yield f"- {field.code} = {name} (" if coded else f"- {name} ("


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(forms())
def test_the_prompt_says_what_every_letter_stands_for(form: tuple[dict[str, Any], ShortForm]) -> None:
    schema, short = form
    text = describe(short.schema, schema, whole=True)
    assert [meaning for meaning in letters(short.form) if meaning not in text] == []


@settings(max_examples=50, deadline=None)
@given(st.integers(), st.booleans())
def test_a_made_up_answer_of_the_decoding_schema_is_accepted(seed: int, short_keys: bool) -> None:
    step = Extract(name="facts", schema=REVIEW, short_keys=short_keys)
    (asked,) = step.questions()
    assert isinstance(asked.constraint, Json)
    text = json.dumps(instance(json.loads(asked.constraint.schema), random.Random(seed)))
    assert isinstance(step.read([Completion(text, "stop")], []), Answer)


def test_a_short_form_can_be_sent_to_a_worker() -> None:
    form = short_form(REVIEW, codes=True)
    assert pickle.loads(pickle.dumps(form)).restore(form.shorten(ANSWER)) == ANSWER


@pytest.mark.slow
@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("schema", [REVIEW, record(k={"const": 1}), record(k=record(c={"const": 1}), v={})])
def test_xgrammar_builds_a_grammar_of_it(schema: dict[str, Any], codes: bool) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    xgrammar.Grammar.from_json_schema(json.dumps(decoded(schema, codes=codes)), any_whitespace=False)
