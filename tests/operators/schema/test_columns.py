"""A schema's column: the Arrow type, the way of a value into it, and back through Parquet."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.operators.schema.columns import Column, column_for
from headrace.operators.schema.schemas import SchemaError, Validator, check_schema
from tests.support.schema_strategies import schemas, values

TEXT = pa.string()
LABEL = pa.dictionary(pa.int32(), pa.string())
INSTANT = pa.timestamp("us", tz="UTC")


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "integer"}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"type": "boolean"}, pa.bool_()),
        ({"type": "string", "format": "date"}, pa.date32()),
        ({"type": "string", "format": "date-time"}, INSTANT),
        ({"type": "string", "format": "email"}, TEXT),
        ({"enum": ["good", "bad"]}, LABEL),
        ({"const": "good"}, LABEL),
        ({"enum": [1, 2]}, pa.int64()),
        ({"enum": [1, 2.5]}, pa.float64()),
        ({"enum": [True, False]}, pa.bool_()),
        ({"type": "array", "items": {"type": "integer"}}, pa.list_(pa.int64())),
        (record(a={"type": "integer"}, b={"type": "string"}), pa.struct([("a", pa.int64()), ("b", TEXT)])),
        ({"properties": {"a": {"type": "integer"}}}, pa.struct([("a", pa.int64())])),
        (
            {"type": "array", "items": record(day={"type": "string", "format": "date"})},
            pa.list_(pa.struct([("day", pa.date32())])),
        ),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, pa.int64()),
        ({"allOf": [{"type": "integer"}]}, pa.int64()),
        (
            {"allOf": [record(a={"type": "integer"}), record(b={"type": "string"})]},
            pa.struct([("a", pa.int64()), ("b", TEXT)]),
        ),
        ({**record(a={"type": "integer"}), "required": ["b"]}, pa.struct([("a", pa.int64()), ("b", TEXT)])),
        (
            {
                **record(a={"type": "integer"}, b={"type": "integer"}),
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            pa.struct([("a", pa.int64()), ("b", pa.int64())]),
        ),
    ],
)
def test_a_schema_has_an_arrow_type(schema: dict[str, Any], expected: pa.DataType) -> None:
    assert column_for(check_schema(schema)).type == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["integer", "null"]},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "integer"}}},
        {"enum": [1, 2, None]},
        {"anyOf": [{"$ref": "#/$defs/maybe"}], "$defs": {"maybe": {"type": ["null", "integer"]}}},
    ],
)
def test_null_beside_one_type_is_that_type_nullable(schema: dict[str, Any]) -> None:
    column = column_for(check_schema(schema))
    assert (column.type, column.nullable, column.notes) == (pa.int64(), True, ())
    assert column.convert(None) is None


def test_a_type_without_null_is_not_nullable() -> None:
    assert not column_for({"type": "integer"}).nullable


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({}, "a value without a type has no column type"),
        ({"type": "object"}, "an object without properties has no column type"),
        ({"type": "object", "properties": {}}, "an object without properties has no column type"),
        ({**record(a={}), "additionalProperties": True}, "additionalProperties has no column type"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "additionalProperties has no column type"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "patternProperties has no column type"),
        ({"type": "array"}, "a list whose items have no schema has no column type"),
        ({"type": "array", "prefixItems": [{}]}, "a list whose items differ by position has no column type"),
        ({"type": "null"}, "a value that is always null has no column type"),
        ({"type": ["string", "integer"]}, "string or integer has no single type"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "anyOf of several types has no single type"),
        ({"enum": ["a", 1]}, "values of several types have no single type"),
        (
            {"allOf": [{"type": "string"}, {"type": "integer"}]},
            "allOf with other keywords beside it has no column type",
        ),
    ],
)
def test_what_arrow_cannot_type_is_json_text_and_said(schema: dict[str, Any], reason: str) -> None:
    column = column_for(schema, "facts")
    assert column.type == TEXT
    assert column.notes == (f"facts: {reason}, so it is kept as JSON text",)


def test_a_note_names_the_field() -> None:
    schema = record(people={"type": "array", "items": record(meta={"type": "object"}, age={"type": "integer"})})
    assert column_for(schema, "facts").notes == (
        "facts.people[].meta: an object without properties has no column type, so it is kept as JSON text",
    )


def test_a_recursive_schema_is_typed_down_to_where_it_recurs() -> None:
    tree = record(value={"type": "integer"}, kids={"type": "array", "items": {"$ref": "#"}})
    column = column_for(check_schema(tree), "tree")
    assert column.type == pa.struct([("value", pa.int64()), ("kids", pa.list_(TEXT))])
    assert column.notes == ("tree.kids[]: the schema is recursive here, so it is kept as JSON text",)
    assert column.convert({"value": 1, "kids": [{"value": 2}]}) == {"value": 1, "kids": ['{"value":2}']}


def test_the_same_definition_twice_is_not_recursive() -> None:
    schema = {**record(a={"$ref": "#/$defs/d"}, b={"$ref": "#/$defs/d"}), "$defs": {"d": {"type": "integer"}}}
    assert column_for(schema).notes == ()


def test_values_become_what_arrow_takes() -> None:
    schema = record(
        n={"type": "integer"},
        x={"type": "number"},
        day={"type": "string", "format": "date"},
        at={"type": "string", "format": "date-time"},
        meta={"type": "object"},
        absent={"type": "string"},
    )
    answer = {"n": 3.0, "x": 1, "day": "2026-02-28", "at": "2026-02-28T01:30:00.5+02:00", "meta": {"ä": [1]}}
    assert column_for(schema).convert(answer) == {
        "n": 3,
        "x": 1.0,
        "day": date(2026, 2, 28),
        "at": datetime(2026, 2, 27, 23, 30, 0, 500_000, tzinfo=UTC),
        "meta": '{"ä":[1]}',
        "absent": None,
    }


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "integer"}, 2**63, "facts.v: 9223372036854775808 does not fit into 64 bits"),
        ({"type": "integer"}, -(2**63) - 1, "facts.v: -9223372036854775809 does not fit into 64 bits"),
        (
            {"type": "number"},
            10**400,
            "facts.v: a number of more than 80 digits is beyond what a 64-bit float can hold",
        ),
        ({"type": "number"}, float("inf"), "facts.v: Infinity is beyond what a 64-bit float can hold"),
        ({"type": "object"}, {"a": float("inf")}, 'facts.v: a number in {"a":Infinity} is beyond what JSON can hold'),
        ({"type": "string", "format": "date"}, "0000-01-01", 'facts.v: "0000-01-01" is not a valid date'),
        ({"type": "string", "format": "date-time"}, "2016-12-31T23:59:60Z", "is not a valid time"),
        ({"type": "string", "format": "date-time"}, "2016-12-31T23:59:59", "it has no offset from UTC"),
        ({"type": "string", "format": "date-time"}, "9999-12-31T23:59:59-10:00", "is not a valid time"),
        (record(a={"type": "integer"}), {"b": 1}, 'facts.v: "b" is not a property of the schema'),
        ({"properties": {"a": {}}}, "text", 'facts.v: "text" is not an object'),
        ({"type": "integer"}, True, "facts.v: true is not an integer"),
    ],
)
def test_what_a_column_cannot_hold_is_refused(schema: dict[str, Any], value: Any, message: str) -> None:
    column = column_for(record(v=schema), "facts")
    with pytest.raises(ValueError, match=r"^facts\.v") as error:
        column.convert({"v": value})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("schema", "kind", "value"),
    [
        ({"type": "number", "enum": [1e20, 2e20]}, pa.float64(), 1e20),
        ({"enum": [1.0, 2.0]}, pa.int64(), 2),
        ({"enum": [18446744073709551615, 1]}, pa.string(), 18446744073709551615),
        ({"type": "number", "enum": [18446744073709551616, 1]}, pa.float64(), 18446744073709551616),
    ],
)
def test_an_enum_of_numbers_has_a_column_that_holds_them(schema: dict[str, Any], kind: pa.DataType, value: Any) -> None:
    column = column_for(schema)
    assert column.type == kind
    assert json.loads(str(column.convert(value))) == value


def test_a_label_is_a_plain_string_inside_a_struct() -> None:
    """A dictionary in there could not be read back by ``ParquetFile`` beyond one row group."""
    schema = record(kind={"enum": ["a", "b"]}, kinds={"type": "array", "items": {"enum": ["a", "b"]}})
    assert column_for(schema).type == pa.struct([("kind", TEXT), ("kinds", pa.list_(TEXT))])


def test_a_column_is_the_same_for_pyarrow_and_polars(tmp_path: Path) -> None:
    schema = record(kind={"enum": ["a", "b"]}, on={"type": "string", "format": "date"}, tags={"type": "array"})
    column = column_for(schema)
    answers = [{"kind": "a", "on": "2026-01-01", "tags": [1, "x"]}, {"kind": "b"}, None]
    table = pa.table({"facts": pa.array([column.convert(answer) for answer in answers], column.type)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    assert pq.ParquetFile(tmp_path / "t.parquet").read().equals(table)
    assert pl.read_parquet(tmp_path / "t.parquet").to_dicts() == table.to_pylist()


def test_a_column_can_be_sent_to_a_worker() -> None:
    column = column_for(record(a={"type": "array", "items": record(b={"type": "string", "format": "date"})}))
    again: Column = pickle.loads(pickle.dumps(column))
    assert again == column


def without_nulls(value: Any) -> Any:
    """A value as a table sees it: an absent field is a null one."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), schemas())
@pytest.mark.slow
def test_every_valid_value_comes_back_from_parquet(data: st.DataObject, schema: dict[str, Any]) -> None:
    try:
        schema = check_schema(schema)
    except SchemaError:
        assume(False)
    validator, column = Validator.compile(schema), column_for(schema)
    answers = data.draw(st.lists(values(schema), min_size=1, max_size=4))
    answers = [answer for answer in answers if validator.problem(answer) is None]
    assume(answers)
    array = pa.array([column.convert(answer) for answer in answers], column.type)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"answer": array}), sink, row_group_size=2)
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert read.schema.field("answer").type == column.type
    restored = [column.restore(value) for value in read["answer"].to_pylist()]
    assert without_nulls(restored) == without_nulls(answers)
    assert all(json.dumps(answer) for answer in restored)
