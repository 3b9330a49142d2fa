"""A user's JSON Schema: what is refused, what the grammar gets of it, how an answer is read, what the prompt says."""

from __future__ import annotations

import enum
import json
import pickle
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from headrace.operators.schema.bounds import DEFAULT_MAX_ITEMS, DEFAULT_MAX_LENGTH
from headrace.operators.schema.columns import column_for
from headrace.operators.schema.decoding_scalars import INT_MAX, INT_MIN
from headrace.operators.schema.describe import DESCRIPTION_LIMIT
from headrace.operators.schema.patterns import bounded, decodes, one_of
from headrace.operators.schema.schemas import (
    SchemaError,
    Validator,
    check_schema,
    decoding_schema,
    describe,
    max_answer_tokens,
    parse_json,
    schema_of,
)
from tests.support.schema_strategies import schemas, values


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "/: a schema is a mapping such as {type: object, properties: ...}, not 'string'"),
        (record(a={"type": "strin"}), "/properties/a/type: 'strin' is not allowed here by JSON Schema"),
        (record(a={"type": "string", "maxLength": -1}), "/properties/a/maxLength: -1 is less than the minimum of 0"),
        ({"propertes": {}}, "/propertes: 'propertes' is not a keyword of JSON Schema; write 'properties'"),
        (record(a={"tpye": "string"}), "/properties/a/tpye: 'tpye' is not a keyword of JSON Schema; write 'type'"),
        ({"requried": ["a"]}, "write 'required'"),
        ({"enums": ["a"]}, "write 'enum'"),
        ({"max_length": 3}, "write 'maxLength'"),
        ({"additionalproperties": False}, "write 'additionalProperties'"),
        (record(a={"$ref": "#/$defs/b"}), "/properties/a: $ref '#/$defs/b' points to nothing"),
        ({**record(a={"$ref": "#/$defs/b"}), "$defs": {"c": {}}}, "there are #/$defs/c"),
        (record(a={"$ref": "https://e.org/s.json"}), "/properties/a: $ref 'https://e.org/s.json' is remote"),
        ({"$ref": "#"}, "/: its $ref leads back to itself"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "leads back to itself"),
        (
            {**record(name={}), "required": ["nmae"], "additionalProperties": False},
            "/: 'nmae' is required, but additionalProperties is false and properties has no 'nmae', so no answer can "
            "be valid; did you mean 'name'?",
        ),
        (record(a={"pattern": "[a"}), "/properties/a: pattern '[a' is not a regular expression"),
        ({"type": "object", "patternProperties": {"(": {}}}, "patternProperties '(' is not a regular expression"),
        ({"$schema": "https://e.org/mine"}, "/$schema: 'https://e.org/mine' is not a supported dialect"),
        ({"$schema": 3}, "/$schema: 3 is not a supported dialect"),
        (
            record(a={"type": "integer", "minimum": 3, "maximum": 2}),
            "/properties/a: there is no 64-bit integer between",
        ),
        (record(a={"type": "number", "minimum": 3, "maximum": 2}), "/properties/a: minimum 3 is above maximum 2"),
        (record(a={"type": "array", "minItems": 3, "maxItems": 2}), "/properties/a: minItems 3 is above maxItems 2"),
        (
            record(a={"type": "number", "minimum": 1, "exclusiveMaximum": 1}),
            "/properties/a: there is no number between",
        ),
        (
            record(a={"type": "string", "minLength": 5, "maxLength": 3}),
            "/properties/a: minLength 5 is above maxLength 3",
        ),
        (
            {**record(a={}, b={}), "required": ["a", "b"], "maxProperties": 1},
            "/: maxProperties 1 leaves out required",
        ),
        ({**record(a={}, b={}), "minProperties": 2, "maxProperties": 1}, "/: maxProperties 1 leaves out required"),
        (
            {
                **record(a={"type": "integer", "minimum": 3}),
                "allOf": [{**record(a={"type": "integer", "minimum": 4}, b={}), "required": ["b"]}],
            },
            "/: allOf requires 'b', and its parts cannot be merged into one object",
        ),
        (record(a={"type": "string", "enum": [1]}), "/properties/a: none of the values of enum or const is valid"),
        ({**record(a=False), "required": ["a"]}, "/: 'a' is required, but its schema is false"),
        ({"const": float("nan")}, "contains a value that JSON does not have"),
        ({"default": date(2026, 1, 1)}, "quote dates in YAML"),
        ({"$dynamicRef": "#a"}, "/: $dynamicRef is not supported"),
    ],
)
def test_a_schema_that_cannot_work_is_refused(schema: object, message: str) -> None:
    with pytest.raises(SchemaError) as error:
        check_schema(schema)
    assert message in str(error.value)


def test_a_schema_too_deep_for_any_grammar_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "array", "items": {"anyOf": [schema]}}
    with pytest.raises(SchemaError, match="nested deeper than 64 levels"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "x-mine": 1, "form": "f", "_format": "off", "constraints": [], "id": "s", "note": ""},
        record(propertes={"type": "string"}, requried={"type": "string"}),
        {"enum": [{"requried": 1}]},
        {**record(a={}), "required": ["b"]},
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
        {"$schema": "http://json-schema.org/draft-07/schema#", **record(a={"$ref": "#/definitions/a b"}),
         "definitions": {"a b": {"type": "string"}}},
        {**record(kids={"type": "array", "items": {"$ref": "#"}}), "$id": "https://e.org/tree"},
        {"$ref": "#day", "$defs": {"d": {"$anchor": "day", "type": "string"}}},
    ],
)  # fmt: skip
def test_a_schema_that_works_is_accepted(schema: dict[str, Any]) -> None:
    assert check_schema(schema) == schema


def test_a_checked_schema_shares_nothing_with_the_users() -> None:
    schema = record(a={"type": "string"})
    checked = check_schema(schema)
    schema["properties"]["a"]["type"] = "integer"
    assert checked == record(a={"type": "string"})


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Reply(pydantic.BaseModel):
    """What the customer writes."""

    mood: Mood
    on: date | None = None
    tags: list[str] = pydantic.Field(default_factory=list, max_length=3, description="words that recur")


def test_a_pydantic_model_is_a_schema() -> None:
    schema = check_schema(schema_of(Reply))
    assert Validator.compile(schema).problem({"mood": "good", "on": None}) is None
    assert describe(schema) == (
        '- mood ("good" | "bad")\n'
        "- on (date, YYYY-MM-DD or null, optional)\n"
        "- tags (list of string, at most 3 items, optional): words that recur"
    )


# -- what the grammar gets ---------------------------------------------------------------------------------------------


def decoded(schema: dict[str, Any]) -> dict[str, Any]:
    return decoding_schema(check_schema(schema))[0]


def notes(schema: dict[str, Any]) -> list[str]:
    return [note for note in decoding_schema(check_schema(schema))[1] if not note.startswith("/: a string without")]


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2, "contains": {"const": 1}}, "contains"),
        ({"type": "integer", "multipleOf": 3, "maximum": -1}, "multipleOf"),
        ({"type": "number", "minimum": 0, "multipleOf": 0.07}, "multipleOf"),
        ({"type": "string", "maxLength": 9, "format": "idn-email"}, "format"),
        ({"type": "string", "pattern": "^a+$", "minLength": 2}, "minLength"),
        ({"type": "string", "format": "date", "pattern": "^2"}, "pattern"),
        ({"type": "string", "pattern": r"(?i)yes", "maxLength": 10}, "pattern"),
        ({"type": "integer", "not": {"const": 3}}, "not"),
        ({"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 9}}, "if"),
        ({**record(a={"type": "null"}), "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({**record(a={"type": "null"}), "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({**record(a={"type": "null"}), "patternProperties": {"^b": {"type": "null"}}}, "patternProperties"),
        ({"type": "number", "minimum": 1e-9}, "minimum"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"allOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 2}]}, "allOf"),
    ],
)
def test_what_the_grammar_cannot_hold_is_dropped_and_said(schema: dict[str, Any], keyword: str) -> None:
    assert f"/properties/it: {keyword} is checked after the answer, not while decoding" in notes(record(it=schema))
    kept = json.dumps(decoded(record(it=schema))["properties"]["it"])
    assert f'"{keyword}"' not in kept.replace('"multipleOf": 1e-06', "")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 5},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "email", "maxLength": 40},
        {"type": "number", "minimum": 0, "multipleOf": 0.01},
        {"type": "object", "propertyNames": {"enum": ["a b", "c-d"]}, "additionalProperties": {"type": "null"}},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
        {"oneOf": [{**record(t={"const": "a"}), "required": ["t"]}, {**record(t={"const": "b"}), "required": ["t"]}]},
        {"allOf": [record(a={"type": "integer"}), {"required": ["a"]}]},
        {"enum": ["a", 1]},
    ],
)
def test_what_the_grammar_holds_needs_no_note(schema: dict[str, Any]) -> None:
    assert notes(schema) == []


ANIMAL = {**record(kind={"type": "string"}, name={"type": "string"}), "required": ["kind", "name"]}
DOG = {**record(kind={"const": "dog"}, bark={"type": "string"}), "required": ["bark"]}
REX = {"kind": "dog", "name": "Rex", "bark": "wau"}
KINDS = {**record(kind={"enum": ["a", "b"]}), "required": ["kind"]}


@pytest.mark.parametrize(
    ("schema", "valid"),
    [
        ({"$defs": {"A": ANIMAL}, "allOf": [{"$ref": "#/$defs/A"}, DOG]}, REX),
        ({"$defs": {"A": ANIMAL}, "$ref": "#/$defs/A", **DOG}, REX),
        ({"$defs": {"A": ANIMAL}, "allOf": [{"$ref": "#/$defs/A"}], **DOG, "unevaluatedProperties": False}, REX),
        (
            {
                **KINDS,
                "oneOf": [
                    {**record(kind={"const": "a"}, x={"type": "integer"}), "required": ["x"]},
                    {**record(kind={"const": "b"}, y={"type": "integer"}), "required": ["y"]},
                ],
            },
            {"kind": "b", "y": 2},
        ),
        ({**KINDS, "anyOf": [{"required": ["x"]}, {"required": ["y"]}]}, {"kind": "a", "y": 1}),
        (
            {**KINDS, "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}},
            {"kind": "a", "x": "one"},
        ),
        (
            {
                **KINDS,
                "if": {"properties": {"kind": {"const": "a"}}},
                "then": {**record(x={"type": "integer"}), "required": ["x"]},
                "else": record(y={"type": "integer"}),
            },
            {"kind": "b", "y": 1},
        ),
        ({**KINDS, "dependentRequired": {"kind": ["x"]}}, {"kind": "a", "x": None}),
        ({**KINDS, "dependentSchemas": {"kind": record(x={"type": "integer"})}}, {"kind": "a", "x": 3}),
    ],
)
def test_a_schema_in_parts_can_be_answered(schema: dict[str, Any], valid: dict[str, Any]) -> None:
    checked = check_schema(schema)
    Draft202012Validator(checked).validate(valid)
    Draft202012Validator(decoded(checked)).validate(valid)
    column = column_for(checked, "it")
    written = column.convert(valid)
    kept = json.loads(written) if isinstance(written, str) else written
    assert kept.keys() >= valid.keys()


def test_strings_lists_and_numbers_without_a_bound_get_one() -> None:
    schema = record(s={"type": "string"}, l={"type": "array", "items": {"type": "integer"}}, x={"type": "number"})
    assert decoded(schema)["properties"] == {
        "s": {"type": "string", "maxLength": DEFAULT_MAX_LENGTH},
        "l": {
            "type": "array",
            "items": {"type": "integer", "minimum": INT_MIN, "maximum": INT_MAX},
            "maxItems": DEFAULT_MAX_ITEMS,
        },
        "x": {
            "anyOf": [
                {"type": "number", "maximum": 1e15, "minimum": 0, "multipleOf": 1e-6},
                {"type": "number", "minimum": -1e15, "exclusiveMaximum": 0},
            ]
        },
    }
    assert decoding_schema(schema)[1] == [
        "/: a string without maxLength ends at 120 characters and a list without maxItems at 8 items; "
        "set these keywords for other bounds"
    ]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "maxLength": 5000}, {"type": "string", "maxLength": 5000}),
        ({"type": "string", "minLength": 300}, {"type": "string", "minLength": 300, "maxLength": 300}),
        ({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 9}, {"type": "integer", "minimum": 1, "maximum": 8}),
        ({"type": "string", "enum": ["a", 1]}, {"enum": ["a"]}),
        ({"type": ["integer", "null"], "minimum": 1, "maximum": 2},
         {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}]}),
    ],
)  # fmt: skip
def test_the_users_own_bounds_stay(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert decoded(schema) == expected


def test_multiples_are_decoded_from_0_on() -> None:
    """llguidance would write no negative multiple at all."""
    schema = {"type": "integer", "minimum": -9, "maximum": 9, "multipleOf": 3}
    assert decoded(schema) == {
        "anyOf": [
            {"type": "integer", "maximum": 9, "minimum": 0, "multipleOf": 3},
            {"type": "integer", "minimum": -9, "maximum": -1},
        ]
    }
    assert notes(schema) == ["/: multipleOf is checked after the answer, not while decoding"]


def test_the_keys_of_a_map_match_a_pattern() -> None:
    assert decoded({"type": "object", "additionalProperties": {"type": "null"}}) == {
        "type": "object",
        "patternProperties": {"^.{0,64}$": {"type": "null"}},
        "additionalProperties": False,
        "maxProperties": DEFAULT_MAX_ITEMS,
    }
    named = {"type": "object", "propertyNames": {"enum": ["a b", "c.d"]}, "additionalProperties": {"type": "null"}}
    assert decoded(named)["patternProperties"] == {r"^(?:a b|c\.d)$": {"type": "null"}}
    spelt = {"type": "object", "patternProperties": {"^x-": {"type": "null"}}}
    assert decoded(spelt)["patternProperties"] == {"^x-.{0,64}$": {"type": "null"}}


def test_an_object_is_closed_unless_it_says_otherwise() -> None:
    assert decoded(record(a={"type": "null"}))["additionalProperties"] is False
    open_object = {**record(a={"type": "null"}), "required": ["a"], "additionalProperties": {"type": "boolean"}}
    assert decoded(open_object)["additionalProperties"] == {"type": "boolean"}
    assert decoded(open_object)["maxProperties"] == 1 + DEFAULT_MAX_ITEMS


def test_optional_properties_stay_optional() -> None:
    schema = {**record(a={"type": "null"}, b={"type": "null"}), "required": ["b"]}
    assert decoded(schema)["required"] == ["b"]


def test_references_become_simple_names_under_defs() -> None:
    schema = {
        **record(a={"$ref": "#/$defs/x~1y"}, b={"$ref": "#day"}, c={"$ref": "#"}),
        "$defs": {"x/y": {"type": "null"}, "d": {"$anchor": "day", "type": "boolean"}, "unused": {"type": "string"}},
    }
    result = decoded(schema)
    assert result["properties"] == {"a": {"$ref": "#/$defs/x_1y"}, "b": {"$ref": "#/$defs/d"}, "c": {"$ref": "#"}}
    assert result["$defs"] == {"x_1y": {"type": "null"}, "d": {"type": "boolean"}}


def test_a_draft_4_schema_is_decoded_as_it_means() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "array",
        "items": [{"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5}, {"type": "boolean"}],
    }
    assert decoded(schema) == {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "boolean"}],
        "items": False,
        "maxItems": 2,
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^[A-Z]\d+$", r"^[A-Z]\d+$"),
        ("^[A-Z]", "^[A-Z].{0,9}$"),
        ("x", "^.{0,9}x.{0,9}$"),
        ("(a|b)", "^.{0,9}(a|b).{0,9}$"),
        ("^a$|^b", "^a$|^b"),
        (r"^\$\d+\.\d{2}$", r"^\$\d+\.\d{2}$"),
        (r"^5\$", r"^5\$.{0,9}$"),
        ('^"$', '^"$'),
        ("^.{0,500}$", "^.{0,500}$"),
        ("^a*?$", "^a*?$"),
        (r"^a\nb$", r"^a\nb$"),
        (r"^[a-z\-\]]+$", r"^[a-z\-\]]+$"),
        (r"(?=a)b", None),
        (r"(?i)a", None),
        (r"^(a)\1$", None),
        (r"(^a|b$)", None),
        (r"\bword\b", None),
        (r"^a++$", None),
        (r"[[]", None),
        (r"[a&&b]", None),
        (r"\cA", None),
        ("a{,3}", None),
    ],
)
def test_a_pattern_reaches_the_grammar_whole_or_not_at_all(pattern: str, expected: str | None) -> None:
    assert (bounded(pattern, 9) if decodes(pattern) else None) == expected


def test_a_pattern_of_given_texts_matches_no_other() -> None:
    texts = ["a.b", "a b", "[x]", "a|b", "-", "\\", "^$", "{1}"]
    assert all(re.fullmatch(one_of(texts), text) for text in texts)
    assert not re.fullmatch(one_of(texts), "axb")


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"\A(?:\^?(?:[a-c]|\[a-c\]|\\d|\(a\|b\)|\.|a\{1,2\}|\|){1,5}\$?)\Z"), st.data())
def test_what_a_grammar_pattern_matches_the_users_pattern_finds(pattern: str, data: st.DataObject) -> None:
    assume(decodes(pattern))
    text = data.draw(st.from_regex(bounded(pattern, 4).replace("$", r"\Z")))
    assert re.search(pattern, text)


def broken(error: ValidationError) -> Iterator[str]:
    """The keywords that an error is about, and those that they stand in."""
    yield from map(str, error.schema_path)
    for inner in error.context or ():
        yield from broken(inner)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), schemas())
@pytest.mark.slow
def test_only_what_a_note_says_is_left_to_the_final_check(data: st.DataObject, schema: dict[str, Any]) -> None:
    """What the grammar writes breaks the schema in no keyword that was not said."""
    try:
        schema = check_schema(schema)
    except SchemaError:
        assume(False)
    decoding, said = decoding_schema(schema)
    Draft202012Validator.check_schema(decoding)
    value = data.draw(values(decoding))
    assume(Draft202012Validator(decoding).is_valid(value))
    dropped = {note.split(": ", 1)[1].split()[0] for note in said}
    for error in Draft202012Validator(schema).iter_errors(value):
        assert dropped.intersection(broken(error)), (error.message, said, decoding)


GRAMMARS = [
    schema_of(Reply),
    record(a={}, b={"type": "object"}, c={"type": "array"}, d={"type": ["string", "number", "null"]}),
    record(t={"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}),
    {**record(kids={"type": "array", "items": {"$ref": "#"}}, n={"type": "number", "minimum": 0}), "required": ["n"]},
    {"type": "object", "patternProperties": {"^k": {"type": "string", "pattern": "x"}}},
    {"type": "object", "propertyNames": {"pattern": "^a$"}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "propertyNames": {"enum": ["a b", "c-d", "$"]}, "additionalProperties": {"type": "integer"}},
    {**record(a={"type": "string"}), "minProperties": 1, "maxProperties": 3, "additionalProperties": {}},
    record(u={"type": "string", "format": "uri-template"}, n={"type": "number"}, m={"multipleOf": 0.07}),
    {"type": "object", "properties": {"a": False, "b": {"allOf": [{"type": "string"}, {"maxLength": 3}]}}},
    {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}},
]


@pytest.mark.parametrize("schema", GRAMMARS)
def test_llguidance_takes_every_decoding_schema(schema: dict[str, Any]) -> None:
    llguidance = pytest.importorskip("llguidance")
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(decoded(schema)))
    assert llguidance.LLMatcher.validate_grammar(grammar) == ""


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas())
@pytest.mark.slow
def test_llguidance_takes_the_decoding_schema_of_any_accepted_one(schema: dict[str, Any]) -> None:
    llguidance = pytest.importorskip("llguidance")
    try:
        decoding = decoded(schema)
    except SchemaError:
        assume(False)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(decoding))
    assert llguidance.LLMatcher.validate_grammar(grammar) == "", decoding


# -- how an answer is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a":[1,2.5,"x",null,true]}', '"\\ud83d\\ude00"', " 3 ", '"\\u00e9"'])
def test_json_is_read(text: str) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value at character 1"),
        ('{"a":1', "Expecting ',' delimiter at character 7"),
        ('{"a":1} and so on', "there is more text after the JSON value: 'and so on'"),
        ('{"a":1,"a":2}', "duplicate key 'a'"),
        ("[NaN]", "NaN is not a JSON value"),
        ("-Infinity", "-Infinity is not a JSON value"),
        ('"\\ud83d"', "the string '\\ud83d' contains half of a surrogate pair, which is not a character"),
        ('{"\\udc00":1}', "half of a surrogate pair"),
        ('"\ud83d"', "half of a surrogate pair"),
        ('"a\nb"', "Invalid control character at at character 3"),
        ("[" * 100_000, "the JSON is nested too deep"),
        ("9" * 5000, "a number has more digits than can be read"),
    ],
)
def test_what_is_not_strict_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_json(text)
    assert message in str(error.value)


@settings(max_examples=200)
@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    try:
        value = parse_json(text)
    except ValueError:
        return
    json.dumps(value, allow_nan=True, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (record(likes={"items": {"maxLength": 3}}), {"likes": ["a", "long"]},
         "facts.likes[1]: 'long' is too long (at most 3 characters)"),
        ({"enum": ["a", "b"]}, "c", "facts: 'c' is not one of 'a', 'b'"),
        ({"type": ["integer", "null"]}, "x", "facts: 'x' is not of type integer or null"),
        ({**record(a={}, b={}), "required": ["a", "b"]}, {}, "facts: 'a', 'b' is missing"),
        ({**record(a={}), "additionalProperties": False}, {"z": 1},
         "facts: 'z' must not be there (the properties are a)"),
        ({"type": "string", "format": "date"}, "2026-02-30", "facts: '2026-02-30' is not a valid date"),
        ({"type": "string", "format": "date-time"}, "yesterday", "facts: 'yesterday' is not a valid date-time"),
        ({"type": "string", "format": "email"}, "me", "facts: 'me' is not a valid email"),
        ({"type": "string", "format": "uri"}, "not a uri", "facts: 'not a uri' is not a valid uri"),
        ({"minimum": 3}, 2, "facts: 2 is too small (at least 3)"),
        ({"exclusiveMaximum": 3}, 3, "facts: 3 is too big (less than 3)"),
        ({"uniqueItems": True}, [1, 1], "facts: the list [1,1] holds an item twice"),
        ({"maxItems": 1}, [1, 1], "facts: the list has 2 items (at most 1)"),
        ({"pattern": "^a"}, "b", "facts: 'b' does not match ^a"),
        ({"type": "integer"}, 2.5, "facts: 2.5 is not of type integer"),
        ({"const": 1}, True, "facts: true is not 1"),
    ],
)  # fmt: skip
def test_a_problem_is_one_sentence_with_its_place(schema: dict[str, Any], value: object, problem: str) -> None:
    assert Validator.compile(check_schema(schema)).problem(value, "facts") == problem


def test_a_valid_value_has_no_problem() -> None:
    assert Validator.compile({"type": "number"}).problem(3) is None


def test_a_validator_follows_the_draft_that_the_schema_names() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    assert Validator.compile(check_schema(draft4)).problem(3) is not None


def test_a_problem_does_not_repeat_a_huge_value() -> None:
    assert len(Validator.compile({"maxLength": 3}).problem("x" * 10**6) or "") < 200


def test_a_validator_can_be_sent_to_a_worker() -> None:
    validator = Validator.compile({"type": "integer"})
    again: Validator = pickle.loads(pickle.dumps(validator))
    assert again.problem("x") == validator.problem("x")


# -- what the prompt says, and what an answer may cost -----------------------------------------------------------------


def test_a_schema_in_words() -> None:
    schema = {
        **record(
            product={"type": "string", "description": "what the\nproduct is"},
            rating={"type": ["integer", "null"], "minimum": 1, "maximum": 5},
            buyer={**record(name={"type": "string", "maxLength": 40}), "required": ["name"]},
            parts={"type": "array", "maxItems": 3, "items": record(kind={"enum": ["new", "used"]})},
            at={"$ref": "#/$defs/at"},
            other={},
        ),
        "required": ["product", "parts"],
        "$defs": {"at": {"type": "string", "format": "date-time", "description": "when it was bought"}},
    }
    assert describe(check_schema(schema)) == (
        "- product (string): what the product is\n"
        "- rating (integer, 1 to 5 or null, optional)\n"
        "- buyer (object, optional)\n"
        "  - name (string, at most 40 characters)\n"
        "- parts (list of object, at most 3 items)\n"
        '  - kind ("new" | "used", optional)\n'
        "- at (date and time, ISO 8601, optional): when it was bought\n"
        "- other (any value, optional)"
    )


def test_a_schema_of_no_object_is_described_too() -> None:
    assert describe({"type": "array", "items": {"type": "string"}, "maxItems": 3}) == "list of string, at most 3 items"


def test_a_recursive_schema_is_described_as_json_schema() -> None:
    tree = record(value={"type": "integer"}, kids={"type": "array", "items": {"$ref": "#"}})
    assert json.loads(describe(tree)) == tree


def test_a_huge_schema_is_described_within_bounds() -> None:
    schema = record(
        **{f"field_{i}": record(**{f"x{j}": {"description": "d" * 500} for j in range(9)}) for i in range(300)}
    )
    text = describe(schema)
    assert len(text) <= DESCRIPTION_LIMIT
    assert re.search(r"- and \d+ more$", text)


@pytest.mark.parametrize(
    ("schema", "tokens"),
    [
        ({"type": "boolean"}, 32),
        ({"type": "string", "maxLength": 298}, 100),
        ({"type": "string", "minLength": 298}, 100),
        (record(a={"type": "string", "maxLength": 298}, b={"enum": ["x", "y" * 28]}), 114),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 100}, 1024),
        (record(kids={"type": "array", "items": {"$ref": "#"}}), 1024),
    ],
)
def test_an_answer_is_estimated_from_its_bounds(schema: dict[str, Any], tokens: int) -> None:
    assert max_answer_tokens(schema) == tokens


def test_an_answer_that_has_to_be_long_has_room() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "boolean"}}
    least = max_answer_tokens({**schema, "minProperties": 20})
    assert least == max_answer_tokens({**schema, "minProperties": 20, "maxProperties": 20}) > max_answer_tokens(schema)
