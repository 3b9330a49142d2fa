"""The types that JSON values are read as, and what is read as text for want of one."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from headrace.pipelines.input.json_types import MOST_DEPTH, MOST_FIELDS, MOST_KEYS, Columns, as_typed
from headrace.pipelines.input.rows import from_python

NAN = float("nan")
INSIDE = pa.struct({"a": pa.struct({"b": pa.list_(pa.struct({"c": pa.bool_()}))})})


def columns(*values: Any) -> tuple[pa.DataType, list[Any], tuple[str, ...]]:
    """The type of a column with these values, the values as they are read, and the notes."""
    seen = Columns()
    for value in values:
        seen.see({"x": value})
    schema, notes = seen.schema()
    rows = from_python([{"x": value} for value in values], schema, as_typed)
    assert rows.bad == {}, "a type holds all values that were seen"
    return schema.field("x").type, rows.table["x"].to_pylist(), notes


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, None], pa.null()),
        ([True, None, False], pa.bool_()),
        ([1, None, -(2**63), 2**63 - 1], pa.int64()),
        ([0, 2**64 - 1], pa.uint64()),
        ([1, 0.5, None, -(2**53)], pa.float64()),
        (["2026-11-02T10:00:00Z", None], pa.string()),
        ([[], [1], None, [None, 2]], pa.list_(pa.int64())),
        ([[], None], pa.list_(pa.null())),
        ([[[1]], [[0.5], []]], pa.list_(pa.list_(pa.float64()))),
        ([{"a": 1}, {"b": "x"}, None], pa.struct({"a": pa.int64(), "b": pa.string()})),
        ([{"a": {}}, {"a": {"b": [{"c": True}]}}], INSIDE),
        ([{"a": None}], pa.struct({"a": pa.null()})),
    ],
)  # fmt: skip
def test_the_type_holds_every_value(values: list[Any], kind: pa.DataType) -> None:
    found, read, notes = columns(*values)
    assert found == kind
    assert notes == ()

    def filled(value: Any, kind: pa.DataType) -> Any:
        """The value with null for the fields of objects that are not there."""
        if isinstance(value, dict):
            return {field.name: filled(value.get(field.name), field.type) for field in kind}
        return [filled(item, kind.value_type) for item in value] if isinstance(value, list) else value

    assert read == [filled(value, kind) for value in values]


@pytest.mark.parametrize(
    ("values", "texts", "why"),
    [
        (["a", 1, None, 0.5, True], ["a", "1", None, "0.5", "true"], "holds true or false and integers and decimals"),
        ([{"a": 1}, "b", [1, "ä"]], ['{"a":1}', "b", '[1,"ä"]'], "holds text and lists and objects"),
        ([2**64, 1], ["18446744073709551616", "1"], "holds integers of more than 64 bits"),
        ([2**63, -1], ["9223372036854775808", "-1"], "holds integers of more than 64 bits"),
        ([2**53 + 1, 0.5], ["9007199254740993", "0.5"], "holds decimals, and integers that are too large for decimals"),
        ([{}, None], ["{}", None], "holds empty objects only"),
        ([NAN, "x"], ["NaN", "x"], "holds decimals and text"),
    ],
)
def test_what_no_type_holds_is_text_and_is_said(values: list[Any], texts: list[Any], why: str) -> None:
    kind, read, notes = columns(*values)
    assert kind == pa.string()
    assert read == texts
    assert len(notes) == 1
    assert notes[0].startswith(f"the column 'x' {why}")
    assert notes[0].endswith(", so it is read as text")


def test_only_the_place_that_has_no_type_is_text() -> None:
    kind, read, notes = columns({"id": 1, "tags": [1]}, {"id": 2, "tags": ["a", None]})
    assert kind == pa.struct({"id": pa.int64(), "tags": pa.list_(pa.string())})
    assert read == [{"id": 1, "tags": ["1"]}, {"id": 2, "tags": ["a", None]}]
    assert notes == ("the column 'x.tags[]' holds integers and text, so it is read as text",)


def test_objects_whose_keys_are_values_are_text() -> None:
    counts = [{f"word {i}": i} for i in range(MOST_KEYS + 1)]
    kind, read, notes = columns({"counts": {"a": 1}, "n": 1}, *({"counts": each} for each in counts))
    assert kind == pa.struct({"counts": pa.string(), "n": pa.int64()})
    assert [json.loads(row["counts"]) for row in read] == [{"a": 1}, *counts]
    assert notes[0].startswith("the column 'x.counts' has objects with more than 256 different keys")
    assert columns({f"k{i}": i for i in range(MOST_KEYS)})[0].num_fields == MOST_KEYS


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "object"])
def test_what_is_nested_deeper_than_types_should_be_is_text_inside(kind: str) -> None:
    found, read, notes = columns(nested(200, kind), None)
    assert len(notes) == 1
    assert f"is nested deeper than {MOST_DEPTH}" in notes[0]
    depth = 0
    while not pa.types.is_string(found):
        found, depth = found.field(0).type, depth + 1
    assert depth < MOST_DEPTH
    inner = read[0]
    for _ in range(depth):
        inner = inner[0] if kind == "list" else inner["a"]
    assert json.loads(inner) == nested(200 - depth, kind)


def test_a_file_cannot_make_columns_without_end() -> None:
    seen = Columns()
    for i in range(MOST_FIELDS + 10):
        seen.see({f"k{i}": 1})
    seen.see({"k0": {"a": 1}})
    schema, notes = seen.schema()
    assert len(schema) == MOST_FIELDS
    assert "keys after the first 10,000, and keys that are not Unicode, are ignored" in notes
    assert schema.field("k0").type == pa.string(), "there is no room for its fields"


def test_a_key_that_is_no_name_is_left_out_or_makes_its_object_text() -> None:
    seen = Columns()
    seen.see({"\ud800": 1, "x": {"\ud800": 1}, "": 1, "a\0b": 1})
    schema, notes = seen.schema()
    assert schema.names == ["x", "", "a\0b"]
    assert schema.field("x").type == pa.string()
    assert len(notes) == 2
